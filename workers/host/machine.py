"""What every part of the host stands on: where the machine's root is, and whether it is real or only rehearsed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .run import RealRunner, RehearsedRunner, Runner


@dataclass(frozen=True)
class Machine:
    """A machine's root folder and the means to touch it."""

    root: Path
    runner: Runner

    @property
    def real(self) -> bool:
        """Whether daemons, processes and owners are touched; else only files are written."""
        return self.runner.real

    def path(self, absolute: str) -> Path:
        """Where an absolute path of the machine is found from here."""
        return self.root / absolute.lstrip("/")


def real() -> Machine:
    """This machine."""
    return Machine(Path("/"), RealRunner())


def rehearsal(folder: Path) -> Machine:
    """A machine that is only a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return Machine(folder, RehearsedRunner())
