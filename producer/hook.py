"""Runs a command of the operator when the verdict changes, and remembers the last one it was told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..broker_config.atomic_file import write_atomically
from .verdict import Verdict

#: Where the last verdict is remembered, unless the caller says otherwise.
MEMORY = Path("/var/lib/onehost/status.json")
#: What a hook may take, in seconds; then it and whatever it has started is killed.
HOOK_SECONDS = 30.0
#: Name in the hook's environment for the level in a word.
LEVEL = "ONEHOST_LEVEL"


@dataclass(frozen=True)
class Hook:
    """A command with its arguments, run without a shell, and the file of the verdict it was told last."""

    command: tuple[str, ...]
    memory: Path = MEMORY
    seconds: float = HOOK_SECONDS

    def tell(self, verdict: Verdict, data: bytes) -> str:
        """Runs the command if level or causes are others than last time, with `data` on its standard input.

        Gives why it could not be told, else nothing. What was not told is told next time. Before the first time all
        was well. Raises OSError if it cannot be remembered.
        """
        now = {"level": verdict.word, "causes": verdict.causes}
        if now == self._remembered():
            return ""
        if why := self._run(verdict.word, data):
            return why
        write_atomically(self.memory, json.dumps(now).encode(), mode=0o644)
        return ""

    def _remembered(self) -> Any:
        try:
            return json.loads(self.memory.read_bytes())
        except (FileNotFoundError, ValueError):
            return {"level": Verdict().word, "causes": []}

    def _run(self, level: str, data: bytes) -> str:
        try:
            # Its words go to our standard error: on standard output stands the verdict.
            process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=2, start_new_session=True,
                                       env=os.environ | {LEVEL: level})  # fmt: skip
        except OSError as error:
            return f"{self.command[0]}: {error.strerror}"
        try:
            process.communicate(data, timeout=self.seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return f"{self.command[0]} was killed after {self.seconds:g} s"
        return f"{self.command[0]} ended with {process.returncode}" if process.returncode else ""
