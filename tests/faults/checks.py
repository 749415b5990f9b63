"""What must be true after every fault, whatever it was. Each check is named by the promise it is about."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import and_, func, or_, select
from sqlalchemy.exc import SQLAlchemyError

from onehost.models import states
from onehost.models.digest import Digest
from onehost.models.errors import OnehostError
from onehost.models.store import Action, Event, Hello, Job, NodeStatus, Placement, Resource, Target, digests, reading
from onehost.producer import EventFilter, seal
from onehost.producer.membership import nodes
from onehost.workers.entry import Entry
from onehost.workers.host import Host
from onehost.workers.host.book import parse
from onehost.workers.reconcilers import reconcilers
from onehost.workers.rows import as_entry

from .cluster import NODES, Cluster
from .model import Model
from .stream import GHOST, revisions
from .watch import Watch

#: What is lawful to take until everything is as wanted, after the last fault has ended, in seconds.
QUIET_SECONDS = 60.0


class Run:
    """Everything that a check may look at."""

    def __init__(self, cluster: Cluster, model: Model, calls: Sequence[Any], watch: Watch) -> None:
        self.cluster, self.model, self.calls, self.watch = cluster, model, calls, watch
        self.onehost = cluster.onehost

    def rows(self, statement: Any) -> Sequence[Any]:
        with reading(self.onehost.engine) as connection:
            return connection.execute(statement).all()


def wait_for_quiet(cluster: Cluster, seconds: float = QUIET_SECONDS) -> None:
    """Waits until nothing is under way anywhere. Fails naming what still is."""
    until = time.monotonic() + seconds
    while left := _unrest(cluster):
        assert time.monotonic() < until, f"P1/P6: not quiet after {seconds:g} s: {left}"
        time.sleep(0.1)


def _unrest(cluster: Cluster) -> str:
    try:
        with reading(cluster.onehost.engine) as connection:
            behind = or_(Placement.sent < Placement.wanted, Placement.done < Placement.wanted)
            if rows := connection.execute(select(Placement).where(behind).limit(3)).mappings().all():
                return f"placements {[dict(row) for row in rows]}"
            if jobs := connection.execute(select(Job.id, Job.kind, Job.state).where(Job.ended_at.is_(None))).all():
                return f"jobs {jobs[:3]}"
            for table in (Action, Hello):
                if connection.execute(select(func.count()).select_from(table)).scalar():
                    return f"letters in {table.__tablename__}"
            if lag := seal.unsealed(connection):
                return f"{lag} events are not sealed"
            # A lost one shows by a later one that has come; the node is asked for it when two beats have told so.
            is_above = and_(Event.node_id == NodeStatus.node_id, Event.epoch == NodeStatus.epoch,
                            Event.number > NodeStatus.acked)  # fmt: skip
            gap = select(NodeStatus.node_id, NodeStatus.acked).join(Event, is_above).distinct()
            if rows := connection.execute(gap).all():
                return f"acknowledgements are missing above {[tuple(row) for row in rows]}"
            silent = select(NodeStatus.node_id, NodeStatus.state).where(NodeStatus.state != states.NodeState.ONLINE)
            if rows := connection.execute(silent).all():
                return f"nodes {rows}"
    except (OnehostError, SQLAlchemyError) as error:
        return str(error)
    for node in NODES:
        if rows := cluster.read_ledger(node, "SELECT id, wanted, done, reason FROM entry WHERE done < wanted"):
            return f"{node} has open entries {[tuple(row) for row in rows[:3]]}"
        if rows := cluster.read_ledger(node, "SELECT number FROM ack WHERE published = 0"):
            return f"{node} has {len(rows)} unpublished acknowledgements"
    return _disagreement(cluster)


def _disagreement(cluster: Cluster) -> str:
    """Which node's ledger is not what the store expects there, by their digests."""
    with reading(cluster.onehost.engine) as connection:
        for node in nodes(connection).values():
            theirs = Digest()
            for row in cluster.read_ledger(node.name, "SELECT id, wanted, done, outcome FROM entry"):
                theirs.add(row["id"], row["wanted"], row["outcome"] if row["done"] == row["wanted"] else 0)
            mine = Digest()
            for row in connection.execute(select(Placement).where(Placement.node_id == node.id, Placement.wanted > 0)):
                mine.add(row.resource_id, row.wanted, row.outcome if row.done == row.wanted else 0)
            if mine.text() != theirs.text():
                return f"{node.name} and the store disagree"
            if digests.read(connection, node.id).text() != mine.text():
                return f"the digest kept for {node.name} is not that of its placements"
    return ""


def p1_every_ok_wish_is_a_revision(run: Run) -> None:
    known = revisions(run.onehost)
    missing = [call for call in run.calls if call.outcome == "ok" and (call.resource_id, call.generation) not in known]
    assert not missing, f"P1: lost: {missing[:3]}"


def p1_the_store_wants_what_was_asked(run: Run) -> None:
    wanted = {row["name"]: row for row in run.onehost.list("account")}
    assert sorted(wanted) == sorted(run.model.names()), "P1: other accounts than were asked for"
    for name, row in wanted.items():
        life = run.model.living(name)
        assert life and life.spec and (row["id"], row["generation"]) == (life.id, life.generation), f"P4: {name}: {row}"
        plain = {key: value for key, value in life.spec.items() if key != "password_hash"}
        found = {key: row["spec"][key] for key in plain}
        assert found == plain, f"P1: {name} is wanted as {found}, was asked for as {plain}"


def p1_every_node_holds_what_is_wanted(run: Run) -> None:
    """Read in words of its own: the users, their passwords and their sites."""
    for node in (node for node, roles in NODES.items() if "web" in roles):
        machine = run.cluster.machine(node)
        texts = [_text(machine / "var/lib/extrausers" / name) for name in ("passwd", "shadow", "group")]
        users = parse(*texts).users
        assert sorted(users) == sorted(run.model.names()), f"P1: {node} has other users"
        sites = {path.name for path in (machine / "etc/onehost/apache/live").glob("*.*.conf")}
        for name in run.model.names():
            life = run.model.living(name)
            assert life and life.spec
            password = life.spec["password_hash"] or "*"
            assert (users[name].owner, users[name].password) == (life.id, password), f"P1: {name} on {node}"
            assert users[name].locked == life.spec["suspended"], f"P1: {name} on {node}: suspended?"
        expected = {f"{name}.{life.id}.conf" for name in run.model.names()
                    if (life := run.model.living(name)) and life.spec and life.spec["domain"]}  # fmt: skip
        assert sites == expected, f"P1: {node} has other sites"


def p1_all_serving_nodes_are_alike(run: Run) -> None:
    trees = {node: tree(run.cluster, node) for node, roles in NODES.items() if "web" in roles}
    first = next(iter(trees.values()))
    for node, its in trees.items():
        assert its == first, f"P1: {node} differs in {sorted(set(its.items()) ^ set(first.items()))[:4]}"


def tree(cluster: Cluster, node: str) -> dict[str, bytes]:
    """Every file that daemons of a node read, by path."""
    machine = cluster.machine(node)
    found = {}
    for pattern in ("etc/onehost/*/live/*.*.*", "var/lib/extrausers/*", "etc/onehost/keys/*"):
        for path in machine.glob(pattern):
            if path.is_file():
                found[str(path.relative_to(machine))] = path.read_bytes()
    return found


def p2_what_was_not_committed_is_nowhere(run: Run) -> None:
    assert not run.rows(select(Resource).where(Resource.name == GHOST)), "P2: in the store"
    assert not [*run.onehost.events(EventFilter(name=GHOST))], "P2: in the audit store"
    for node in NODES:
        assert not run.cluster.read_ledger(node, f"SELECT id FROM entry WHERE name = '{GHOST}'"), f"P2: on {node}"


def p3_each_generation_had_one_effect(run: Run) -> None:
    effects: dict[tuple[int, int, int, int], int] = defaultdict(int)
    for event in run.onehost.events(EventFilter(kind="acknowledgement", outcome="applied"), None):
        if "generation" in event["detail"] and event["detail"]["difference"]:
            # A machine that was wiped is made anew: there each life of the worker counts by itself.
            life = event["epoch"] if event["node"] in run.cluster.wiped else 0
            effects[event["node_id"], event["resource_id"], event["detail"]["generation"], life] += 1
    twice = [key for key, count in effects.items() if count > 1]
    assert not twice, f"P3: done more than once (node, resource, generation, life): {twice[:5]}"


def p3_a_second_pass_finds_nothing(run: Run) -> None:
    known = reconcilers()
    for node in NODES:
        host = Host.rehearsal(run.cluster.machine(node))
        entries = [as_entry(row) for row in run.cluster.read_ledger(node, "SELECT * FROM entry ORDER BY id")]
        view = _View(entries)
        newest = {(entry.noun, entry.name): entry.id for entry in entries}
        for entry in entries:
            if entry.id != newest[entry.noun, entry.name]:
                continue  # replaced by the id that was given to the name later
            difference = known[entry.noun].compare(entry, host, view)
            assert not difference, f"P3: {node}: {entry.noun} {entry.name} {entry.id}: {difference}"


class _View:
    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries

    def all(self, noun: str) -> list[Entry]:
        return [entry for entry in self._entries if entry.noun == noun and entry.spec is not None]


def p4_p9_nothing_fell_and_no_file_was_seen_half_written(run: Run) -> None:
    assert run.watch.samples, "nothing was looked at"
    assert not run.watch.faults, "\n".join(run.watch.faults[:5])


def p5_sent_is_wanted_is_done(run: Run) -> None:
    odd = [row for row in run.rows(select(Placement)) if not row.wanted == row.sent == row.done]
    assert not odd, f"P5: {odd[:3]}"


def p6_every_job_ended_with_a_reason(run: Run) -> None:
    assert not run.rows(select(Job.id).where(or_(Job.ended_at.is_(None), Job.state == "running"))), "P6: jobs go on"
    mute = run.rows(select(Target.job_id, Target.node_id, Target.outcome)
                    .where(Target.outcome.not_in(("applied",)), Target.reason.is_(None)))  # fmt: skip
    assert not mute, f"P6: ended without a reason: {mute[:3]}"
    open_ones = run.rows(select(Target.job_id, Target.node_id).where(Target.outcome.is_(None)))
    assert not open_ones, f"P6: targets are open in jobs that ended: {open_ones[:3]}"


def p11_the_chain_holds(run: Run) -> None:
    verdict = run.onehost.verify()
    assert not verdict.problem, f"P11: {verdict.problem}"
    assert verdict.unsealed == 0 and verdict.events == verdict.position, f"P11: {verdict}"


def p11_acknowledgements_have_no_gap(run: Run) -> None:
    numbers: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row in run.rows(select(Event.node_id, Event.epoch, Event.number).where(Event.number.is_not(None))):
        numbers[row.node_id, row.epoch].append(row.number)
    # After a restore the store says which numbers it had heard in its life before.
    lost: dict[int, set[int]] = defaultdict(set)
    for event in run.onehost.events(EventFilter(kind="node.report"), None):
        if "lost" in event["detail"]:
            first, last = event["detail"]["lost"]
            lost[event["node_id"]].update(range(first, last + 1))
    for (node, epoch), its in numbers.items():
        assert len(its) == len(set(its)), f"P11: node {node}, epoch {epoch}: a number twice: {sorted(its)}"
        gap = set(range(1, max(its) + 1)) - set(its) - lost[node]
        assert not gap, f"P11: node {node}, epoch {epoch}: {sorted(gap)} are missing"
    ids = {node.name: node.id for node in _nodes(run)}
    for node in NODES:
        for row in run.cluster.read_ledger(node, "SELECT epoch, number FROM ack"):
            assert row["number"] in numbers[ids[node], row["epoch"]], f"P11: {node} holds {tuple(row)}, unknown here"


def p12_digests_agree(run: Run) -> None:
    problem = _disagreement(run.cluster)
    assert not problem, f"P12: {problem}"


def _nodes(run: Run) -> list[Any]:
    with reading(run.onehost.engine) as connection:
        return list(nodes(connection).values())


def _text(path: Any) -> str:
    return path.read_text() if path.exists() else ""


CHECKS: tuple[Callable[[Run], None], ...] = (
    p1_every_ok_wish_is_a_revision,
    p1_the_store_wants_what_was_asked,
    p1_every_node_holds_what_is_wanted,
    p1_all_serving_nodes_are_alike,
    p2_what_was_not_committed_is_nowhere,
    p3_each_generation_had_one_effect,
    p3_a_second_pass_finds_nothing,
    p4_p9_nothing_fell_and_no_file_was_seen_half_written,
    p5_sent_is_wanted_is_done,
    p6_every_job_ended_with_a_reason,
    p11_the_chain_holds,
    p11_acknowledgements_have_no_gap,
    p12_digests_agree,
)
