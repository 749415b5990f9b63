"""What accounts use of their limits: what each holds and sends as nodes have told it, the rest as counted here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, delete, exists, select

from ..models import nouns, wire
from ..models.moment import now
from ..models.nouns.plan import LIMITS, RIGHTS, effective
from ..models.store import Placement, Resource, Revision, together
from ..models.store import Usage as Stored
from .membership import Node
from .taken import taken
from .traffic import sent

MIB = 1 << 20
#: Limits of which nothing is counted yet, as nothing of that kind is built.
UNCOUNTED = frozenset({"mailboxes", "zones", "mail_per_hour", "php_processes", "memory_mib"})


def store(connection: Connection, letters: Sequence[tuple[Node, wire.Letter]], at: datetime) -> None:
    """Takes in what nodes have measured: of accounts that stand there, from a node that keeps files."""
    told = {owner: (node.id, size) for node, letter in letters if "storage" in node.roles
            for owner, size in letter["stored"]}  # fmt: skip
    if not told:
        return
    gone = exists().where(Resource.id == Stored.resource_id, Resource.absent.is_(True))
    connection.execute(delete(Stored).where(gone))
    dialect = connection.dialect.name
    placed = select(Placement.resource_id, Placement.node_id).where(together.among(dialect, Placement.resource_id))
    here = {(row.resource_id, row.node_id) for row in connection.execute(placed, together.listed(dialect, told))}
    accounts = select(Resource.id).where(Resource.noun == "account", together.among(dialect, Resource.id))
    ids = set(connection.execute(accounts, together.listed(dialect, told)).scalars())
    known = select(Stored.resource_id).where(together.among(dialect, Stored.resource_id))
    old = set(connection.execute(known, together.listed(dialect, told)).scalars())
    rows = [
        {"resource_id": owner, "node_id": node_id, "storage_bytes": size, "measured_at": at}
        for owner, (node_id, size) in sorted(told.items())
        if owner in ids and (owner, node_id) in here
    ]
    together.change(connection, Stored, [row for row in rows if row["resource_id"] in old], ("resource_id",))
    together.add(connection, Stored, [row for row in rows if row["resource_id"] not in old])


def usage(connection: Connection, *, name: str | None = None, plan: str | None = None) -> list[dict[str, Any]]:
    """Every limit of each account, of the one of that name, or of those that have this plan."""
    plans = dict(_living(connection, "plan"))
    accounts = {row.id: (row.name, json.loads(row.payload), row) for row in _accounts(connection, name)}
    if plan is not None:
        accounts = {owner: found for owner, found in accounts.items() if found[1].get("plan") == plan}
    counts, traffic = taken(connection, accounts), sent(connection, now())
    return [
        {"account": each, "plan": spec.get("plan"), "storage_bytes": row.storage_bytes, "measured_at": row.measured_at,
         "bytes_out": traffic.get(owner),
         "limits": _limits(spec, plans.get(spec.get("plan"), {}), counts[owner], row.storage_bytes, traffic.get(owner))}
        for owner, (each, spec, row) in accounts.items()
    ]  # fmt: skip


def over(one: Mapping[str, Any]) -> list[str]:
    """The limits that an account is over."""
    return [limit for limit, found in one["limits"].items() if found["over"]]


def _limits(spec: nouns.Spec, plan: nouns.Spec, count: Mapping[str, int],
            storage_bytes: int | None, bytes_out: int | None) -> dict[str, dict[str, Any]]:  # fmt: skip
    own = spec.get("limits") or {}
    most = effective(plan, own)
    used: dict[str, Any] = {limit: count.get(limit, 0) for limit in LIMITS if limit not in UNCOUNTED | RIGHTS}
    used["ssh_keys"] += len(spec["ssh_keys"])
    used |= {"storage_mib": _mib(storage_bytes), "bandwidth_mib": _mib(bytes_out)}
    used |= {"shell": spec["access"] == "shell", "cron": count.get("crons", 0) > 0}
    return {limit: {"used": used.get(limit), "limit": most[limit], "whose": _whose(limit, own, plan),
                    "over": _is_over(used.get(limit), most[limit])} for limit in LIMITS}  # fmt: skip


def _mib(size: int | None) -> int | None:
    return None if size is None else -(-size // MIB)


def _whose(limit: str, own: Mapping[str, Any], plan: Mapping[str, Any]) -> str | None:
    """Whose limit it is: the account's own, the plan's; None: there is none."""
    if limit in own:
        return "own"
    return None if plan.get(limit) is None or plan[limit] is True else "plan"


def _is_over(used: Any, most: Any) -> bool:
    return used is not None and most is not None and used > most


def _accounts(connection: Connection, name: str | None) -> Sequence[Any]:
    found = (
        select(Resource.id, Resource.name, Revision.payload, Stored.storage_bytes, Stored.measured_at)
        .join(Revision, and_(Revision.resource_id == Resource.id, Revision.generation == Resource.generation))
        .outerjoin(Stored, Stored.resource_id == Resource.id)
        .where(Resource.noun == "account", Resource.absent.is_(False))
        .order_by(Resource.name)
    )
    return connection.execute(found if name is None else found.where(Resource.name == name)).all()


def _living(connection: Connection, noun: str) -> list[tuple[str, nouns.Spec]]:
    rows = connection.execute(
        select(Resource.name, Revision.payload)
        .join(Revision, and_(Revision.resource_id == Resource.id, Revision.generation == Resource.generation))
        .where(Resource.noun == noun, Resource.absent.is_(False))
    )
    return [(row.name, json.loads(row.payload)) for row in rows]
