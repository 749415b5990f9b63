"""A plan: the limits that an account is sold with, under a name. A limit that it does not name is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marshmallow import Schema

from .. import names
from ..errors import NotFound, Refused
from .fields import YesNo, integer
from .noun import Noun, Option, Spec, Stage, Surroundings, Verb, delete

_MOST = 10**9


def _number(first: int = 0, last: int = _MOST) -> Any:
    return integer(first, last, load_default=None, allow_none=True)


class PlanSchema(Schema):
    """The spec of a plan: numbers, None where there is no limit, and what is allowed at all."""

    storage_mib = _number()
    bandwidth_mib = _number()
    domains = _number()
    mailboxes = _number()
    ftp_logins = _number()
    aliases = _number()
    zones = _number()
    crons = _number()
    ssh_keys = _number()
    php_processes = _number(1, 500)
    memory_mib = _number(16, 4096)
    mail_per_hour = _number()
    shell = YesNo(load_default=True)
    cgi = YesNo(load_default=True)
    cron = YesNo(load_default=True)


#: Every limit, with what it means.
LIMITS: Mapping[str, str] = {
    "storage_mib": "Files of the account, in MiB.",
    "bandwidth_mib": "What its sites send in a month, in MiB.",
    "domains": "Domains beside its first.",
    "mailboxes": "Mailboxes.",
    "ftp_logins": "FTP logins beside its own.",
    "aliases": "Aliases of all its domains.",
    "zones": "DNS zones.",
    "crons": "Cron entries.",
    "ssh_keys": "SSH keys.",
    "php_processes": "PHP requests at the same time.",
    "memory_mib": "Memory of one PHP request, in MiB.",
    "mail_per_hour": "Mails sent in an hour.",
    "shell": "Whether access may be a shell.",
    "cgi": "Whether programs of its own may answer requests.",
    "cron": "Whether it may have cron entries.",
}
#: Those that are yes or no.
RIGHTS = frozenset({"shell", "cgi", "cron"})
OPTIONS = tuple(Option(name, text, "yes_no" if name in RIGHTS else "limit") for name, text in LIMITS.items())


class Plan(Noun):
    """See the module. It stands on no node: what a node must know travels with the account."""

    name = "plan"
    plural = "plans"
    schema = PlanSchema
    columns = ("storage_mib", "domains", "ftp_logins", "crons", "php_processes", "shell")
    order = 20
    verbs = (
        Verb("create", "Make a plan.", "create gold --domains 10 --storage-mib 20000 --no-shell",
             options=OPTIONS, makes=True),
        Verb("set", "Change its limits, for every account that has it.", "set gold --domains 20 --crons none",
             options=OPTIONS),
        delete("Remove a plan that no account has.", "gold"),
    )  # fmt: skip

    def check_name(self, name: str) -> str:
        return names.plan(name)

    def check(self, name: str, spec: Spec | None, before: Spec | None, around: Surroundings) -> None:
        if spec is not None:
            return
        having = [account for account, its in around.all("account").items() if its.get("plan") == name]
        if having:
            accounts = f"{len(having)} account" + ("" if len(having) == 1 else "s")
            raise Refused(f"plan {name} is that of {accounts}, {having[0]} among them",
                          hint=f"onehost account set {having[0]} --plan …")  # fmt: skip

    def stages(self) -> Sequence[Stage]:
        return ()


def allowed(spec: Mapping[str, Any], around: Surroundings) -> dict[str, Any]:
    """Every limit of an account with this spec: a number, None without one, yes or no. Raises NotFound."""
    plan = spec.get("plan")
    found = around.owner("plan", plan) if plan else None
    if plan and found is None:
        raise NotFound(f"no such plan: {plan}", hint="onehost plan list")
    return effective(found[1] if found else {}, spec.get("limits") or {})


def effective(plan: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Every limit: the account's own where it has one, else the plan's, else none."""
    return {name: own.get(name, plan.get(name, True if name in RIGHTS else None)) for name in LIMITS}


NOUN = Plan()
