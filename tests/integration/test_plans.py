"""Plans: nothing is added beyond a limit, however it is asked for; a change of plan reaches who has it."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from sqlalchemy import event

from onehost.models.errors import Invalid, NotFound, OnehostError, Refused, TimedOut
from onehost.producer import Onehost, Wish

from .conftest import Cluster, wait_until
from .manager import Store

ENTRY = {"schedule": "* * * * *", "command": "true"}
GOLD = {"crons": 2, "domains": 3, "aliases": 4, "php_processes": 4}


@pytest.fixture
def planned(store: Store) -> Store:
    """Plan gold; alice has it, all applied."""
    assert store.job(store.onehost.do("plan", "gold", "create", GOLD).job_id)["state"] == "applied"
    store.ack_all(store.onehost.do("account", "alice", "create", {"domain": None, "plan": "gold"}))
    return store


def cron(number: int, account: str = "alice") -> Wish:
    return Wish("cron", f"{account}.c{number}", "create", ENTRY | {"account": account}, "test")


def domain(number: int, account: str = "alice", **more: Any) -> Wish:
    return Wish("domain", f"d{number}-{account}.com", "create", {"account": account, **more}, "test")


def spec(store: Store, name: str = "alice") -> dict[str, Any]:
    found: dict[str, Any] = store.onehost.get("account", name)["spec"]
    return found


def refused(store: Store, error: type[OnehostError], words: str, *wishes: Wish) -> None:
    """All of it is refused with these words, and nothing is changed."""
    before = store.dump()
    with pytest.raises(error, match=words):
        store.onehost.submit(wishes)
    assert store.dump() == before


def test_a_plan_is_done_at_once_and_stands_on_no_node(planned: Store) -> None:
    found = planned.onehost.get("plan", "gold")
    assert found["nodes"] == [] and found["spec"]["crons"] == 2 and found["spec"]["mailboxes"] is None
    assert spec(planned)["php_processes"] == 4 and spec(planned)["memory_mib"] is None


@pytest.mark.parametrize("together", [True, False])
def test_nothing_is_added_beyond_a_limit(planned: Store, together: bool) -> None:
    for wishes in [[cron(1), cron(2)]] if together else [[cron(1)], [cron(2)]]:
        planned.onehost.submit(wishes)
    refused(planned, Refused, r"alice has 2 of 2 crons \(plan gold\)", cron(3))
    refused(planned, Refused, "alice has 3 of 3 domains", *(domain(number) for number in range(4)))
    planned.onehost.remove("cron", "alice.c1")
    planned.onehost.submit([cron(3)])
    refused(planned, Refused, "alice has 2 of 2 crons", cron(1))


def test_only_what_is_more_is_counted(planned: Store) -> None:
    planned.onehost.submit([domain(1, aliases=["a1.net", "a2.net", "a3.net"])])
    refused(planned, Refused, "alice has 3 of 4 aliases, and domain d2-alice.com needs 2 more",
            domain(2, aliases=["b1.net", "b2.net"]))  # fmt: skip
    planned.onehost.submit([domain(2, aliases=["b1.net"])])
    more = Wish("domain", "d2-alice.com", "set", {"aliases": ["b1.net", "b2.net"]}, "test")
    refused(planned, Refused, "alice has 4 of 4 aliases", more)
    planned.onehost.do("plan", "gold", "set", {"aliases": 1})
    # What is over stays, may be changed, and may shrink.
    planned.onehost.do("domain", "d1-alice.com", "set", {"php": False})
    planned.onehost.do("domain", "d1-alice.com", "set", {"aliases": ["a1.net", "a2.net"]})
    refused(planned, Refused, "alice has 3 of 1 aliases", more)


def test_its_own_limit_stands_before_the_plans(planned: Store) -> None:
    planned.onehost.do("account", "alice", "set", {"limits": {"crons": 3, "domains": None, "ssh_keys": 0}})
    planned.onehost.submit([cron(1), cron(2), cron(3), *(domain(number) for number in range(5))])
    refused(planned, Refused, r"alice has 3 of 3 crons \(its own limit\)", cron(4))
    assert spec(planned)["limits"] == {"crons": 3, "domains": None, "ssh_keys": 0}
    planned.onehost.do("account", "alice", "set", {"limits": {}})
    refused(planned, Refused, r"alice has 3 of 2 crons \(plan gold\)", cron(4))
    for wrong in ({"cars": 1}, {"crons": -1}, {"crons": "3"}, {"shell": 1}, {"php_processes": 0}):
        refused(planned, Invalid, "limits", Wish("account", "alice", "set", {"limits": wrong}, "test"))


def test_what_is_not_allowed_at_all(planned: Store) -> None:
    planned.onehost.do("plan", "bronze", "create", {"shell": False, "cron": False})
    shell = {"domain": None, "plan": "bronze", "access": "shell"}
    refused(planned, Refused, "plan bronze allows none", Wish("account", "bob", "create", shell, "test"))
    planned.onehost.do("account", "bob", "create", shell | {"access": "sftp"})
    refused(planned, Refused, "plan bronze", Wish("account", "bob", "set", {"access": "shell"}, "test"))
    refused(planned, Refused, r"bob may have no cron, so no cron bob.c1 \(plan bronze\)", cron(1, "bob"))
    assert spec(planned, "bob")["shell"] is False and spec(planned)["shell"] is None
    # An account with a shell keeps its wish for one; its nodes are told that it has none.
    planned.onehost.do("account", "alice", "set", {"access": "shell"})
    planned.onehost.do("account", "alice", "set", {"plan": "bronze"})
    assert spec(planned)["access"] == "shell" and spec(planned)["shell"] is False
    planned.onehost.do("account", "alice", "set", {"php": False})


def test_ssh_keys_of_the_account_itself_count(planned: Store) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 42 + "{}"
    keys = [key.format(letter) for letter in "AEI"]
    planned.onehost.do("account", "alice", "set", {"limits": {"ssh_keys": 2}, "ssh_keys": keys[:1]})
    planned.onehost.do("ssh_key", "alice.one", "create", {"account": "alice", "key": keys[1]})
    more = {"account": "alice", "key": keys[2]}
    refused(planned, Refused, "alice has 2 of 2 ssh keys", Wish("ssh_key", "alice.two", "create", more, "test"))
    longer = {"ssh_keys": [keys[0], keys[2]]}
    refused(planned, Refused, "alice has 2 of 2 ssh keys", Wish("account", "alice", "set", longer, "test"))


def test_a_change_of_plan_is_one_job_for_all_that_have_it(planned: Store) -> None:
    for name, more in (("bob", {}), ("carol", {"limits": {"php_processes": 2}}), ("dave", {"plan": None})):
        planned.ack_all(planned.onehost.do("account", name, "create", {"domain": None, "plan": "gold"} | more))
    receipt = planned.onehost.do("plan", "gold", "set", {"php_processes": 8}, reason="sale")
    assert receipt.owned == {"account": 2}
    children = planned.job(receipt.job_id)["children"]
    assert [(each["kind"], each["name"], each["state"]) for each in children] == [
        ("account.set", "alice", "running"), ("account.set", "bob", "running"),
    ]  # fmt: skip
    assert [spec(planned, name)["php_processes"] for name in ("alice", "bob", "carol", "dave")] == [8, 8, 2, None]
    for name in ("alice", "bob"):
        for node in ("s1", "w1", "w2"):
            planned.ack(node, planned.id("account", name), 2)
    assert planned.onehost.wait(receipt, seconds=1)["state"] == "applied"
    assert planned.onehost.do("plan", "gold", "set", {"domains": 50}).owned == {}
    assert planned.onehost.do("plan", "gold", "set", {"domains": 50}).job_id is None
    before = planned.dump()
    dry, _ = planned.onehost.dry_run(planned.onehost.wish("plan", "gold", "set", {"php_processes": 1}))
    assert dry.owned == {"account": 2} and planned.dump() == before


def test_a_change_of_plan_does_not_wait_for_who_is_offline(planned: Store) -> None:
    planned.node_state("w2", "offline")
    receipt = planned.onehost.do("plan", "gold", "set", {"php_processes": 8})
    planned.ack("s1", planned.id("account", "alice"), 2)
    with pytest.raises(TimedOut):
        planned.onehost.wait(receipt, seconds=0.1)
    planned.ack("w1", planned.id("account", "alice"), 2)
    assert planned.onehost.wait(receipt, seconds=5)["children"][0]["state"] == "running"
    with pytest.raises(TimedOut):
        planned.onehost.wait(receipt, seconds=0.1, everyone=True)


def test_what_failed_of_it_is_tried_again_and_what_it_was_comes_back(planned: Store) -> None:
    receipt = planned.onehost.do("plan", "gold", "set", {"php_processes": 8})
    planned.ack("s1", planned.id("account", "alice"), 2)
    for node in ("w1", "w2"):
        planned.ack(node, planned.id("account", "alice"), 2, "failed", reason="no room")
    (child,) = planned.job(receipt.job_id)["children"]
    assert (child["state"], child["why"]) == ("partial", "no room")
    again = planned.onehost.retry(receipt.job_id or 0)
    assert again.owned == {"account": 1}
    for node in ("s1", "w1", "w2"):
        planned.ack(node, planned.id("account", "alice"), 3)
    assert planned.onehost.retry(again.job_id or 0).owned == {}
    last = planned.onehost.do("plan", "gold", "set", {"php_processes": 9})
    back = planned.onehost.revert(last.job_id or 0)
    assert back.owned == {"account": 1} and spec(planned)["php_processes"] == 8


def test_a_change_of_the_accounts_plan_can_be_cancelled_and_reverted(planned: Store) -> None:
    planned.onehost.do("plan", "silver", "create", {"php_processes": 2})
    changed = planned.onehost.account_set("alice", plan="silver")
    assert changed.difference == {"php_processes": "4 -> 2", "plan": "gold -> silver"}
    planned.onehost.cancel(changed.job_id or 0)
    assert (spec(planned)["plan"], spec(planned)["php_processes"]) == ("gold", 4)
    changed = planned.onehost.account_set("alice", plan="silver")
    planned.ack_all(changed)
    planned.onehost.do("plan", "gold", "set", {"php_processes": 6})
    planned.onehost.revert(changed.job_id or 0)
    assert (spec(planned)["plan"], spec(planned)["php_processes"]) == ("gold", 6)
    ask = Wish("account", "alice", "set", {"php_processes": 99}, "test")
    refused(planned, Refused, "php_processes is given by the manager", ask)


def test_a_plan_that_somebody_has_stays(planned: Store) -> None:
    gone = Wish("plan", "gold", "delete", actor="test")
    refused(planned, Refused, "plan gold is that of 1 account, alice", gone)
    refused(planned, NotFound, "no such plan: none", Wish("account", "alice", "set", {"plan": "none"}, "test"))
    # In one call, in any order.
    planned.onehost.submit([gone, Wish("account", "alice", "set", {"plan": None}, "test")])
    assert planned.onehost.list("plan") == []
    receipts = planned.onehost.submit([
        domain(1, "bob"),
        Wish("account", "bob", "create", {"domain": None, "plan": "new"}, "test"),
        Wish("plan", "new", "create", {"domains": 1}, "test"),
    ])  # fmt: skip
    assert [each.noun for each in receipts] == ["domain", "account", "plan"]
    refused(planned, Refused, "bob has 1 of 1 domains", domain(2, "bob"))


def test_what_comes_back_is_not_counted(planned: Store) -> None:
    planned.onehost.submit([cron(1), cron(2)])
    planned.onehost.settings = planned.onehost.settings.__class__(
        **{**planned.onehost.settings.__dict__, "grace_seconds": 30}
    )
    gone = planned.onehost.account_delete("alice")
    planned.onehost.do("plan", "gold", "set", {"crons": 1})
    assert planned.onehost.cancel(gone.job_id or 0).owned == {"cron": 2}


def test_two_at_once_do_not_both_get_the_last_one(planned: Store) -> None:
    """Each of eight asks for three, of two crons and four aliases that are left; all at once, each by a connection."""
    planned.onehost.do("account", "alice", "set", {"limits": {"domains": 8}})
    planned.onehost.submit([domain(number) for number in range(8)])
    clients = [Onehost(planned.onehost.settings, actor=f"client{number}") for number in range(8)]
    begin, said = threading.Barrier(len(clients)), []

    def ask(number: int, client: Onehost) -> None:
        begin.wait()
        for each in range(3):
            more = [f"a{number}-{at}.net" for at in range(each + 1)]
            for wish in (cron(number * 3 + each),
                         Wish("domain", f"d{number}-alice.com", "set", {"aliases": more}, "test")):  # fmt: skip
                try:
                    client.submit([wish])
                    said.append(f"one {wish.noun}")
                except Refused as error:
                    said.append(str(error))

    threads = [threading.Thread(target=ask, args=each) for each in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for client in clients:
        client.close()
    assert len(said) == 48 and said.count("one cron") == 2 == len(planned.onehost.list("cron"))
    assert sum(len(each["spec"]["aliases"]) for each in planned.onehost.list("domain")) == 4


def test_a_plan_that_changes_while_much_is_added(planned: Store) -> None:
    """Who adds locks the account and then its plan; who changes the plan does, too: nobody waits in a ring for long."""
    names = [f"acc{number}" for number in range(10)]
    planned.onehost.submit(
        [Wish("account", name, "create", {"domain": None, "plan": "gold"}, "test") for name in names]
    )
    other, failures = Onehost(planned.onehost.settings, actor="other"), []

    def add() -> None:
        try:
            for number in range(2):
                for name in names:
                    other.submit([cron(number, name)])
        except OnehostError as error:
            failures.append(error)

    thread = threading.Thread(target=add)
    thread.start()
    for processes in range(5, 15):
        planned.onehost.do("plan", "gold", "set", {"php_processes": processes})
    thread.join(60)
    other.close()
    assert failures == [] and len(planned.onehost.list("cron")) == 20
    assert {spec(planned, name)["php_processes"] for name in names} == {14}


def test_a_site_is_not_set_to_more_memory_than_there_is(planned: Store) -> None:
    planned.onehost.do("plan", "gold", "set", {"memory_mib": 256})
    planned.onehost.submit([domain(1, php_settings=["memory_limit=256M"])])
    refused(planned, Refused, "256 MiB", domain(2, php_settings=["memory_limit=257M"]))
    planned.onehost.do("plan", "gold", "set", {"memory_mib": 64})
    planned.onehost.do("domain", "d1-alice.com", "set", {"php": False})


def stored(store: Store, node: str, *sizes: list[int]) -> None:
    assert store.say(store.letter(node, {"form": "usage", "stored": list(sizes), "at": 0})) == []


def used(store: Store, name: str = "alice") -> dict[str, tuple[Any, Any, Any, bool]]:
    (one,) = store.onehost.usage(name)
    return {limit: tuple(found.values()) for limit, found in one["limits"].items()}  # type: ignore[misc]


def test_usage_is_shown_against_the_limits(planned: Store) -> None:
    alice = planned.id("account", "alice")
    assert used(planned)["storage_mib"] == (None, None, None, False)
    planned.onehost.do("plan", "gold", "set", {"storage_mib": 5})
    stored(planned, "s1", [alice, 5 << 20])
    assert used(planned)["storage_mib"] == (5, 5, "plan", False)
    stored(planned, "s1", [alice, (5 << 20) + 1])
    planned.onehost.submit([cron(1), cron(2)])
    planned.onehost.do("account", "alice", "set", {"limits": {"crons": 1, "shell": False}})
    assert used(planned)["storage_mib"] == (6, 5, "plan", True)
    assert used(planned)["crons"] == (2, 1, "own", True)
    assert used(planned)["domains"] == (0, 3, "plan", False)
    planned.onehost.do("plan", "gold", "set", {"domains": 1})
    assert used(planned)["domains"] == (0, 1, "plan", False)
    assert used(planned)["ssh_keys"] == (0, None, None, False)
    assert used(planned)["shell"] == (False, False, "own", False)
    assert used(planned)["bandwidth_mib"] == (None, None, None, False)
    with pytest.raises(NotFound, match="bob"):
        planned.onehost.usage("bob")
    assert [each["account"] for each in planned.onehost.usage(plan="gold")] == ["alice"]
    planned.onehost.account_delete("alice")
    assert list(planned.onehost.usage()) == []
    stored(planned, "s1", [1, 1])
    assert planned.dump()["usage"] == []


def test_a_node_speaks_only_of_accounts_whose_files_it_keeps(planned: Store) -> None:
    alice, node = planned.id("account", "alice"), planned.id("node", "w1")
    stored(planned, "w1", [alice, 77 << 20])
    stored(planned, "s1", [node, 1], [999999, 1])
    planned.onehost.submit([cron(1)])
    stored(planned, "s1", [planned.id("cron", "alice.c1"), 1])
    assert used(planned)["storage_mib"][0] is None
    lie = planned.letter("s1", {"form": "usage", "stored": [[alice, -1]], "at": 0})
    assert planned.say(lie) == [lie] and planned.dump()["usage"] == []


def test_what_a_node_has_measured_arrives(cluster: Cluster) -> None:
    receipt = cluster.onehost.account_create("alice")
    cluster.onehost.wait(receipt)
    body = {"stored": [[receipt.resource_id, 9 << 20]], "at": time.time()}
    cluster.workers["store1"].reporter.usage("stored", [body])
    wait_until(lambda: cluster.onehost.usage("alice")[0]["limits"]["storage_mib"]["used"] == 9)


def test_a_thousand_take_hardly_more_statements_than_ten(planned: Store) -> None:
    names = [f"acc{number}" for number in range(50)]
    planned.onehost.do("plan", "big", "create", {"domains": 21})
    planned.onehost.submit([Wish("account", name, "create", {"domain": None, "plan": "big"}, "test") for name in names])
    said: list[str] = []
    event.listen(planned.engine, "before_cursor_execute", lambda c, cursor, words, *more: said.append(words))
    planned.onehost.submit([domain(0, name) for name in names[:10]])
    ten, _ = len(said), said.clear()
    planned.onehost.submit([domain(number, name) for number in range(1, 20) for name in names])
    # The name above each domain is looked up by itself.
    looked_up = sum("FROM resource" in words and "claim.kind" in words for words in said)
    assert len(said) - looked_up < 2 * ten
    refused(planned, Refused, "acc3 has 21 of 21 domains", *(domain(number, "acc3") for number in (30, 31, 32)))
