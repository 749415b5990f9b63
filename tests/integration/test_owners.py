"""What belongs to an account goes with it and comes back with it: one tree of jobs, all or nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from onehost.models.errors import Invalid, NotFound, Refused
from onehost.producer.submit import Wish

from .manager import Store
from .test_grace import let_it_pass

ENTRY = {"account": "alice", "schedule": "* * * * *", "command": "true"}
WEB = ("w1", "w2")


@pytest.fixture
def owning(store: Store) -> Store:
    """Account alice with two cron entries, all applied."""
    store.ack_all(store.onehost.do("account", "alice", "create", {"domain": None}))
    for name in ("alice.one", "alice.two"):
        store.ack_all(store.onehost.do("cron", name, "create", ENTRY), *WEB)
    return store


def states(store: Store, job_id: int | None) -> dict[str, str]:
    return {child["name"]: child["state"] for child in store.job(job_id)["children"]}


def test_it_carries_what_the_manager_knows_of_its_owner(owning: Store) -> None:
    alice, entry = owning.onehost.get("account", "alice"), owning.onehost.get("cron", "alice.one")
    inherited = {key: entry["spec"][key] for key in ("account_id", "uid", "gid")}
    assert inherited == {"account_id": alice["id"], "uid": alice["spec"]["uid"], "gid": alice["spec"]["gid"]}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"account": "bob"}, NotFound),
        ({"account_id": 5}, Refused),
        ({"uid": 20001}, Refused),
    ],
)  # fmt: skip
def test_an_owner_must_live_and_is_not_asked_for(owning: Store, fields: dict[str, Any], error: type[Exception]) -> None:
    before = owning.dump()
    name = f"{fields.get('account', 'alice')}.three"
    with pytest.raises(error):
        owning.onehost.do("cron", name, "create", ENTRY | fields)
    assert owning.dump() == before


def test_it_does_not_change_hands(owning: Store) -> None:
    owning.ack_all(owning.onehost.do("account", "bob", "create", {"domain": None}))
    before = owning.dump()
    with pytest.raises(Invalid, match=r"alice\.one"):
        owning.onehost.apply("cron", "alice.one", ENTRY | {"account": "bob"})
    assert owning.dump() == before


def test_made_together_in_any_order(owning: Store) -> None:
    entry = Wish("cron", "bob.one", "create", ENTRY | {"account": "bob"}, "panel")
    receipts = owning.onehost.submit([entry, Wish("account", "bob", "create", {"domain": None}, "panel")])
    assert [receipt.noun for receipt in receipts] == ["cron", "account"]
    spec = owning.onehost.get("cron", "bob.one")["spec"]
    assert spec["account_id"] == receipts[1].resource_id and spec["uid"] == 20001


def test_all_of_it_goes_with_the_owner(owning: Store) -> None:
    gone = owning.onehost.account_delete("alice")
    assert gone.owned == {"cron": 2}
    assert states(owning, gone.job_id) == {"alice.one": "running", "alice.two": "running"}
    for child in owning.job(gone.job_id)["children"]:
        receipt = replace(gone, resource_id=owning.id("cron", child["name"]), generation=2)
        owning.ack_all(receipt, *WEB)
    assert states(owning, gone.job_id) == {"alice.one": "applied", "alice.two": "applied"}
    assert owning.job(gone.job_id)["state"] == "running"
    assert owning.onehost.list("cron") == []


def test_only_the_removal_of_the_owner_counts_for_the_hold(owning: Store) -> None:
    owning.onehost.settings = replace(owning.onehost.settings, held_beyond_per_hour=1)
    assert not owning.onehost.account_delete("alice").held
    assert owning.onehost.list("cron") == []


def test_a_held_removal_takes_nothing_along_before_it_is_released(owning: Store) -> None:
    owning.onehost.settings = replace(owning.onehost.settings, held_beyond_per_hour=1)
    owning.ack_all(owning.onehost.do("account", "bob", "create", {"domain": None}))
    owning.onehost.account_delete("bob")
    held = owning.onehost.account_delete("alice")
    assert held.held and not held.owned and len(owning.onehost.list("cron")) == 2
    released = owning.onehost.release(held.job_id or 0)
    assert released.owned == {"cron": 2} and owning.onehost.list("cron") == []


@pytest.mark.parametrize("acked", [(), WEB])
def test_a_cancel_within_the_grace_time_brings_all_of_it_back(owning: Store, acked: tuple[str, ...]) -> None:
    owning.onehost.settings = replace(owning.onehost.settings, grace_seconds=30)
    before = {each["name"]: each["spec"] for each in owning.onehost.list("cron")}
    gone = owning.onehost.account_delete("alice")
    for name in before if acked else ():
        owning.ack_all(replace(gone, resource_id=owning.id("cron", name), generation=2), *acked)
    assert set(states(owning, gone.job_id).values()) == {"running"}
    undo = owning.onehost.cancel(gone.job_id or 0)
    assert undo.owned == {"cron": 2}
    assert {each["name"]: each["spec"] for each in owning.onehost.list("cron")} == before
    for name in before:
        owning.ack_all(replace(gone, resource_id=owning.id("cron", name), generation=3), *WEB)
    assert set(states(owning, gone.job_id).values()) == {"applied" if acked else "cancelled"}
    assert owning.wrong_digests() == {}


def test_a_cancelled_making_takes_along_what_was_added_meanwhile(store: Store) -> None:
    made = store.onehost.do("account", "alice", "create", {"domain": None})
    store.onehost.do("cron", "alice.one", "create", ENTRY)
    undo = store.onehost.cancel(made.job_id or 0)
    assert undo.owned == {"cron": 1} and store.onehost.list("account") == store.onehost.list("cron") == []


def test_the_grace_time_ends_for_all_of_it(owning: Store) -> None:
    owning.onehost.settings = replace(owning.onehost.settings, grace_seconds=30)
    gone = owning.onehost.account_delete("alice")
    for name in ("alice.one", "alice.two"):
        owning.ack_all(replace(gone, resource_id=owning.id("cron", name), generation=2), *WEB)
    let_it_pass(owning)
    assert set(states(owning, gone.job_id).values()) == {"applied"}


def test_a_half_failed_tree_says_what_is_left_where_and_a_retry_finishes_it(owning: Store) -> None:
    gone = owning.onehost.account_delete("alice")
    owning.ack_all(gone, *WEB)
    owning.ack_all(gone, "s1")
    for name in ("alice.one", "alice.two"):
        receipt = replace(gone, resource_id=owning.id("cron", name), generation=2)
        owning.ack_all(receipt, "w1")
        owning.ack("w2", receipt.resource_id, 2, "failed" if name == "alice.one" else "applied", reason="no room")
    one, two = owning.job(gone.job_id)["children"]
    assert (one["state"], one["failed_on"], one["why"]) == ("partial", "w2", "no room") and two["state"] == "applied"
    again = owning.onehost.retry(gone.job_id or 0)
    assert again.owned == {"cron": 1}
    owning.ack_all(again, *WEB, "s1")
    owning.ack_all(replace(again, resource_id=owning.id("cron", "alice.one"), generation=3), *WEB)
    assert states(owning, again.job_id) == {"alice.one": "applied"} and owning.job(again.job_id)["state"] == "applied"


def test_a_dry_run_counts_and_changes_nothing(owning: Store) -> None:
    before = owning.dump()
    receipt, _ = owning.onehost.dry_run(owning.onehost.wish("account", "alice", "delete"))
    assert receipt.owned == {"cron": 2} and owning.dump() == before
