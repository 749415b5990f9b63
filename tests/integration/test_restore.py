"""A store is put back that is older than what nodes hold: nothing is lost in silence, nothing is given out twice."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from onehost.models.errors import Conflict, NotFound, Refused
from onehost.models.store import NodeStatus, Placement, bells, reading, writing
from onehost.models.store.sole import sole
from onehost.producer import EventFilter, archive, backup, numbers, restore, seal

from .conftest import Cluster, wait_until

HASH = "$6$" + "a" * 16 + "$" + "b" * 86
OTHER_HASH = "$6$" + "c" * 16 + "$" + "d" * 86
WEB = ("web1", "web2", "web3")


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
    done = cluster.onehost.wait(job, everyone=True)
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
