"""Domains through the client: whose name it is, what is secret, many at once, and the whole way to nodes and back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from onehost.models.errors import Conflict, Refused
from onehost.producer.event_search import EventFilter
from onehost.producer.submit import Wish
from onehost.workers.host import Host
from onehost.workers.reconcilers import reconcilers

from .conftest import Cluster
from .manager import Store

BCRYPT = "$2y$10$" + "a" * 53


@pytest.fixture
def owning(store: Store) -> Store:
    """Account alice with example.com, and bob without a domain, all applied."""
    store.ack_all(store.onehost.do("account", "alice", "create", {"domain": "example.com"}))
    store.ack_all(store.onehost.do("account", "bob", "create", {"domain": None}))
    return store


def create(store: Store, name: str, account: str, **fields: Any) -> Any:
    return store.onehost.do("domain", name, "create", {"account": account, **fields})


def test_a_name_has_one_holder_whether_account_or_domain(owning: Store) -> None:
    for name in ("example.com", "www.example.com"):
        with pytest.raises(Conflict, match="is held by account alice"):
            create(owning, name, "alice")
    create(owning, "free.example", "bob", aliases=["other.example"])
    with pytest.raises(Conflict, match=r"domain other.example is held by domain free.example"):
        create(owning, "other.example", "alice")
    with pytest.raises(Conflict, match=r"domain www.free.example is held by domain free.example"):
        owning.onehost.do("account", "bob", "set", {"domain": "www.free.example"})


def test_a_subdomain_of_anothers_needs_consent(owning: Store) -> None:
    create(owning, "shop.example.com", "alice")
    before = owning.dump()
    for name in ("blog.example.com", "deep.shop.example.com"):
        with pytest.raises(Refused, match="belongs to account alice"):
            create(owning, name, "bob")
    with pytest.raises(Refused, match="belongs to account alice"):
        owning.onehost.do("account", "bob", "set", {"domain": "blog.example.com"})
    assert owning.dump() == before
    create(owning, "blog.example.com", "bob", consent_of="alice")
    create(owning, "deep.blog.example.com", "bob")
    assert owning.onehost.get("domain", "blog.example.com")["spec"]["consent_of"] == "alice"


def test_made_together_nobody_slips_in_below_another(owning: Store) -> None:
    wishes = [
        Wish("domain", "new.example", "create", {"account": "alice"}, "panel"),
        Wish("domain", "evil.new.example", "create", {"account": "bob"}, "panel"),
    ]
    with pytest.raises(Refused, match=r"evil.new.example lies below new.example, which belongs to account alice"):
        owning.onehost.submit(wishes)
    owning.onehost.submit(wishes[:1])


def test_hashes_travel_as_secrets_and_are_never_shown(owning: Store) -> None:
    create(owning, "club.example", "alice", protected_paths=["/in"], protected_users=[f"ann:{BCRYPT}"])
    shown = str(owning.onehost.get("domain", "club.example")) + str(list(owning.onehost.events(EventFilter())))
    assert BCRYPT not in shown
    letters = [each for each in owning.letters() if each["noun"] == "domain"]
    assert letters and BCRYPT not in str([each["payload"] for each in letters])


def test_storage_first_then_the_web(owning: Store) -> None:
    made = create(owning, "shop.example", "alice")
    assert {each.node for each in owning.letters() if each["noun"] == "domain"} == {"s1"}
    owning.ack(*("s1", made.resource_id, 1))
    assert {each.node for each in owning.letters() if each["noun"] == "domain"} >= {"w1", "w2"}
    owning.ack_all(made, "w1", "w2")
    owning.onehost.do("domain", "shop.example", "suspend")
    assert {each.node for each in owning.letters() if each["noun"] == "domain"} == {"s1", "w1", "w2"}


def test_a_thousand_are_asked_for_quickly(owning: Store, capsys: pytest.CaptureFixture[str]) -> None:
    wishes = [Wish("domain", f"d{each}.many.example", "create", {"account": "alice"}, "panel") for each in range(1000)]
    began = time.monotonic()
    receipts = owning.onehost.submit(wishes)
    with capsys.disabled():
        print(f"\n1,000 domains asked for in {time.monotonic() - began:.2f} s")
    assert len({each.resource_id for each in receipts}) == 1000


def test_from_the_client_to_the_files_of_nodes_and_back(cluster: Cluster, tmp_path: Path) -> None:
    for name in list(cluster.worker_processes):
        cluster.stop_worker(name)
        cluster.recorders[name] = reconcilers()  # type: ignore[assignment]
        cluster.hosts[name] = Host.rehearsal(tmp_path / name)
    for name in ("web1", "web2", "web3"):
        (tmp_path / name / "home").rmdir() if (tmp_path / name / "home").exists() else None
        (tmp_path / "store1" / "home").mkdir(exist_ok=True)
        (tmp_path / name / "home").symlink_to(tmp_path / "store1" / "home")
    for name in cluster.hosts:
        cluster.start_worker(name)
    onehost = cluster.onehost
    onehost.wait(onehost.do("account", "alice", "create", {"domain": "example.com"}).job_id)
    made = onehost.do("domain", "shop.example.com", "create", {
        "account": "alice", "aliases": ["laden.example"], "protected_paths": ["/in"],
        "protected_users": [f"ann:{BCRYPT}"], "override": ["Header set A b"],
    })  # fmt: skip
    assert onehost.wait(made.job_id)["state"] == "applied"
    live = [tmp_path / f"web{each}/etc/onehost/apache/live" for each in (1, 2, 3)]
    for folder in live:
        stem = f"shop.example.com.{made.resource_id}"
        assert {path.name for path in folder.iterdir()} >= {f"{stem}.conf", f"{stem}.override", f"{stem}.users"}
        assert (folder / f"{stem}.users").read_text() == f"ann:{BCRYPT}\n"
    assert (tmp_path / "store1/home/alice/home/shop.example.com/index.html").exists()
    assert onehost.wait(onehost.do("domain", "shop.example.com", "suspend").job_id)["state"] == "applied"
    assert (live[0].parent / f"suspended/{made.resource_id}").exists()
    assert onehost.wait(onehost.do("account", "alice", "delete").job_id)["state"] == "applied"
    assert all(not list(folder.glob("shop.*")) for folder in live)
    assert onehost.list("domain") == []
