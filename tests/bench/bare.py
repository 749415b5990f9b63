"""The bare reference: what the same messages cost with bare pika, hand-written SQL and the same durable commits.

    bare.py relay|audit|nodes CONFIG.json

One process as relay, one as audit, and processes that share the nodes as the measured ones do. A letter costs the same
commits: the submit, the mark of the relay (a batch), on the node arrival, start and outcome, and the audit's (a batch).
"""

from __future__ import annotations

import json
import select
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bare_store
import pika

VHOST, USER, JOBS, ACKS = "bare", "bare", "bare.jobs", "bare.audit"
WINDOW = 500


def where(port: int) -> pika.ConnectionParameters:
    """How the reference reaches the broker."""
    who = pika.PlainCredentials(USER, USER)
    return pika.ConnectionParameters(port=port, virtual_host=VHOST, credentials=who, heartbeat=60)


class Link:
    """One connection; what arrives is gathered into batches, what is sent is confirmed in a window."""

    def __init__(self, port: int) -> None:
        self.connection = pika.BlockingConnection(where(port))
        self.channel = self.connection.channel()
        self.out = self.connection.channel()
        self.flight: set[int] = set()
        self.tag = 0
        self.box: list[tuple[int, bytes]] = []
        # Below BlockingChannel's own confirm_delivery, which would wait for each message by itself.
        self.out._impl.confirm_delivery(self._settled, callback=lambda _: None)
        self.connection.process_data_events(0.1)

    def _settled(self, frame: Any) -> None:
        tag = frame.method.delivery_tag
        self.flight -= {each for each in self.flight if each <= tag} if frame.method.multiple else {tag}

    def publish(self, exchange: str, letters: Sequence[tuple[str, bytes]]) -> None:
        how = pika.BasicProperties(delivery_mode=2, content_type="application/json", message_id="x", type="account.set",
                                   user_id=USER, timestamp=int(time.time()))  # fmt: skip
        for key, body in letters:
            if len(self.flight) >= WINDOW:
                self._read_until(lambda: len(self.flight) < WINDOW)
            self.tag += 1
            self.flight.add(self.tag)
            self.out.basic_publish(exchange, key, body, how, mandatory=True)
        self._read_until(lambda: not self.flight)

    def _read_until(self, is_true: Callable[[], bool]) -> None:
        # process_data_events() would sleep through a confirmation: it wakes for deliveries alone.
        self.connection._flush_output(is_true)

    def consume(self, queue: str, prefetch: int) -> None:
        self.channel.basic_qos(prefetch_count=prefetch)
        self.channel.basic_consume(queue, lambda _c, m, _p, body: self.box.append((m.delivery_tag, body)))

    def batch(self) -> list[bytes]:
        self.connection.process_data_events(5.0)
        return [body for _, body in self.box]

    def settle(self) -> None:
        self.channel.basic_ack(self.box[-1][0], multiple=True)
        self.box.clear()


def relay(config: dict[str, Any]) -> None:
    link, store = Link(config["port"]), bare_store.connect(config["store"])
    names, wait = config["nodes"], _bell(store)
    print("ready", flush=True)
    while True:
        while rows := store.waiting():
            link.publish(JOBS, [(f"account.{names[n - 1]}.set", _letter(r, names[n - 1], g, p)) for r, n, g, p in rows])
            store.mark(rows)
        while not wait(1.0):
            link.connection.process_data_events(0)


def _letter(resource_id: int, node: str, generation: int, payload: bytes) -> bytes:
    envelope = {"form": "apply", "node": node, "id": resource_id, "noun": "account", "version": [1, 0], "job": 4711,
                "name": f"account{resource_id}", "generation": generation, "incarnation": 0, "verb": "set",
                "replaces": 0, "roles": ["ssh", "web"], "hash": "0" * 64, "key": None, "signature": None, "secrets": {},
                "have": [1 << 61, 4711]}  # fmt: skip
    return json.dumps(envelope, separators=(",", ":")).encode()[:-1] + b',"payload":' + payload + b"}"


def _bell(store: Any) -> Callable[[float], bool]:
    """Waits for the bell of a submit: NOTIFY, or a datagram."""
    if isinstance(store, bare_store.PostgreSQL):
        import psycopg

        ears = psycopg.connect(store.db.info.dsn, autocommit=True)
        ears.execute("LISTEN bare")
        return lambda seconds: bool(list(ears.notifies(timeout=seconds, stop_after=1)))
    bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    store.bell.unlink(missing_ok=True)
    bell.bind(str(store.bell))

    def heard(seconds: float) -> bool:
        rang = bool(select.select([bell], [], [], seconds)[0])
        return rang and bool(bell.recv(16))

    return heard


def audit(config: dict[str, Any]) -> None:
    link, store = Link(config["port"]), bare_store.connect(config["store"])
    numbers = {name: number + 1 for number, name in enumerate(config["nodes"])}
    link.consume(ACKS, 1000)
    print("ready", flush=True)
    while True:
        if batch := link.batch():
            acks = [(each["id"], numbers[each["node"]], each["generation"], each["epoch"], each["number"], body)
                    for body in batch for each in [json.loads(body)]]  # fmt: skip
            store.acknowledge(acks)
            link.settle()


ARRIVED = """INSERT INTO entry (id, wanted, spec) VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET
             wanted = excluded.wanted, spec = excluded.spec WHERE excluded.wanted > wanted"""


class Node:
    """One node: a ledger, a connection, a thread."""

    def __init__(self, name: str, folder: Path, port: int) -> None:
        self.name, self.epoch, self.number = name, time.time_ns(), 0
        self.link = Link(port)
        self.db = sqlite3.connect(folder / f"{name}.bare", isolation_level=None, check_same_thread=False)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute("CREATE TABLE IF NOT EXISTS entry (id INTEGER PRIMARY KEY, wanted, started, done, spec)")
        self.db.execute("CREATE TABLE IF NOT EXISTS ack (number INTEGER PRIMARY KEY, body)")
        self.link.consume(f"bare.{name}", 256)

    def run(self) -> None:
        while True:
            if batch := self.link.batch():
                self.take([json.loads(body) for body in batch])

    def take(self, letters: Sequence[dict[str, Any]]) -> None:
        """Arrival, start and outcome, each durable for the whole batch."""
        rows = [(each["id"], each["generation"], json.dumps(each["payload"])) for each in letters]
        self._commit(ARRIVED, rows)
        self.link.settle()
        keys = [(each["generation"], each["id"]) for each in letters]
        self._commit("UPDATE entry SET started = ? WHERE id = ?", keys)
        self.number += len(letters)
        acks = [_ack(self, each, self.number - at) for at, each in enumerate(reversed(letters))]
        self._commit("UPDATE entry SET done = ? WHERE id = ?", keys,
                     "INSERT INTO ack (body) VALUES (?)", [(body,) for body in acks])  # fmt: skip
        self.link.publish("", [(ACKS, body) for body in acks])

    def _commit(self, *work: Any) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        for statement, rows in zip(work[::2], work[1::2], strict=True):
            self.db.executemany(statement, rows)
        self.db.execute("COMMIT")


def _ack(node: Node, letter: dict[str, Any], number: int) -> bytes:
    body = {"form": "ack", "node": node.name, "epoch": node.epoch, "number": number, "incarnation": 0,
            "id": letter["id"], "noun": "account", "name": letter["name"], "generation": letter["generation"],
            "outcome": "applied", "reason": "", "difference": {"it": "changed"}, "at": time.time(),
            "seconds": {"compare": 0.0012345, "files": 0.00012345, "verify": 0.00012345, "settle": 0.00012345,
                        "node": 0.00212345, "ledger": 0.00312345}}  # fmt: skip
    return json.dumps(body).encode()


def nodes(config: dict[str, Any]) -> None:
    made = [Node(name, Path(config["folder"]), config["port"]) for name in config["mine"]]
    threads = [threading.Thread(target=node.run) for node in made]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    threads[0].join()


if __name__ == "__main__":
    {"relay": relay, "audit": audit, "nodes": nodes}[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()))
