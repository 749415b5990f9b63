"""A cron entry: a command of an account, run at its times on one node of the cluster and started at most once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .fields import Command, Schedule, YesNo, integer
from .noun import Option, Spec, Stage, Verb, delete
from .owned import OWNER, NamedInAccount, OfAccountSchema


class CronSchema(OfAccountSchema):
    """The spec of a cron entry."""

    schedule = Schedule(required=True)
    command = Command(required=True)
    enabled = YesNo(load_default=True)
    limit_seconds = integer(1, 86400, load_default=3600)


COMMAND = "One line for /bin/sh, run in the home; a % is a % and nothing else."
OPTIONS = (
    Option("schedule", "Minute, hour, day, month, day of the week, in UTC; or @daily and its like."),
    Option("command", COMMAND),
    Option("limit_seconds", "It is ended after this long.", "number"),
)


class Cron(NamedInAccount):
    """See the module."""

    name = "cron"
    plural = "crons"
    schema = CronSchema
    limit = "crons"
    columns = ("account", "schedule", "command", "enabled")
    order = 45
    verbs = (
        Verb(
            "create",
            "Have a command of an account run at its times.",
            "create alice.backup alice '30 4 * * *' 'php bin/backup.php'",
            options=(
                OWNER,
                Option("schedule", OPTIONS[0].help, required=True, positional=True),
                Option("command", COMMAND, required=True, positional=True),
                OPTIONS[2],
            ),
            makes=True,
        ),
        Verb("set", "Change when or what it runs.", "set alice.backup --schedule @daily", options=OPTIONS),
        Verb("disable", "Start it no more; what runs goes on.", "disable alice.backup", fixed={"enabled": False}),
        Verb("enable", "Start it again at its times.", "enable alice.backup", fixed={"enabled": True}),
        delete("Remove it; what runs goes on.", "alice.backup"),
    )

    def takes(self, spec: Spec) -> Mapping[str, int]:
        return {"cron": 1, "crons": 1}

    def stages(self) -> Sequence[Stage]:
        return (Stage(frozenset({"web", "ssh"}), waits_for_all=False),)


NOUN = Cron()
