"""A private RabbitMQ, on ports and in a folder of its own; alone, or as a member of a cluster."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onehost.models.settings import Broker, Manager

from .installation import Installation, installation
from .process import end, free_ports, start, wait_until


@dataclass
class RabbitMQ:
    """One private broker. Its data survives stop() and start(), not wipe()."""

    folder: Path
    port: int
    management_port: int
    distribution_port: int
    epmd_port: int
    installation: Installation = field(default_factory=installation)
    #: Lines added to rabbitmq.conf at the next start.
    extra_configuration: list[str] = field(default_factory=list)
    #: Members of one cluster say the same secret, and the first has the port mapper of all.
    cookie: str = ""
    has_epmd: bool = True
    _server: subprocess.Popen[bytes] | None = None
    _epmd: subprocess.Popen[bytes] | None = None

    @property
    def management(self) -> str:
        return f"http://127.0.0.1:{self.management_port}"

    @property
    def node(self) -> str:
        """What the broker calls itself."""
        return f"test{self.port}@localhost"

    def log(self) -> str:
        """Everything that the broker has written to its log."""
        return (self.folder / "log" / f"{self.node}.log").read_text(errors="replace")

    def deprecations(self) -> list[str]:
        """What the broker's log says about features that are used and will go."""
        lines = self.log().splitlines()
        # Metrics are the management plugin's own.
        return [line for line in lines if "eprecated" in line and "management_metrics_collection" not in line]

    def start(self) -> None:
        """Start and wait until AMQP and the management API answer."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start, without waiting for it."""
        if self.has_epmd and self._epmd is None:
            command = self.installation.command("epmd", "-port", str(self.epmd_port), "-address", "127.0.0.1")
            self._epmd = start(command, dict(os.environ), self.folder)
        lines = ["management.tcp.ip = 127.0.0.1", f"management.tcp.port = {self.management_port}"]
        (self.folder / "rabbitmq.conf").write_text("\n".join([*lines, *self.extra_configuration, ""]))
        (self.folder / "plugins").write_text("[rabbitmq_management].\n")
        cookie = self.folder / ".erlang.cookie"
        if self.cookie and not cookie.exists():
            cookie.write_text(self.cookie)
            cookie.chmod(0o400)
        self._server = start(self.installation.command("rabbitmq-server"), self._environment(), self.folder)

    def wait(self) -> None:
        """Wait until AMQP and the management API answer."""
        assert self._server is not None
        wait_until(self._answers, self._server, self.folder / "out")

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End the broker; SIGKILL for a crash."""
        if self._server is not None:
            end(self._server, how)
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

    def ctl(self, arguments: Sequence[str], stdin: bytes = b"", program: str = "rabbitmqctl") -> str:
        """What `rabbitmqctl` does and says for this broker."""
        command = self.installation.command(program, *arguments)
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
            end(self._epmd, signal.SIGTERM)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _environment(self) -> dict[str, str]:
        loopback = "{127,0,0,1}"
        quiet = f"+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {loopback}"
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_NODENAME": self.node,
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


@contextmanager
def private_rabbitmq() -> Iterator[RabbitMQ]:
    """A RabbitMQ that runs as long as the block."""
    broker = RabbitMQ(new_folder(), *free_ports(4))
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


def new_folder() -> Path:
    """A folder for one broker."""
    return Path(tempfile.mkdtemp(prefix="onehost-rabbitmq-"))
