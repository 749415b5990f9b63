"""One account's PHP-FPM pool: its file, its socket, and the question whether it answers."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

#: Apache's socket of a pool; only www-data may connect.
PUBLIC = "/run/onehost/php"
#: Under these names sockets are bound and known to FPM. They are renamed to the public ones before FPM sees them, so
#: the name is free when an old master ends and unlinks it.
PRIVATE = "/run/onehost/php/private"
PING = "/.onehost-ping"
BACKLOG = 511
_TEMPLATE = """; onehost's own file, rewritten by its worker
[{name}]
user = {uid}
group = {gid}
listen = {private}
listen.owner = www-data
listen.group = www-data
listen.mode = 0600
pm = ondemand
pm.max_children = {processes}
pm.process_idle_timeout = 10s
pm.max_requests = 500
ping.path = {ping}
request_terminate_timeout = 300s
security.limit_extensions = .php
env[USER] = {name}
env[HOME] = {home}/home
env[TMPDIR] = {home}/tmp
env[PATH] = /usr/local/bin:/usr/bin:/bin
php_admin_value[open_basedir] = {home}/:/usr/share/php/
php_admin_value[sys_temp_dir] = {home}/tmp
php_admin_value[upload_tmp_dir] = {home}/tmp
php_value[session.save_handler] = files
php_admin_value[session.save_path] = {home}/tmp/sessions
php_value[session.gc_probability] = 1
php_value[session.gc_divisor] = 1000
php_admin_value[error_log] = {home}/log/php.log
php_admin_flag[log_errors] = on
php_admin_value[opcache.restrict_api] = /nowhere/
"""
#: Requests at the same time, where the account has no limit of its own.
PROCESSES = 8


@dataclass(frozen=True)
class Pool:
    """A pool as it is wanted. Users go by number, so that a name unknown here cannot stop a whole master."""

    owner: int
    name: str
    uid: int
    gid: int
    shard: int
    #: None: as is usual.
    processes: int | None = None
    #: None: what its sites say. Here it keeps the tenant's own .user.ini from having more.
    memory_mib: int | None = None

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.name}.{self.owner}.conf"

    def render(self) -> bytes:
        """The content of its file."""
        private = f"{PRIVATE}/{self.name}.{self.owner}.sock"
        values = {"name": self.name, "uid": self.uid, "gid": self.gid, "home": f"/home/{self.name}"}
        processes = self.processes or PROCESSES
        text = _TEMPLATE.format(**values, private=private, ping=PING, processes=processes)
        limit = f"php_admin_value[memory_limit] = {self.memory_mib}M\n" if self.memory_mib else ""
        return (text + limit).encode()


def bind(label: str, www_data: tuple[int, int]) -> socket.socket:
    """A new listening socket for the pool `NAME.ID`, open to Apache alone, under its public name."""
    private, public = f"{PRIVATE}/{label}.sock", f"{PUBLIC}/{label.rpartition('.')[0]}.sock"
    if os.path.lexists(private):
        os.unlink(private)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(private)
    finally:
        os.umask(before)
    os.chown(private, *www_data)
    listener.listen(BACKLOG)
    os.rename(private, public)
    return listener


def ping(public: str, seconds: float) -> str:
    """Asks a pool through its socket, as Apache would, without running any code of the account.

    Returns what it answered; "pong" is right. Raises OSError if it cannot be reached in time.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(seconds)
        client.connect(public)
        names = {"SCRIPT_NAME": PING, "SCRIPT_FILENAME": PING, "REQUEST_METHOD": "GET", "QUERY_STRING": ""}
        pairs = b"".join(struct.pack("BB", len(k), len(v)) + k.encode() + v.encode() for k, v in names.items())
        begin = struct.pack("!HB5x", 1, 0)
        client.sendall(_record(1, begin) + _record(4, pairs) + _record(4, b"") + _record(5, b""))
        answer = b""
        while block := client.recv(65536):
            answer += block
    text = b""
    while len(answer) >= 8:
        kind, length, padding = struct.unpack("!xB2xHBx", answer[:8])
        text += answer[8 : 8 + length] if kind in (6, 7) else b""
        answer = answer[8 + length + padding :]
    return text.decode(errors="replace").rpartition("\r\n\r\n")[2].strip()


def _record(kind: int, content: bytes) -> bytes:
    return struct.pack("!BBHHBx", 1, kind, 1, len(content), 0) + content
