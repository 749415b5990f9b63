"""`node check`: where nodes differ from their ledgers; put back, or taken over as wanted, only when asked to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click

from ...models import names
from . import follow
from .failures import Mistake
from .groups import Command
from .output import cell, emit
from .session import Session, current
from .writing import How, waiting_options

#: Exit code of a node that could not be asked: as for a broker out of reach.
UNREACHABLE = 7


def _check(name: str | None, everyone: bool, **values: Any) -> int:
    session, repair, adopt = current(), values.pop("repair"), values.pop("adopt")
    dry_run, reason = values.pop("dry_run"), values.pop("reason")
    if (name is None) != everyone:
        raise Mistake("name a node, or all with --all", hint="onehost node check web1")
    if repair and adopt:
        raise Mistake("--repair and --adopt are opposites; one of them at a time")
    nodes = [names.node(name)] if name else []
    if adopt:
        return _adopt(session, session.client.check(nodes, adopt=True), dry_run, reason)
    found = session.client.check(nodes)
    if not repair or dry_run:
        emit(session, found, lambda: _write(found))
        return _code(found)
    return _repair(session, found, How(reason=reason, **values))


def _code(found: Mapping[str, Any]) -> int:
    """1 if something differs, else 7 if a node could not be asked."""
    if any(each.get("told", {}).get("count") for each in found.values()):
        return 1
    return UNREACHABLE if any(each["reason"] for each in found.values()) else 0


def _write(found: Mapping[str, Any]) -> None:
    for node, answer in found.items():
        if answer["reason"]:
            click.echo(f"{node}: {cell(answer['reason'])}")
            continue
        count = answer["told"]["count"]
        click.echo(f"{node}: {count} difference{'' if count == 1 else 's'}" if count else f"{node}: equal")
        for each in answer["told"]["findings"]:
            about = each["path"] or each["resource"] or f"daemon {each['daemon']}"
            whose = f" ({each['resource']})" if each["resource"] and each["path"] else ""
            click.echo(f"  {cell(about)}: {cell(each['what'])}{whose}")
            for line in each["diff"].splitlines():
                click.echo("      " + "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line))


def _repair(session: Session, found: Mapping[str, Any], how: How) -> int:
    """An action on each node that differs; the first failure is the exit code."""
    if how.wait is None:
        how = replace(how, wait=True)
    silent = {node: answer["reason"] for node, answer in found.items() if answer["reason"]}
    for node, why in silent.items():
        click.echo(f"{node}: {cell(why)}", err=True)
    differ = [node for node, answer in found.items() if answer.get("told", {}).get("count")]
    jobs = {node: session.client.do("node", node, "repair", **how.said()).job_id for node in differ}
    done = {node: _waited(session, job_id, how) for node, job_id in jobs.items() if job_id is not None}
    emit(session, {"jobs": done, "nodes": found}, lambda: _write_repaired(found, done))
    codes = [follow.exit_code(session, job) for job in done.values() if job["ended_at"] is not None]
    return next((code for code in codes if code), UNREACHABLE if silent else 0)


def _waited(session: Session, job_id: int, how: How) -> dict[str, Any]:
    return follow.follow(session, job_id, how.timeout) if how.waits() else session.client.job(job_id)


def _write_repaired(found: Mapping[str, Any], done: Mapping[str, Any]) -> None:
    for node, answer in found.items():
        if node not in done:
            click.echo(f"{node}: {'not asked' if answer['reason'] else 'equal'}")
            continue
        click.echo(f"{node}: {follow.summary(done[node])}")
        for each in done[node]["nodes"]:
            for about, words in (each["difference"] or {}).items():
                click.echo(f"  {cell(about)}: {cell(words)}")


def _adopt(session: Session, found: Mapping[str, Any], dry_run: bool, reason: str | None) -> int:
    """Makes wanted what another hand did, where the noun can say it. Exit code 1 if something of it it cannot."""
    done: list[dict[str, Any]] = []
    for node, answer in found.items():
        for each in answer.get("told", {}).get("adoptable", ()):
            done.append({"node": node, **each, "job": None})
            if each["fields"]:
                wish = session.client.wish(each["noun"], each["name"], "set", each["fields"],
                                           reason=reason or f"adopted from {node}")  # fmt: skip
                if not dry_run:
                    done[-1]["job"] = session.client.submit([wish])[0].job_id
    emit(session, {"adopted": done, "nodes": found}, lambda: _write_adopted(found, done, dry_run))
    if any(answer["reason"] for answer in found.values()):
        return UNREACHABLE
    return 1 if any(each["why_not"] for each in done) else 0


def _write_adopted(found: Mapping[str, Any], done: list[dict[str, Any]], dry_run: bool) -> None:
    for node, answer in found.items():
        if answer["reason"]:
            click.echo(f"{node}: {cell(answer['reason'])}")
    for each in done:
        about = f"{each['noun']} {each['name']}".strip() or "files of onehost's own"
        if each["fields"]:
            fields = ", ".join(f"{key}: {cell(value)}" for key, value in each["fields"].items())
            job = "would be" if dry_run else f"job {each['job']}" if each["job"] else "unchanged"
            click.echo(f"{each['node']}: {about}: {fields} ({job})")
        if each["why_not"]:
            click.echo(f"{each['node']}: {about}: not adopted: {cell(each['why_not'])}")
            for words in each["differs"]:
                click.echo(f"    {cell(words)}")
    if not done:
        click.echo("nothing differs")


def _command() -> Command:
    params: list[click.Parameter] = [
        click.Argument(["name"], required=False),
        click.Option(["--all", "everyone"], is_flag=True, help="Every node."),
        click.Option(
            ["--repair"], is_flag=True, help="Put back what differs; what is overwritten is kept on the node."
        ),
        click.Option(["--adopt"], is_flag=True, help="Make wanted what another hand did, where a noun can say it."),
        click.Option(["--dry-run"], is_flag=True, help="Say what would change, and change nothing."),
        click.Option(["--reason"], metavar="TEXT", help="Why, for the audit store."),
        *(each for each in waiting_options() if each.name != "everyone"),
    ]
    text = (
        "Compare files, users and daemons of a node with its ledger. Changes nothing unless told to. Exit code: "
        "0 equal, 1 something differs, 7 a node does not answer."
    )
    return Command("check", callback=_check, params=params, help=text, example="node check web1 --repair")


check = _command()
