"""A private PostgreSQL cluster in a folder of its own, reached by a unix socket."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .process import end, is_missing, start, wait_until

POSTGRESQL_BINS = Path("/usr/lib/postgresql")


@dataclass
class PostgreSQL:
    """One private cluster, reached by a unix socket as its superuser. Its data survives stop() and start()."""

    socket_folder: Path
    command: list[str]
    identity: dict[str, Any]
    _server: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://postgres@/{database}?host={self.socket_folder}"

    def new_database(self, template: str = "") -> str:
        """Make an empty database, or a copy of the one at a URL; its SQLAlchemy URL."""
        name = f"test_{random.randrange(1 << 40):x}"
        with self.session() as connection:
            source = template.partition("?")[0].rpartition("/")[2] or "template1"
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{source}"'.encode())
        return self.url(name)

    def session(self, url: str = "") -> Any:
        """A session of the superuser, in the database of a URL or in none of the tests'; each statement commits."""
        import psycopg

        database = url.partition("?")[0].rpartition("/")[2] or "postgres"
        return psycopg.connect(host=str(self.socket_folder), user="postgres", dbname=database, autocommit=True)

    def start(self) -> None:
        """Start and wait until it takes connections."""
        self._server = start(self.command, dict(os.environ), self.socket_folder, **self.identity)
        wait_until(lambda: _answers(self.socket_folder), self._server, self.socket_folder / "out")

    def stop(self, how: int = signal.SIGINT) -> None:
        """End it; SIGQUIT is PostgreSQL's own "immediate", as after a power cut."""
        if self._server is not None:
            end(self._server, how)
            self._server = None

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        """To the server and its children, each of which leads a session of its own."""
        assert self._server is not None
        parent = self._server.pid
        os.kill(parent, number)
        for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(child), number)


@contextmanager
def private_postgresql(*settings: str) -> Iterator[PostgreSQL]:
    """A PostgreSQL cluster with these settings that runs as long as the block."""
    bins = sorted(POSTGRESQL_BINS.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not bins:
        is_missing("PostgreSQL is not installed (apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="onehost-postgresql-"))
    identity = _postgres_identity(folder)
    options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}"]
    options += [word for setting in settings for word in ("-c", setting)]
    server = PostgreSQL(folder, [str(bins[-1]), "-D", str(folder / "data"), *options], identity)
    try:
        words = ["-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"]
        command = [bins[-1].with_name("initdb"), *words]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, **identity)
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _postgres_identity(folder: Path) -> dict[str, Any]:
    """PostgreSQL refuses to run as root: its own user then, who gets the folder."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _answers(folder: Path) -> bool:
    import psycopg

    try:
        psycopg.connect(host=str(folder), user="postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
