"""What a round does with one daemon: stage whole files, validate once, switch, signal once, or put back."""

from __future__ import annotations

from typing import Protocol


class Daemon(Protocol):
    """A part of the machine that is changed by whole files of its own, one set of files per owner (a resource id).

    Reconcilers hand it what they want through methods of each daemon's own (`stage_site`, `stage_pool`, …). The
    executor then drives it through the methods below, for all owners of a round at once.
    """

    name: str

    def changed(self) -> frozenset[int]:
        """Owners whose staged files differ from the live ones. Empty: nothing to do, no signal."""
        ...

    def validate(self) -> None:
        """Tries what is staged with the daemon's own check, without touching what is live.

        Raises Permanent with the daemon's words (`culprit` = the owner's id as text, if its file is named in them),
        or Blocked if the live files alone fail the check too.
        """
        ...

    def switch(self) -> None:
        """Makes what is staged live, atomically and journalled: after a kill, `recover` finishes the signal."""
        ...

    def signal(self) -> None:
        """Tells the daemon, once. Returns when it has taken the new files. Not running: nothing to tell."""
        ...

    def restore(self, owner: int) -> None:
        """Stages that owner's files of before this round again. The others keep what they staged."""
        ...

    def settle(self) -> None:
        """Ends the round: what had to outlive the others' switch is dropped, what `restore` would need is forgotten."""
        ...

    def recover(self) -> None:
        """At the worker's start: sets up what the daemon includes once; finishes a switch that has no signal.

        Starts nothing: a node that was away must not serve what was removed or suspended meanwhile.
        """
        ...

    def start(self) -> None:
        """Starts the daemon if it is not running. Called when this node is synced and urgent changes are applied."""
        ...
