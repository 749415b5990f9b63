"""The command line `onehost`. Each command imports what it needs when it runs, so that `--help` answers at once."""

from __future__ import annotations


def main() -> None:
    """Entry point of the program; ends the process with the exit code of what was asked."""
    from .root import root

    root.main()
