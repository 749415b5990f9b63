"""Where RabbitMQ's programs come from: this machine, or the root folder of the other Debian with the other version."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .process import is_missing

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAMS = Path("/usr/lib/rabbitmq/bin")
#: Which Debian has which RabbitMQ.
SUITES = {"3.10": "bookworm", "4.0": "trixie"}
#: In a mount namespace of its own: root folder $1 with this machine's devices, processes and temporary folder $2, and
#: in it the command that follows. Network and processes are the machine's: a signal reaches it as any other.
ENTER = """
for folder in /dev /proc "$2"; do mkdir -p "$1$folder" && mount --rbind "$folder" "$1$folder" || exit 1; done
root=$1; shift 2; exec chroot "$root" "$@"
"""


@dataclass(frozen=True)
class Installation:
    """RabbitMQ and Erlang as installed on this machine, or below `root`."""

    root: Path | None = None

    def command(self, program: str, *arguments: str) -> list[str]:
        """The words that run a program: RabbitMQ's own, or one of the system's."""
        known = PROGRAMS / program
        words = [str(known) if program.startswith("rabbitmq") else program, *arguments]
        if self.root is None:
            return words
        return ["unshare", "--mount", "sh", "-c", ENTER, "enter", str(self.root), tempfile.gettempdir(), *words]


def installation() -> Installation:
    """The one that $ONEHOST_TEST_RABBITMQ names, 3.10 or 4.0, made if need be; if it names none, this machine's.

    What cannot be had skips the test, or fails it in CI.
    """
    wanted = os.environ.get("ONEHOST_TEST_RABBITMQ", "")
    if wanted and wanted not in SUITES:
        raise ValueError(f"ONEHOST_TEST_RABBITMQ is {wanted!r}; known: {', '.join(SUITES)}")
    here = _version_here()
    if here.startswith(f"{wanted}.") or (here and not wanted):
        return Installation()
    if not wanted:
        is_missing("RabbitMQ is not installed (apt-get install rabbitmq-server)")
    command = [str(CHECKOUT / "ops/rabbitmq-root"), SUITES[wanted]]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        is_missing(f"RabbitMQ {wanted} cannot be had: {made.stderr.strip()}")
    return Installation(Path(made.stdout.strip()))


def _version_here() -> str:
    if not (PROGRAMS / "rabbitmq-server").exists():
        return ""
    query = ["dpkg-query", "-W", "-f", "${Version}", "rabbitmq-server"]
    return subprocess.run(query, stdout=subprocess.PIPE, text=True).stdout
