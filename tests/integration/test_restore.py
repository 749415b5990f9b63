"""A store is put back that is older than what nodes hold: nothing is lost in silence, nothing is given out twice."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import select

from onehost import migrations
from onehost.models import wire
from onehost.models.errors import Conflict, Invalid, NotFound, Refused
from onehost.models.moment import now
from onehost.models.store import NodeStatus, Placement, bells, connect, reading, writing
from onehost.models.store.sole import sole
from onehost.producer import EventFilter, archive, backup, numbers, restore, resync, seal

from .conftest import Cluster
from .conftest import wait_until as wait_until_seconds
from .manager import Store

HASH = "$6$" + "a" * 16 + "$" + "b" * 86
OTHER_HASH = "$6$" + "c" * 16 + "$" + "d" * 86
WEB = ("web1", "web2", "web3")


def wait_until(true: Callable[[], Any]) -> None:
    """As long as several hellos take: some things are only compared each half minute."""
    wait_until_seconds(true, 90)


def stop_manager(cluster: Cluster) -> None:
    for process in cluster.processes.values():
        process.stop_event.set()
    with writing(cluster.onehost.engine) as connection:
        bells.ring(connection, bells.RELAY)
    for process in cluster.processes.values():
        process.stop()
    cluster.processes.clear()


def unreported(cluster: Cluster) -> list[str]:
    with reading(cluster.onehost.engine) as connection:
        return numbers.unreported(connection)


def is_settled(cluster: Cluster, *nodes: str) -> bool:
    """Everything that is wanted is applied, on these nodes (none: on all)."""
    with reading(cluster.onehost.engine) as connection:
        late = select(Placement.node_id).where(Placement.applied < Placement.wanted)
        if nodes:
            late = late.where(Placement.node_id.in_(_node_ids(cluster, *nodes)))
        return connection.execute(late.limit(1)).first() is None


def held(cluster: Cluster, node: str) -> dict[str, tuple[int, Any]]:
    return cluster.recorders[node]["account"].state


def uids(cluster: Cluster) -> dict[str, int]:
    return {each["name"]: each["spec"]["uid"] for each in cluster.onehost.list("account")}


def make(cluster: Cluster, *names: str) -> None:
    for name in names:
        job = cluster.onehost.account_create(name, password_hash=HASH)
    cluster.onehost.wait(job)


def change_much(cluster: Cluster) -> None:
    """Thirty changes of all kinds."""
    onehost = cluster.onehost
    make(cluster, *(f"new{number}" for number in range(8)))
    for number in range(4):
        onehost.account_delete(f"old{number}")
    for number in range(4, 8):
        onehost.account_suspend(f"old{number}")
        onehost.account_set(f"old{number}", access="shell")
    for number in range(8, 12):
        onehost.do("account", f"old{number}", "passwd", {"password_hash": OTHER_HASH})
    for number in range(4):
        onehost.account_set(f"new{number}", domain=f"new{number}.example")
    onehost.account_delete("new7")
    make(cluster, "late")
    wait_until(lambda: is_settled(cluster, "store1", "web1", "web2"))


@pytest.fixture
def restored(cluster: Cluster, tmp_path: Path) -> tuple[Cluster, archive.Manifest, dict[str, int]]:
    """A backup, thirty changes of which web3 has heard nothing, and the backup put back; nothing runs but workers."""
    make(cluster, *(f"old{number}" for number in range(12)))
    wait_until(lambda: is_settled(cluster))
    made = backup.backup(cluster.onehost.engine, tmp_path / "b.backup")
    cluster.stop_worker("web3")
    change_much(cluster)
    given = uids(cluster)
    stop_manager(cluster)
    restore.restore(cluster.settings.store, tmp_path / "b.backup", "operator")
    return cluster, made, given


def test_yesterdays_store(restored: tuple[Cluster, archive.Manifest, dict[str, int]]) -> None:
    cluster, manifest, given = restored
    onehost = cluster.onehost
    assert unreported(cluster) == ["store1", *WEB]
    with pytest.raises(Refused, match="waiting for store1, web1, web2, web3"):
        onehost.account_create("early")
    cluster.start_manager()
    wait_until(lambda: unreported(cluster) == ["web3"])
    with pytest.raises(Refused, match="waiting for web3") as refusal:
        onehost.account_create("early")
    assert "onehost node remove web3 --lost" in refusal.value.hint
    onehost.account_set("old11", access="none")  # what needs no number is taken

    cluster.start_worker("web3")
    wait_until(lambda: unreported(cluster) == [])
    wait_until(lambda: is_settled(cluster))
    known = {each["name"]: (each["id"], each["spec"]) for each in onehost.list("account")}
    assert set(known) == {f"old{number}" for number in range(12)}
    for node in ("store1", *WEB):
        state = held(cluster, node)
        for name, (its_id, spec) in known.items():
            assert state[name][0] == its_id and state[name][1] == spec | {"password_hash": HASH}
    lost = {f"new{number}" for number in range(7)} | {"late"}
    wait_until(lambda: {each["name"] for each in onehost.orphans()} >= lost)
    wait_until(lambda: not [each for each in onehost.orphans() if each["node"] == "web3"])
    on = {node: {each["name"] for each in onehost.orphans() if each["node"] == node} for node in ("store1", *WEB)}
    # web3 was sent them and never made them: its old letters were passed over.
    assert on == {"store1": lost, "web1": lost, "web2": lost, "web3": set()}
    assert (
        all(lost <= held(cluster, node).keys() for node in ("web1", "web2")) and not lost & held(cluster, "web3").keys()
    )

    make(cluster, "early", "again")
    assert not {uids(cluster)["early"], uids(cluster)["again"]} & set(given.values())
    verdict = onehost.verify(seal.Head(manifest.position, manifest.hash))
    assert verdict.problem == "" and verdict.events > manifest.position
    raised = {each["name"] for each in onehost.events(EventFilter(kind="resource.raise"), None)}
    assert raised >= {f"old{number}" for number in range(12)} - {"old11"}
    begun = next(iter(onehost.events(EventFilter(kind="store.restore"))))
    assert begun["actor"] == "operator" and begun["detail"]["backup"]["hash"] == manifest.hash


def test_orphans_are_removed_by_a_person(restored: tuple[Cluster, archive.Manifest, dict[str, int]]) -> None:
    cluster, _, _ = restored
    onehost = cluster.onehost
    cluster.start_manager()
    wait_until(lambda: {each["name"] for each in onehost.orphans()} >= {"late", "new0"})
    wait_until(lambda: len([each for each in onehost.orphans() if each["name"] == "late"]) == 3)
    late = next(each for each in onehost.orphans() if each["name"] == "late")
    with pytest.raises(NotFound):
        onehost.remove_orphan(1)
    job = onehost.wait(onehost.remove_orphan(late["id"], reason="nobody misses it"))
    assert job["state"] == "applied" and {node["node"] for node in job["nodes"]} == {"store1", "web1", "web2"}
    assert all("late" not in held(cluster, node) for node in ("store1", "web1", "web2"))
    assert "late" not in {each["name"] for each in onehost.orphans()} and "new0" in held(cluster, "web1")


def test_nodes_with_orphans_are_not_asked_again_and_again(
    restored: tuple[Cluster, archive.Manifest, dict[str, int]],
) -> None:
    cluster, _, _ = restored
    cluster.start_manager()
    wait_until(lambda: is_settled(cluster) or unreported(cluster) == ["web3"])
    wait_until(lambda: {each["name"] for each in cluster.onehost.orphans()} >= {"late", "new0"})
    said = {name: worker.sync for name, worker in cluster.workers.items()}
    wait_until(lambda: all(cluster.presence.heard[node].equal for node in _node_ids(cluster, *said)))
    before = {name: sync._hello for name, sync in said.items()}
    threading.Event().wait(3.0)  # six beats of each
    assert {name: sync._hello for name, sync in said.items()} == before


def _node_ids(cluster: Cluster, *names: str) -> list[int]:
    return [node["id"] for node in cluster.onehost.list("node") if node["name"] in names]


def test_two_restores_of_one_backup_differ(cluster: Cluster, tmp_path: Path) -> None:
    make(cluster, "old")
    backup.backup(cluster.onehost.engine, tmp_path / "b.backup")
    stop_manager(cluster)
    first = restore.restore(cluster.settings.store, tmp_path / "b.backup", "operator")
    second = restore.restore(cluster.settings.store, tmp_path / "b.backup", "operator")
    assert 0 < first.incarnation < second.incarnation
    cluster.start_manager()
    wait_until(lambda: unreported(cluster) == [])
    make(cluster, "new")
    born = cluster.onehost.get("account", "new")
    assert born["id"] >> 32 == second.incarnation and born["generation"] >> 32 == second.incarnation


def test_a_later_life_that_a_node_has_heard_of(cluster: Cluster, tmp_path: Path) -> None:
    """The clock stood back at the second restore, and the first store was gone: the node tells."""
    backup.backup(cluster.onehost.engine, tmp_path / "b.backup")
    stop_manager(cluster)
    later = restore.restore(cluster.settings.store, tmp_path / "b.backup", "operator").incarnation + 100
    with writing(cluster.onehost.engine) as connection:
        numbers.set_incarnation(connection, later)
    cluster.start_manager()
    wait_until(lambda: unreported(cluster) == [])
    make(cluster, "old")
    stop_manager(cluster)
    with writing(cluster.onehost.engine) as connection:
        numbers.set_incarnation(connection, later - 100)
        connection.execute(NodeStatus.__table__.update().values(reported=0))
    cluster.start_manager()
    for worker in cluster.workers.values():
        worker.sync.say_hello()
    wait_until(lambda: unreported(cluster) == [])
    with reading(cluster.onehost.engine) as connection:
        assert numbers.incarnation(connection) > later


def test_a_job_that_ran_at_the_backup_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    """Storage had not answered; since then all was applied, and its acknowledgements are forgotten by nodes."""
    make(cluster, "old")
    cluster.stop_worker("store1")
    job = cluster.onehost.account_create("young", password_hash=HASH)
    backup.backup(cluster.onehost.engine, tmp_path / "b.backup")
    cluster.start_worker("store1")
    cluster.onehost.wait(job)
    make(cluster, "other")
    stop_manager(cluster)
    restore.restore(cluster.settings.store, tmp_path / "b.backup", "operator")
    cluster.start_manager()
    done = cluster.onehost.wait(job, everyone=True, seconds=90)
    assert done["state"] == "applied" and {node["state"] for node in done["nodes"]} == {"applied"}


def test_a_restore_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    engine, url = cluster.onehost.engine, cluster.settings.store
    path = tmp_path / "b.backup"
    backup.backup(engine, path)
    with pytest.raises(Conflict):
        backup.backup(engine, path)
    assert path.stat().st_mode & 0o777 == 0o600
    for duty in restore.DUTIES:
        with sole(engine, duty, threading.Event()) as alone:
            assert alone
            with pytest.raises(Refused, match=f"onehost {duty} run"):
                restore.restore(url, path, "operator")
    with (
        patch.object(restore, "time_now", lambda: now() - timedelta(hours=2)),
        pytest.raises(Refused, match=r"the clock here shows 7[12]\d\d s before"),
    ):
        restore.restore(url, path, "operator")


# ---- without a broker


def test_a_restore_that_is_cut_off_leaves_a_store_that_refuses(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _made(store_url, tmp_path)
    path = tmp_path / "b.backup"
    backup.backup(store.engine, path)
    store.onehost.account_create("after")

    def dies(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(restore, "_begin", dies)
        with pytest.raises(KeyboardInterrupt):
            restore.restore(store_url, path, "operator")
    if store_url.startswith("sqlite"):
        # Made ready beside the store, which is as it was.
        assert store.onehost.get("account", "after")
    else:
        with pytest.raises(Refused, match="new life has not begun"):
            store.onehost.account_set("alice", access="none")
    restore.restore(store_url, path, "operator")
    store.onehost.account_set("alice", access="none")
    assert [each["name"] for each in store.onehost.list("account")] == ["alice"]
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".")]
    store.close()


def _made(url: str, folder: Path) -> Store:
    migrations.upgrade(url)
    store = Store(url, folder)
    store.cluster()
    store.ack_all(store.onehost.account_create("alice", password_hash=HASH))
    return store


def test_an_older_backup_is_brought_up_to_date_and_a_newer_one_refused(store_url: str, tmp_path: Path) -> None:
    store = _made(store_url, tmp_path)
    store.close()
    migrations.downgrade(store_url, revision="0001")
    path, engine = tmp_path / "b.backup", connect(store_url)
    assert backup.backup(engine, path).revision == "0001"
    engine.dispose()
    migrations.upgrade(store_url)
    restore.restore(store_url, path, "operator")
    assert migrations.current(store_url) == migrations.newest()
    again = Store(store_url, tmp_path)
    assert [each["name"] for each in again.onehost.list("account")] == ["alice"]
    again.close()

    with archive.opened(path) as (manifest, copy):
        archive.write(path, dataclasses.replace(manifest, revision="9999", version="7.0"), copy)
    with pytest.raises(Refused, match=r"made by onehost 7.0 .* newer"):
        restore.restore(store_url, path, "operator")
    with archive.opened(path) as (manifest, copy):
        other = "postgresql" if manifest.database == "sqlite" else "sqlite"
        archive.write(path, dataclasses.replace(manifest, database=other), copy)
    with pytest.raises(Refused, match=f"a backup of {other}"):
        restore.restore(store_url, path, "operator")


def test_a_damaged_backup_is_told_and_never_put_back(store_url: str, tmp_path: Path) -> None:
    store = _made(store_url, tmp_path)
    path = tmp_path / "b.backup"
    backup.backup(store.engine, path)
    whole, before = path.read_bytes(), store.dump()
    for damaged in (whole[: len(whole) // 2], whole[:-400] + b"\0" * 400, b"no archive", b""):
        path.write_bytes(damaged)
        for act in (backup.check, lambda path: restore.restore(store_url, path, "operator")):
            with pytest.raises(Invalid):
                act(path)
    with pytest.raises(NotFound):
        backup.check(tmp_path / "none")
    assert store.dump() == before
    store.close()


def test_an_audit_chain_that_was_changed_is_found_in_the_backup(tmp_path: Path) -> None:
    store = _made(f"sqlite:///{tmp_path}/store.db", tmp_path)
    with writing(store.engine) as connection:
        seal.seal(connection)
        connection.exec_driver_sql("DROP TRIGGER event_no_update")
        connection.exec_driver_sql("UPDATE event SET actor = 'somebody else' WHERE id = 1")
    with pytest.raises(Refused, match="audit chain is broken"):
        backup.backup(store.engine, tmp_path / "b.backup")
    store.close()


def test_a_store_that_is_no_database_any_more_is_kept_aside(tmp_path: Path) -> None:
    url, path = f"sqlite:///{tmp_path}/store.db", tmp_path / "b.backup"
    store = _made(url, tmp_path)
    backup.backup(store.engine, path)
    store.close()
    (tmp_path / "store.db").write_bytes(b"rubbish" * 1000)
    restore.restore(url, path, "operator")
    again = Store(url, tmp_path)
    assert again.onehost.verify().problem == "" and (tmp_path / "store.db.broken").read_bytes()[:7] == b"rubbish"
    again.close()


# ---- a node beyond the store


def hello(store: Store, node: str, rows: list[list[int]], **more: Any) -> None:
    """A node lists all of its ledger, and the relay answers."""
    body = {"form": "hello", "node": node, "hello": "h", "epoch": 77, "incarnation": 0, "buckets": list(range(256)),
            "rows": rows, **more}  # fmt: skip
    with writing(store.engine) as connection:
        resync.answer(connection, store.id("node", node), wire.decode(json.dumps(body).encode()), now())


def test_a_node_beyond_raises_all_placements_with_the_stores_spec_and_its_secrets(store: Store) -> None:
    store.ack_all(made := store.onehost.account_create("alice", password_hash=HASH))
    hello(store, "w1", [[made.resource_id, 7, 1], [store.id("node", "w1"), 1, 1]])
    assert {name: row.wanted for name, row in store.placements(made.resource_id).items()} == {"s1": 8, "w1": 8, "w2": 8}
    letters = store.letters()
    assert {letter.node for letter in letters} == {"s1", "w1", "w2"}
    assert all(letter["secrets"] == {"password_hash": HASH} for letter in letters)
    hello(store, "w2", [[made.resource_id, 8, 0], [store.id("node", "w2"), 1, 1]])
    assert {row.wanted for row in store.placements(made.resource_id).values()} == {8}


def test_a_node_that_brought_back_what_is_removed_is_told_again(store: Store) -> None:
    store.ack_all(made := store.onehost.account_create("alice", password_hash=HASH))
    store.ack_all(store.onehost.account_delete("alice"), "w1", "w2", "s1")
    hello(store, "w1", [[made.resource_id, 9, 1]])
    assert {name: row.wanted for name, row in store.placements(made.resource_id).items()} == {
        "s1": 10,
        "w1": 10,
        "w2": 10,
    }
    assert all(letter["payload"] is None and not letter["secrets"] for letter in store.letters())


def test_nothing_overtakes_a_stage_that_is_not_open(store: Store) -> None:
    store.ack_all(made := store.onehost.account_create("alice", domain="a.example", password_hash=HASH))
    job = store.onehost.account_set("alice", document_root="other")
    hello(store, "w1", [[made.resource_id, 7, 1]])
    assert {name: row.wanted for name, row in store.placements(made.resource_id).items()} == {"s1": 2, "w1": 1, "w2": 1}
    hello(store, "s1", [[made.resource_id, 7, 1]])
    assert {name: row.wanted for name, row in store.placements(made.resource_id).items()} == {"s1": 8, "w1": 1, "w2": 1}
    store.ack("s1", made.resource_id, 8)
    assert {name: row.wanted for name, row in store.placements(made.resource_id).items()} == {"s1": 8, "w1": 2, "w2": 2}
    hello(store, "w1", [[made.resource_id, 7, 1]])
    for name, row in store.placements(made.resource_id).items():
        store.ack(name, made.resource_id, row.wanted)
    assert store.job(job.job_id)["state"] == "applied"


def test_orphans_are_replaced_at_each_hello_and_named(store: Store) -> None:
    own = {name: [store.id("node", name), 1, 1] for name in ("w1", "w2")}
    hello(store, "w1", [own["w1"], [500, 3, 1], [501, 1, 1]])
    assert [each["id"] for each in store.onehost.orphans()] == [500, 501]
    named = {"id": 500, "noun": "account", "name": "bob"}
    hello(store, "w1", [], buckets=[], orphans=[named, {**named, "id": 501, "name": "eve", "absent": True}])
    assert [(each["id"], each["name"]) for each in store.onehost.orphans()] == [(500, "bob")]
    hello(store, "w1", [own["w1"], [501, 1, 1]])
    assert store.onehost.orphans() == []
    with pytest.raises(NotFound):
        store.onehost.remove_orphan(500)
    hello(store, "w1", [own["w1"], [500, 3, 1]])
    with pytest.raises(Refused, match="has not said what it is"):
        store.onehost.remove_orphan(500)
    hello(store, "w1", [], buckets=[], orphans=[named])
    with pytest.raises(Refused, match="never given out"):
        store.onehost.remove_orphan(500)
