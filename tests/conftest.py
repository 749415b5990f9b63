"""Real services for the tests: a private RabbitMQ and a private PostgreSQL, on ports and in folders of their own.

A service that is not installed skips its tests, loudly; where CI is set it fails them. Nothing is left running.
"""

from __future__ import annotations

import base64
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

from onehost.models.settings import Broker, Manager

RABBITMQ_BIN = Path("/usr/lib/rabbitmq/bin")
POSTGRESQL_BINS = Path("/usr/lib/postgresql")
#: Linux hands out ports above this to clients; a server that wants one there loses the race on a busy machine.
FIRST_EPHEMERAL_PORT = 32768
BOOT_SECONDS = 90
#: Waits for the end of its standard input, which the tests hold, then ends the group $1 and removes the folder $2.
GUARD = 'read _; kill -s KILL -- "-$1" 2>/dev/null; rm -rf -- "$2"'


#: For each service, by process id, who ends it when the tests are killed.
_guards: dict[int, subprocess.Popen[bytes]] = {}


@dataclass
class RabbitMQ:
    """One private broker. Its data survives stop() and start(), not wipe()."""

    folder: Path
    port: int
    management_port: int
    distribution_port: int
    epmd_port: int
    #: Lines added to rabbitmq.conf at the next start.
    extra_configuration: list[str] = field(default_factory=list)
    _server: subprocess.Popen[bytes] | None = None
    _epmd: subprocess.Popen[bytes] | None = None

    @property
    def management(self) -> str:
        return f"http://127.0.0.1:{self.management_port}"

    def start(self) -> None:
        """Start and wait until AMQP and the management API answer."""
        if self._epmd is None:
            command = ["epmd", "-port", str(self.epmd_port), "-address", "127.0.0.1"]
            self._epmd = _start(command, dict(os.environ), self.folder)
        lines = ["management.tcp.ip = 127.0.0.1", f"management.tcp.port = {self.management_port}"]
        (self.folder / "rabbitmq.conf").write_text("\n".join([*lines, *self.extra_configuration, ""]))
        (self.folder / "plugins").write_text("[rabbitmq_management].\n")
        self._server = _start([str(RABBITMQ_BIN / "rabbitmq-server")], self._environment(), self.folder)
        _wait_until(lambda: self._answers(), self._server, self.folder / "out")

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End the broker; SIGKILL for a crash."""
        if self._server is not None:
            _end(self._server, how)
            self._server = None

    def wipe(self) -> None:
        """Lose everything that the broker had stored. Only while it is stopped."""
        shutil.rmtree(self.folder / "mnesia")

    def freeze(self) -> None:
        assert self._server is not None
        os.killpg(self._server.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._server is not None
        os.killpg(self._server.pid, signal.SIGCONT)

    def ctl(self, arguments: Sequence[str], stdin: bytes = b"") -> str:
        """What `rabbitmqctl` does and says for this broker."""
        command = [str(RABBITMQ_BIN / "rabbitmqctl"), *arguments]
        env = self._environment()
        done = subprocess.run(
            command, input=stdin, env=env, cwd=self.folder, check=True, timeout=60, stdout=subprocess.PIPE
        )
        return done.stdout.decode()

    def api(self, path: str, user: str = "guest", password: str = "guest") -> Any:
        """GET from the management API, in words of its own: a second pair of eyes."""
        request = urllib.request.Request(f"{self.management}/api/{path}")
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def settings(self, folder: Path) -> Manager:
        """Settings of a manager at this broker, with its store, secrets and definitions below `folder`."""
        return Manager(
            store=f"sqlite:///{folder}/store.db",
            broker=Broker(port=self.port),
            secrets=folder / "secrets",
            management=self.management,
            definitions=folder / "definitions.json",
        )

    def close(self) -> None:
        """End the broker and its epmd."""
        if self._server is not None:
            os.killpg(self._server.pid, signal.SIGCONT)
        self.stop(signal.SIGKILL)
        if self._epmd is not None:
            _end(self._epmd, signal.SIGTERM)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        loopback = "{127,0,0,1}"
        quiet = f"+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {loopback}"
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.folder / "config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": quiet,
        }

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            with urllib.request.urlopen(f"{self.management}/", timeout=2):
                return True
        except OSError:
            return False


@dataclass(frozen=True)
class PostgreSQL:
    """One private cluster, reached by a unix socket as its superuser."""

    socket_folder: Path

    def url(self, database: str = "postgres") -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://postgres@/{database}?host={self.socket_folder}"

    def new_database(self, template: str = "") -> str:
        """Make an empty database, or a copy of the one at a URL; its SQLAlchemy URL."""
        import psycopg

        name = f"test_{random.randrange(1 << 40):x}"
        with psycopg.connect(host=str(self.socket_folder), user="postgres", autocommit=True) as connection:
            source = template.partition("?")[0].rpartition("/")[2] or "template1"
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{source}"'.encode())
        return self.url(name)


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """A running private RabbitMQ with the management plugin; its data is shared by all tests.

    `bootstrap(settings, rabbitmq.ctl)`, then `synchronise`, makes it what a test wants, whoever used it before.
    """
    with private_rabbitmq() as broker:
        yield broker


@contextmanager
def private_rabbitmq() -> Iterator[RabbitMQ]:
    """A RabbitMQ that runs as long as the block."""
    if not (RABBITMQ_BIN / "rabbitmq-server").exists():
        _is_missing("RabbitMQ", "rabbitmq-server")
    broker = RabbitMQ(Path(tempfile.mkdtemp(prefix="onehost-rabbitmq-")), *_free_ports(4))
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A running private PostgreSQL cluster; nothing of it needs to survive a power failure."""
    with private_postgresql("fsync=off") as server:
        yield server


@contextmanager
def private_postgresql(*settings: str) -> Iterator[PostgreSQL]:
    """A PostgreSQL cluster with these settings that runs as long as the block."""
    bins = sorted(POSTGRESQL_BINS.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not bins:
        _is_missing("PostgreSQL", "postgresql")
    folder = Path(tempfile.mkdtemp(prefix="onehost-postgresql-"))
    server: subprocess.Popen[bytes] | None = None
    try:
        identity = _postgres_identity(folder)
        command = [
            bins[-1].with_name("initdb"),
            "-D",
            folder / "data",
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "-N",
        ]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, **identity)
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}"]
        options += [word for setting in settings for word in ("-c", setting)]
        server = _start([str(bins[-1]), "-D", str(folder / "data"), *options], dict(os.environ), folder, **identity)
        _wait_until(lambda: _postgresql_answers(folder), server, folder / "out")
        yield PostgreSQL(folder)
    finally:
        if server is not None:
            _end(server, signal.SIGINT)
        shutil.rmtree(folder, ignore_errors=True)


def _is_missing(service: str, package: str) -> NoReturn:
    message = f"{service} is not installed (apt-get install {package})"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def _postgres_identity(folder: Path) -> dict[str, Any]:
    """PostgreSQL refuses to run as root: its own user then, who gets the folder."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _postgresql_answers(folder: Path) -> bool:
    import psycopg

    try:
        psycopg.connect(host=str(folder), user="postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20000, FIRST_EPHEMERAL_PORT)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def _start(command: list[str], env: dict[str, str], folder: Path, **identity: Any) -> subprocess.Popen[bytes]:
    """Start a service as leader of a group of its own; it dies with the tests, also when they are killed."""
    with (folder / "out").open("ab") as out:
        service = subprocess.Popen(
            command,
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            **identity,
        )
    guard = ["sh", "-c", GUARD, "guard", str(service.pid), str(folder)]
    _guards[service.pid] = subprocess.Popen(guard, stdin=subprocess.PIPE, start_new_session=True)
    return service


def _end(process: subprocess.Popen[bytes], how: int) -> None:
    """End a service and whatever it started in its session."""
    if process.poll() is None:
        os.killpg(process.pid, how)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
    guard = _guards.pop(process.pid)
    guard.kill()
    guard.communicate()


def _wait_until(answers: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + BOOT_SECONDS
    while not answers():
        if process.poll() is not None or time.monotonic() > until:
            pytest.fail(f"{process.args} did not come up:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)
