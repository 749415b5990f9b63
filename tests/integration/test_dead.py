"""Dead letters on a real broker: what nobody takes in ends in the store, is shown, sent again, or dropped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from onehost.broker_config import routing
from onehost.broker_config.consumer import Consumer, Delivery
from onehost.broker_config.credentials import secret
from onehost.broker_config.letters import Letter
from onehost.broker_config.management import Management
from onehost.broker_config.publisher import Publisher
from onehost.models import settings, wire
from onehost.models.moment import now
from onehost.models.store import Action, Dead, connect, reading, writing
from onehost.producer import EventFilter, dead, main
from onehost.producer.audit import QUEUES, Audit
from onehost.producer.main import Duties
from onehost.producer.presence import Presence

from .command_line import CommandLine
from .conftest import Cluster, Process, wait_until
from .manager import Store

#: What would be shown if somebody printed a letter as it is.
HASH = "$6$salt$verysecret"


@pytest.fixture
def onehost(cluster: Cluster, tmp_path: Path) -> CommandLine:
    """The command line of a running cluster, whose processes have said on standard output that they consume."""
    wait_until(lambda: cluster.presence.heard)
    made = CommandLine(tmp_path)
    made.config.write_text(f'store = "{cluster.settings.store}"\n')
    return made


@pytest.fixture
def line(store: Store, tmp_path: Path) -> Iterator[CommandLine]:
    """The command line of a store without a broker."""
    made = CommandLine(tmp_path)
    made.config.write_text(f'store = "{store.onehost.settings.store}"\n')
    yield made


def listed(onehost: CommandLine, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(onehost.good("dead", "list", "-o", "json", *words))
    return found


def publish(cluster: Cluster, user: str, password_file: Path, exchange: str, letter: Letter) -> None:
    own = settings.Broker(cluster.settings.broker.host, cluster.settings.broker.port, "onehost", user, password_file)
    publisher = Publisher(own, exchange)
    assert publisher.send([letter]).sent == [letter.message_id]
    publisher.close()


def kinds(store: Any) -> list[str]:
    return [event["kind"] for event in store.events(EventFilter(kind="dead.*"), None)][::-1]


@pytest.mark.broker
def test_poison_of_an_administrator_and_of_a_node_is_kept_shown_retried_and_dropped(
    cluster: Cluster, onehost: CommandLine
) -> None:
    admin = Management(cluster.settings.management, "topology", secret(cluster.settings.secrets / "topology"))
    admin.post("exchanges", "onehost", routing.JOBS, "publish", body={
        "routing_key": "account.web1.create", "payload": "no letter at all", "payload_encoding": "string",
        "properties": {"message_id": "poison\0 1"}})  # fmt: skip
    wait_until(lambda: listed(onehost))
    publish(cluster, "node-web2", cluster.folder / "web2.password", routing.EVENTS,
            Letter("poison 2", "ack.web2.account", b"x" * wire.MAX_BODY_BYTES))  # fmt: skip
    wait_until(lambda: len(listed(onehost)) == 2)

    second, first = listed(onehost)
    assert (first["queue"], first["user"], first["routing_key"]) == ("onehost.node.web1", "", "account.web1.create")
    assert first["why"].startswith("rejected: not a letter") and first["message_id"].startswith("poison")
    assert (second["queue"], second["user"]) == ("onehost.audit", "node-web2")
    assert second["size_bytes"] == wire.MAX_BODY_BYTES
    assert [each["id"] for each in listed(onehost, "--user", "node-web2")] == [second["id"]]
    assert listed(onehost, "--queue", "onehost.node.web1", "--state", "kept") == [first]
    assert listed(onehost, "--before", str(second["id"])) == [first] == listed(onehost, "--limit", "2")[1:]
    assert "no letter at all" in onehost.good("dead", "show", str(first["id"]))

    # The relay lends its name to nobody.
    done = onehost.run("dead", "retry", str(first["id"]))
    assert done.exit_code == 3 and "not sent by the relay but by nobody" in done.stderr
    # What is no letter is none at the second look either.
    onehost.good("dead", "retry", str(second["id"]))
    refused = EventFilter(kind="bus.refuse", actor="node-web2")
    wait_until(lambda: len(list(cluster.onehost.events(refused))) == 2)
    wait_until(lambda: [each["state"] for each in listed(onehost)] == ["kept", "kept"])

    done = onehost.run("dead", "drop", "--all")
    assert done.exit_code == 3 and "2 dead letters" in done.stderr and "--yes 2" in done.stderr
    assert onehost.run("dead", "drop", "--all", "--yes", "3").exit_code == 3
    onehost.good("dead", "drop", "--all", "--yes", "2")
    assert {(each["state"], each["actor"]) for each in listed(onehost)} == {("dropped", "tester")}
    assert onehost.run("dead", "retry", str(first["id"])).exit_code == 5
    assert kinds(cluster.onehost) == ["dead.keep", "dead.keep", "dead.retry", "dead.drop", "dead.drop"]
    assert cluster.onehost.verify().problem == ""


@pytest.mark.broker
def test_a_letter_of_the_relay_that_died_reaches_its_node_again(cluster: Cluster, onehost: CommandLine) -> None:
    receipt = cluster.onehost.account_create("alice", domain="alice.example", password="a long secret")
    cluster.onehost.wait(receipt, seconds=30)
    # As if a worker of an older release had refused it: the same letter, straight into the dead-letter exchange.
    body = wire.apply_letter(
        b'{"domain":"alice.example"}', node="web1", id=receipt.resource_id, noun="account", version=[1, 0],
        name="alice", generation=1, incarnation=0, secrets={"password_hash": HASH}, roles=["web"],
    )  # fmt: skip
    death = {"x-death": [{"queue": "onehost.node.web1", "reason": "delivery_limit", "count": 101}]}
    with_death = Delivery("onehost.dead", "account.web1.create", "relay", "1.2.3", body, False, death)
    assert Duties(cluster.onehost.engine, cluster.presence)._audit.store([with_death]) == []
    (found,) = listed(onehost)
    assert found["why"].startswith("delivery_limit after 101 deliveries: a letter of form apply about node web1")
    shown = onehost.good("dead", "show", str(found["id"]))
    assert "alice.example" in shown and HASH not in shown

    arrived: list[str] = []
    receiver = cluster.workers["web1"].receiver
    take_in = receiver.store
    receiver.consumer._store = lambda batch: [arrived.append(each.user) for each in batch] and take_in(batch)
    onehost.good("dead", "retry", str(found["id"]))
    wait_until(lambda: "relay" in arrived)
    assert listed(onehost)[0]["state"] == "retried"
    assert cluster.onehost.get("account", "alice")["open"] == 0


def test_a_letter_from_a_node_is_taken_in_again_under_its_own_name(store: Store, line: CommandLine) -> None:
    receipt = store.onehost.account_create("alice", domain="alice.example")
    for node in ("s1", "w1"):
        store.ack(node, receipt.resource_id, 1)
    sent = store.acked("w2", receipt.resource_id, 1)
    death = {"x-death": [{"queue": "onehost.audit", "reason": "delivery_limit", "count": 101}]}
    for redelivered in (False, True):  # the connection broke before it was settled: it is the same letter
        store.say(Delivery("onehost.dead", sent.routing_key, sent.user, "7.1", sent.body, redelivered, death))
    forged = store.letter("w2", json.loads(sent.body), user="node-w1")
    store.say(Delivery("onehost.dead", "ack.w2.account", forged.user, "7.1", forged.body, False, death))
    stolen, own = listed(line)
    assert (own["user"], stolen["user"]) == ("node-w2", "node-w1")

    assert "2 dead letters" in line.run("dead", "retry", "--all").stderr
    line.good("dead", "retry", "--all", "--queue", "onehost.audit", "--yes", "2")
    assert store.targets(receipt.job_id)["w2"] == "waiting"
    Duties(store.engine, Presence(15.0)).once()
    assert store.targets(receipt.job_id)["w2"] == "applied"
    assert [each["state"] for each in listed(line)] == ["kept", "retried"]


@pytest.mark.parametrize("headers", [
    {}, {"x-death": "x"}, {"x-death": []}, {"x-death": [7]}, {"x-death": [{"queue": None, "count": "many"}]},
    {"x-death": [{"queue": "q" * 4000, "reason": ["\0"], "count": -1}]},
], ids=str)  # fmt: skip
def test_nothing_that_a_sender_can_write_keeps_a_letter_out(store: Store, headers: dict[str, Any]) -> None:
    bodies = [
        b"",
        b"\xff\0",
        b"[" * 100_000,
        b"x" * (2 << 20),
        b'{"form":"ack","node":"w1"}',
        "\ud800".encode("utf-8", "surrogatepass"),
    ]
    store.say(*(Delivery("onehost.dead", "\0key", "", "id\ud800", body, False, headers) for body in bodies))
    with reading(store.engine) as connection:
        rows = connection.execute(select(Dead).order_by(Dead.id)).all()
    assert [row.size_bytes for row in rows] == [len(body) for body in bodies]
    assert max(len(row.body) for row in rows) == wire.MAX_BODY_BYTES


def test_a_cut_letter_and_one_for_a_node_that_is_gone_are_not_sent_again(store: Store, line: CommandLine) -> None:
    death = {"x-death": [{"queue": "onehost.node.w9", "reason": "rejected", "count": 1}]}
    hail = wire.encode(form="hail", node="w9")
    store.say(Delivery("onehost.dead", "hello.w9.hail", "relay", "m", hail, False, death),
              Delivery("onehost.dead", "hello.w9.hail", "relay", "m", b"x" * (2 << 20), False, death))  # fmt: skip
    done = line.run("dead", "retry", "--all", "--yes", "2", "-o", "json")
    refused = json.loads(done.stdout)["refused"]
    assert done.exit_code == 3
    assert "is cut: 2097152 bytes arrived" in refused[0] and "for a node w9 that is gone" in refused[1]
    with reading(store.engine) as connection:
        assert not [body for body in connection.execute(select(Action.body)).scalars() if b'"w9"' in body]


def test_a_flood_does_not_fill_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead, "FLOOD", 3)
    for number in range(5):
        body = b"%d" % number * 5000
        store.say(Delivery("onehost.dead", "ack.w1.account", "node-w1", str(number), body, False, {}))
    with reading(store.engine) as connection:
        kept = connection.execute(select(Dead.body).order_by(Dead.id)).scalars().all()
    assert [len(body) for body in kept] == [5000] * 4 + [dead.SHORT_BYTES]


def test_old_letters_that_were_decided_on_are_forgotten_and_their_events_stay(store: Store) -> None:
    for number in range(3):
        store.say(Delivery("onehost.dead", "ack.w1.account", "node-w1", str(number), b"x%d" % number, False, {}))
    long_ago = now() - timedelta(days=91)
    with writing(store.engine) as connection:
        ids = connection.execute(select(Dead.id).order_by(Dead.id)).scalars().all()
        for dead_id in ids[1:]:
            dead.drop(connection, dead_id, "root", now())
        connection.execute(update(Dead).where(Dead.id != ids[2]).values(at=long_ago, state_at=long_ago))
    before = kinds(store.onehost)
    Duties(store.engine, Presence(15.0)).once()
    with reading(store.engine) as connection:
        assert len(dead.letters(connection, dead.DeadFilter())) == 3, "nothing is forgotten unless it is said"

    Duties(store.engine, Presence(15.0), dead_kept_days=90).once()
    with reading(store.engine) as connection:
        left = dead.letters(connection, dead.DeadFilter())
    assert [(each["id"], each["state"]) for each in left] == [(ids[2], "dropped"), (ids[0], "kept")]
    assert kinds(store.onehost) == before


@pytest.mark.broker
def test_what_died_while_the_store_was_away_waits_in_its_queue(
    cluster: Cluster, onehost: CommandLine, tmp_path: Path
) -> None:
    cluster.processes.pop("audit").stop()
    admin = Management(cluster.settings.management, "topology", secret(cluster.settings.secrets / "topology"))
    for number in range(3):
        admin.post("exchanges", "onehost", routing.DEAD, "publish", body={
            "routing_key": "x", "payload": str(number), "payload_encoding": "string", "properties": {}})  # fmt: skip
    away = connect(f"sqlite:///{tmp_path}/nowhere/store.db")
    said: list[str] = []

    def consumer(engine: Any) -> Process:
        made = Consumer(cluster.settings.as_user("audit"), QUEUES, Audit(engine, cluster.presence).store,
                        ready=lambda: main._reach(engine), on_state=said.append, idle_seconds=0.1)  # fmt: skip
        return Process(made.run)

    waiting = consumer(away)
    wait_until(lambda: len(said) > 1)
    waiting.stop()
    assert "consuming" not in said and "store" in said[0]
    with writing(cluster.onehost.engine) as connection:
        connection.execute(delete(Dead))
    cluster.processes["audit"] = consumer(cluster.onehost.engine)
    wait_until(lambda: len(listed(onehost)) == 3)
    assert {each["why"].partition(":")[0] for each in listed(onehost)} == {"sent here by hand"}
