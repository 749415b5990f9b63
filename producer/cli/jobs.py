"""`onehost job`: what became of wishes, node by node; another try, or an end."""

from __future__ import annotations

from typing import Any

import click

from ...models import states
from . import cancelling, follow, many
from .failures import Mistake
from .groups import Command, Group
from .moments import resource_filter
from .output import emit, pairs, table
from .session import Session, current
from .writing import How, tell, tell_dry_run, waiting_options, write_options

#: What both databases can hold.
_ANY_ID = click.IntRange(1, 2**63 - 1)
_ID = click.Argument(["job_id"], type=_ANY_ID, metavar="ID")
_REASON = click.Option(["--reason"], metavar="TEXT", help="Why, for the audit store.")


def _list(state: str | None, kind: str | None, resource: str | None, actor: str | None, before: int | None,
          limit: int) -> None:  # fmt: skip
    session = current()
    noun, name = resource_filter(resource)
    # --actor in front of the command says who asks; here it says whose jobs.
    found = session.client.jobs(
        state=state, kind=kind, noun=noun, name=name, actor=actor, before_id=before, limit=limit
    )
    columns = ("id", "kind", "resource", "state", "applied", "failed", "targets", "actor", "submitted", "reason")
    rows = [
        (j["id"], j["kind"], f"{j['noun']}/{j['name']}", j["state"], j["applied"], j["failed"], j["targets"],
         j["actor"], j["submitted_at"], j["reason"])
        for j in found
    ]  # fmt: skip
    emit(session, found, lambda: table(session, columns, rows, "no jobs"))


def _show(job_id: int) -> None:
    session = current()
    found = session.client.job(job_id)
    emit(session, found, lambda: _write(session, found))


def _write(session: Session, job: dict[str, Any]) -> None:
    took = (job["ended_at"] - job["submitted_at"]).total_seconds() if job["ended_at"] else None
    pairs({
        "job": job["id"], "kind": job["kind"], "resource": f"{job['noun']}/{job['name']}",
        "generation": job["generation"], "state": job["state"], "asked by": f"{job['actor']} ({job['source']})",
        "reason": job["reason"], "submitted": job["submitted_at"], "ended": job["ended_at"], "seconds": took,
        **({"part of": f"job {job['parent']}"} if job["parent"] else {}), **_brakes(job),
    })  # fmt: skip
    click.echo()
    columns = ("node", "stage", "state", "seconds", "node is", "reason")
    rows = [(t["node"], t["stage"], t["state"], t["seconds"], t["node_state"], t["reason"]) for t in job["nodes"]]
    table(session, columns, rows, "no node is concerned")
    if job["children"]:
        click.echo("\nwith it")
        below = [(c["id"], c["kind"], f"{c['noun']}/{c['name']}", c["state"], c["applied"], c["failed"], c["targets"],
                  c["why"]) for c in job["children"]]  # fmt: skip
        table(session, ("id", "kind", "resource", "state", "applied", "failed", "targets", "reason"), below)
    phases = list(dict.fromkeys(phase for target in job["nodes"] for phase in target["phases"]))
    if phases:
        click.echo("\nseconds of each phase")
        timed = [target for target in job["nodes"] if target["phases"]]
        table(session, ("node", *phases), [(t["node"], *(t["phases"].get(p) for p in phases)) for t in timed])
    changed = [(target["node"], target["difference"]) for target in job["nodes"] if target["difference"]]
    if changed:
        click.echo("\nchanged on the nodes")
        table(session, ("node", "difference"), changed)


def _brakes(job: dict[str, Any]) -> dict[str, Any]:
    """What keeps a job from going on, where something does."""
    found: dict[str, Any] = {}
    if job["state"] == states.Job.HELD:
        found["held"] = f"nothing is changed. do it: onehost job release {job['id']}"
    if job["grace_until_at"]:
        found["last stage"] = follow.grace(job["id"], job["grace_until_at"])
    if job["max_fail"] is not None:
        found["halts after"] = f"more than {job['max_fail']} failed"
    return found


def _wait(job_id: int, **values: Any) -> int:
    session, how = current(), How.taken(values)
    session.client.job(job_id)
    job = follow.follow(session, job_id, how.timeout, everyone=how.everyone)
    emit(session, job, lambda: click.echo(follow.summary(job)))
    return follow.exit_code(session, job)


def _retry(job_id: int | None, where: str | None, **values: Any) -> int:
    session, how = current(), How.taken(values)
    if where is not None:
        return many.many(session, "retry", where, _for_many(job_id, how))
    more = {name: value for name, value in how.said().items() if name != "if_generation"}
    return tell(session, session.client.retry(_one(job_id, how), **more), how)


def _cancel(job_id: int | None, where: str | None, **values: Any) -> int:
    session, how = current(), How.taken(values)
    if where is not None:
        return many.many(session, "cancel", where, _for_many(job_id, how))
    asked = _one(job_id, how)
    receipt = session.client.cancel(asked, **how.said())
    return tell(session, receipt, how, nodes=cancelling.undone(session.client.job(asked), receipt))


def _revert(job_id: int, **values: Any) -> int:
    session, how = current(), How.taken(values)
    if how.dry_run:
        found = session.client.job(job_id)
        wish = session.client.wish(found["noun"], found["name"], "revert", {"job": job_id}, **how.said())
        tell_dry_run(session, *session.client.dry_run(wish))
        return 0
    return tell(session, session.client.revert(job_id, **how.said()), how)


def _release(job_id: int | None, where: str | None, **values: Any) -> int:
    session, how = current(), How.taken(values)
    if where is not None:
        return many.many(session, "release", where, _for_many(job_id, how))
    return tell(session, session.client.release(_one(job_id, how), reason=how.reason), how)


def _one(job_id: int | None, how: How) -> int:
    if job_id is None:
        raise Mistake("give the ID of a job, or --where")
    if how.yes is not None or how.dry_run:
        raise Mistake("--yes and --dry-run belong to --where")
    return job_id


def _for_many(job_id: int | None, how: How) -> How:
    alone = [f"--{name.replace('_', '-')}" for name in how.said() if name != "reason"]
    if job_id is not None or alone or how.wait:
        raise Mistake(f"--where goes with neither ID, --wait nor {', '.join(alone) or '--batch'}")
    return how


def _where_options(example: str) -> list[click.Parameter]:
    """The options of a command that takes one job by its ID, or many by --where."""
    return [
        click.Option(["--where"], metavar="FILTER", help=f"Many jobs instead of one: {example}."),
        click.Option(["--yes"], metavar="COUNT", help="With --where: how many jobs it is, instead of being asked."),
        click.Option(["--dry-run"], is_flag=True, help="With --where: say how many jobs it is, and change nothing."),
    ]


_STATES = [state.value for state in states.Job]
_LIST_OPTIONS: list[click.Parameter] = [
    click.Option(["--state"], type=click.Choice(_STATES), help="Only jobs in this state."),
    click.Option(["--kind"], metavar="KIND", help="Only this kind, such as account.create or account.*"),
    click.Option(["--resource"], metavar="NOUN/NAME", help="Only jobs of this resource, or of this noun."),
    click.Option(["--actor", "actor"], metavar="WHO", help="Only jobs this actor asked for."),
    click.Option(["--before"], type=_ANY_ID, metavar="ID", help="Only jobs before this one: the next page."),
    click.Option(["--limit"], type=click.IntRange(1, 10000), default=50, show_default=True, help="How many at most."),
]  # fmt: skip

job = Group("job", help="What became of wishes, node by node.", example="job show 12", no_args_is_help=True)
job.add_command(Command("list", callback=_list, params=_LIST_OPTIONS, help="Jobs, newest first.",
                        example="job list --state failed --kind account.*"))  # fmt: skip
job.add_command(Command("show", callback=_show, params=[_ID], example="job show 12",
                        help="A job with each of its nodes: stage, state, seconds, reason, phases."))  # fmt: skip
job.add_command(Command("wait", callback=_wait, params=[_ID, *waiting_options()[1:]], example="job wait 12 --timeout 9",
                        help="Wait until every live node is done with a job."))  # fmt: skip
_SOME_ID = click.Argument(["job_id"], type=_ANY_ID, metavar="[ID]", required=False)
job.add_command(Command("retry", callback=_retry, example="job retry 12",
                        params=[_SOME_ID, *_where_options("state=failed,kind=account.*,node=web2,since=2h"),
                                *write_options(dry_run=False, generation=False)],
                        help="Try the same again, as a new job; with --where, what has ended badly."))  # fmt: skip
job.add_command(Command("cancel", callback=_cancel, example="job cancel 12 --reason 'wrong domain'",
                        params=[_SOME_ID, *_where_options("actor=panel:shop,kind=account.delete,since=10m"),
                                *write_options(dry_run=False, generation=False, key=False)],
                        help="End a running or held job; what was wanted before it is wanted again."))  # fmt: skip
job.add_command(Command("revert", callback=_revert, example="job revert 12 --reason 'wrong account'",
                        params=[_ID, *write_options(generation=False)],
                        help="Want again what was wanted before a job; secrets stay as they are."))  # fmt: skip
job.add_command(Command("release", callback=_release, example="job release 12 --reason 'they have left'",
                        params=[_SOME_ID, *_where_options("actor=panel:shop,kind=account.delete"), _REASON,
                                *waiting_options()],
                        help="Begin a held job: a removal or suspension beyond the limit per hour."))  # fmt: skip
