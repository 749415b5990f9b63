"""What nodes hold and no placement lists: known by id from hello, by name once the node has said it.

Never removed without a person: the store may have been restored, and the node may be right. What is known is kept in
`node_status.orphans` and counted into what a node is expected to show, so that it does not look different for ever.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from ..models import nouns, states
from ..models.canonical import canonical, digest
from ..models.digest import Digest, bucket
from ..models.errors import NotFound, Refused
from ..models.store import NodeStatus, Placement, Resource, Revision, digests
from . import numbers, stages
from .events import Happened, record
from .opening import Change, open_job
from .wish import Receipt, Wish

#: Orphans of one node that are kept: it says what it likes.
KEPT_AT_MOST = 20_000
#: Ids named in one event.
NAMED_IN_EVENT = 200


def expected(connection: Connection, node_id: int) -> Digest:
    """The digest that a node shows if it holds what the store wants there, and the orphans that are known."""
    found = digests.read(connection, node_id)
    for each in _kept(connection, node_id).values():
        found.add(each["id"], each["wanted"], each["outcome"])
    return found


def unnamed(connection: Connection, node_id: int) -> set[int]:
    """Buckets in which the node holds orphans whose names it has not said."""
    return {bucket(each["id"]) for each in _kept(connection, node_id).values() if "noun" not in each}


def note(connection: Connection, node_id: int, node: str, buckets: Collection[int],
         unlisted: Mapping[int, tuple[int, int]], now: datetime) -> None:  # fmt: skip
    """In these buckets a node holds these ids beyond its placements, each with (wanted, outcome). Names are kept."""
    before = _kept(connection, node_id)
    after = {each: row for each, row in before.items() if bucket(each) not in buckets}
    for each, (wanted, outcome) in sorted(unlisted.items()):
        after[each] = before.get(each, {}) | {"id": each, "wanted": wanted, "outcome": outcome}
    _keep(connection, node_id, after)
    new = sorted(unlisted.keys() - before.keys())
    strange = sorted(set(new) - _known(connection, new))
    if strange:
        detail = {"ids": strange[:NAMED_IN_EVENT], "count": len(strange)}
        record(
            connection, [Happened("node.orphans", "onehost", now, "node", node, node_id, node, node_id, detail=detail)]
        )


def name(connection: Connection, node_id: int, named: Iterable[Mapping[str, Any]]) -> None:
    """A node has said what its orphans are called."""
    kept = _kept(connection, node_id)
    for each in named:
        if each["id"] in kept:
            kept[each["id"]] |= {key: each[key] for key in ("noun", "name", "absent")}
    _keep(connection, node_id, kept)


def listed(connection: Connection) -> list[dict[str, Any]]:
    """Every orphan with its node. What is removed there, or stands in the store as removed, is none."""
    rows = connection.execute(
        select(Resource.name, NodeStatus.orphans, NodeStatus.node_id)
        .join(NodeStatus, NodeStatus.node_id == Resource.id)
        .where(NodeStatus.orphans.is_not(None))
        .order_by(Resource.name)
    ).all()
    found = [
        {"node": row.name, "node_id": row.node_id, "noun": None, "name": None} | each
        for row in rows
        for each in json.loads(row.orphans)
        if not each.get("absent")
    ]
    known = _known(connection, [each["id"] for each in found])
    return [each for each in found if each["id"] not in known]


def remove(connection: Connection, orphan_id: int, actor: str, source: str, reason: str | None,
           now: datetime) -> Receipt:  # fmt: skip
    """A person wants an orphan removed from each node that holds it: a job like any removal.

    Raises NotFound, or Refused if nobody said its name.
    """
    noun, its_name, generation = _adopt(connection, orphan_id, now)
    wish = Wish(noun.name, its_name, "remove", {}, actor, source, reason)
    change = Change(noun, its_name, orphan_id, generation, None, None)
    opened = open_job(connection, change, wish, digest(canonical(["orphan", orphan_id])), now)
    detail = {"orphan": True, "generation": generation, "reason": reason, "source": source}
    record(connection, [Happened(f"{noun.name}.remove", actor, now, noun.name, its_name, orphan_id,
                                 job_id=opened.job_id, outcome="submitted", detail=detail)])  # fmt: skip
    stages.advance(connection, [opened.job_id], now)
    return Receipt(noun.name, its_name, orphan_id, generation, opened.job_id, opened.targets, {"resource": "removed"})


def _adopt(connection: Connection, orphan_id: int, now: datetime) -> tuple[nouns.Noun, str, int]:
    """Takes an orphan into the store as absent; gives its noun, name and the generation of its removal."""
    holders = [each for each in listed(connection) if each["id"] == orphan_id]
    if not holders:
        raise NotFound(f"no node holds an orphan {orphan_id}", hint="onehost node orphans")
    first = next((each for each in holders if each["noun"]), None)
    if first is None or first["noun"] not in nouns.nouns():
        raise Refused(f"orphan {orphan_id}: its node has not said what it is", hint="onehost node orphans")
    if orphan_id > numbers.last_id(connection):
        raise Refused(f"orphan {orphan_id}: this number was never given out", hint=f"look at node {first['node']}")
    noun = nouns.noun(first["noun"])
    its_name = noun.check_name(first["name"])
    last = max(each["wanted"] for each in holders)
    generation = numbers.next_generation(connection, last)
    connection.execute(
        insert(Resource).values(id=orphan_id, noun=noun.name, name=its_name, generation=generation, absent=True,
                                replaces=0, created_at=now, changed_at=now)
    )  # fmt: skip
    connection.execute(
        insert(Revision).values(
            resource_id=orphan_id, generation=generation, payload=None, secrets=None, created_at=now
        )
    )
    _place(connection, orphan_id, holders)
    return noun, its_name, generation


def _place(connection: Connection, orphan_id: int, holders: Sequence[Mapping[str, Any]]) -> None:
    """As the nodes hold it; no longer an orphan there."""
    outcome = int(states.Outcome.APPLIED)
    for each in holders:
        wanted = each["wanted"]
        connection.execute(
            insert(Placement).values(resource_id=orphan_id, node_id=each["node_id"], wanted=wanted, sent=wanted,
                                     done=wanted, applied=wanted, outcome=outcome)
        )  # fmt: skip
        digests.changed(connection, [(each["node_id"], orphan_id, None, digests.shown(wanted, wanted, outcome))])
        kept = _kept(connection, each["node_id"])
        del kept[orphan_id]
        _keep(connection, each["node_id"], kept)


def _known(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Those that the store knows, present or removed: the node is behind, or holds a tombstone."""
    found: set[int] = set()
    for at in range(0, len(ids), 1000):
        found |= set(connection.execute(select(Resource.id).where(Resource.id.in_(ids[at : at + 1000]))).scalars())
    return found


def _kept(connection: Connection, node_id: int) -> dict[int, dict[str, Any]]:
    kept = connection.execute(select(NodeStatus.orphans).where(NodeStatus.node_id == node_id)).scalar()
    return {each["id"]: each for each in json.loads(kept)} if kept else {}


def _keep(connection: Connection, node_id: int, kept: Mapping[int, Mapping[str, Any]]) -> None:
    rows = [kept[each] for each in sorted(kept)[:KEPT_AT_MOST]]
    connection.execute(
        update(NodeStatus).where(NodeStatus.node_id == node_id).values(orphans=canonical(rows) if rows else None)
    )
