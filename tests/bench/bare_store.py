"""The store of the bare reference: the least SQL that keeps the numbers of design section 4, by hand, one commit each.

No audit trail but one row for each acknowledgement, no stages, no claims, no checks.
"""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TABLES = """
CREATE TABLE resource (id {number} PRIMARY KEY, generation {number} NOT NULL);
CREATE TABLE revision (resource_id {number}, generation {number}, payload {bytes},
    PRIMARY KEY (resource_id, generation));
CREATE TABLE placement (resource_id {number}, node_id {number}, wanted {number} NOT NULL, sent {number} DEFAULT 0,
    done {number} DEFAULT 0, outcome {number} DEFAULT 0, PRIMARY KEY (resource_id, node_id));
CREATE INDEX outbox ON placement (node_id, resource_id) WHERE sent < wanted;
CREATE INDEX open ON placement (node_id, resource_id) WHERE done < wanted;
CREATE TABLE job (id {serial}, resource_id {number}, generation {number}, targets {number}, applied {number} DEFAULT 0,
    ended_at {number});
CREATE INDEX job_open ON job (resource_id, generation) WHERE ended_at IS NULL;
CREATE TABLE event (id {serial}, node_id {number}, epoch {number}, number {number}, body {bytes},
    UNIQUE (node_id, epoch, number));
"""
PAYLOAD = b'{"access":"sftp","document_root":"web","domain":"%s.example.com","gid":20001,"php":true,"shard":0,' \
          b'"ssh_keys":[],"suspended":false,"uid":20001,"generation":%d}'  # fmt: skip


def payload(resource_id: int, generation: int) -> bytes:
    """A spec as large as an account's."""
    return PAYLOAD % (f"account{resource_id}".encode(), generation)


class PostgreSQL:
    """By psycopg; every method is one transaction and at most a handful of round trips, however many rows.

    Placements are locked in the order of their keys by everybody, else they wait for each other in rings.
    """

    def __init__(self, conninfo: str) -> None:
        import psycopg

        self.db = psycopg.connect(conninfo)

    def create(self, resources: int, nodes: int) -> None:
        words = {"number": "bigint", "bytes": "bytea", "serial": "bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"}
        self.db.execute(TABLES.format(**words))
        self.db.execute("INSERT INTO resource SELECT r, 0 FROM generate_series(1, %s) r", (resources,))
        self.db.execute(
            "INSERT INTO placement (resource_id, node_id, wanted) SELECT r, n, 0 FROM generate_series(1, %s) r,"
            " generate_series(1, %s) n", (resources, nodes),
        )  # fmt: skip
        self.db.commit()

    def submit(self, ids: Sequence[int]) -> None:
        rows = self.db.execute(
            "UPDATE resource SET generation = generation + 1 WHERE id = ANY(%s) RETURNING id, generation", (list(ids),)
        ).fetchall()
        given = ([r for r, _ in rows], [g for _, g in rows], [payload(r, g) for r, g in rows])
        self.db.execute(
            """WITH v AS (SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bytea[]) v(r, g, payload)),
               held AS (SELECT p.resource_id, p.node_id FROM placement p JOIN v ON p.resource_id = v.r
                        ORDER BY 1, 2 FOR UPDATE OF p),
               rev AS (INSERT INTO revision SELECT r, g, payload FROM v),
               p AS (UPDATE placement p SET wanted = v.g, outcome = 0 FROM held JOIN v ON v.r = held.resource_id
                     WHERE p.resource_id = held.resource_id AND p.node_id = held.node_id
                     RETURNING p.resource_id, v.g),
               j AS (INSERT INTO job (resource_id, generation, targets)
                     SELECT resource_id, g, count(*) FROM p GROUP BY resource_id, g)
               INSERT INTO event (body) SELECT payload FROM v""", given,
        )  # fmt: skip
        self.db.execute("NOTIFY bare")
        self.db.commit()

    def waiting(self) -> list[Any]:
        rows = self.db.execute(
            """SELECT p.resource_id, p.node_id, p.wanted, r.payload FROM placement p
               JOIN revision r ON r.resource_id = p.resource_id AND r.generation = p.wanted
               WHERE p.sent < p.wanted ORDER BY p.node_id, p.resource_id LIMIT 1000"""
        ).fetchall()
        self.db.rollback()
        return rows

    def mark(self, rows: Sequence[Any]) -> None:
        self.db.execute(
            """WITH v AS (SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) v(r, n, g)),
               held AS (SELECT p.resource_id, p.node_id, v.g FROM placement p
                        JOIN v ON p.resource_id = v.r AND p.node_id = v.n ORDER BY 1, 2 FOR UPDATE OF p)
               UPDATE placement p SET sent = held.g FROM held
               WHERE p.resource_id = held.resource_id AND p.node_id = held.node_id AND p.sent < held.g""",
            [list(column) for column in list(zip(*rows, strict=True))[:3]],
        )
        self.db.commit()

    def acknowledge(self, acks: Sequence[tuple[Any, ...]]) -> None:
        """`acks`: (resource, node, generation, epoch, number, body)."""
        self.db.execute(
            """WITH v AS (SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
                                               %s::bytea[]) v(r, n, g, e, num, body)),
               new AS (INSERT INTO event (node_id, epoch, number, body) SELECT n, e, num, body FROM v
                       ON CONFLICT DO NOTHING),
               newest AS (SELECT r, n, max(g) AS g FROM v GROUP BY r, n),
               held AS (SELECT p.resource_id AS r, p.node_id AS n, v.g FROM placement p
                        JOIN newest v ON p.resource_id = v.r AND p.node_id = v.n ORDER BY 1, 2 FOR UPDATE OF p),
               up AS (UPDATE placement p SET done = v.g, outcome = 1 FROM held v
                      WHERE p.resource_id = v.r AND p.node_id = v.n AND v.g > p.done AND v.g <= p.wanted
                      RETURNING p.resource_id, v.g),
               cnt AS (SELECT j.id, count(*) AS a FROM up JOIN job j ON j.resource_id = up.resource_id
                       AND j.generation = up.g AND j.ended_at IS NULL GROUP BY j.id)
               UPDATE job j SET applied = applied + a, ended_at = CASE WHEN applied + a >= targets THEN 1 END
               FROM cnt WHERE cnt.id = j.id""",
            [list(column) for column in zip(*acks, strict=True)],
        )
        self.db.commit()


class SQLite:
    """By sqlite3: WAL, durable commits, BEGIN IMMEDIATE, executemany."""

    def __init__(self, path: str) -> None:
        self.bell = Path(f"{path}.bell")
        self.db = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")

    def create(self, resources: int, nodes: int) -> None:
        words = {"number": "integer", "bytes": "blob", "serial": "integer PRIMARY KEY AUTOINCREMENT"}
        self.db.executescript(TABLES.format(**words))
        self.db.execute("BEGIN")
        self.db.executemany("INSERT INTO resource VALUES (?, 0)", ((r + 1,) for r in range(resources)))
        pairs = ((r + 1, n + 1) for r in range(resources) for n in range(nodes))
        self.db.executemany("INSERT INTO placement (resource_id, node_id, wanted) VALUES (?, ?, 0)", pairs)
        self.db.execute("COMMIT")

    def submit(self, ids: Sequence[int]) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        for r in ids:
            g = self.db.execute("UPDATE resource SET generation = generation + 1 WHERE id = ? RETURNING generation",
                                (r,)).fetchone()[0]  # fmt: skip
            self.db.execute("INSERT INTO revision VALUES (?, ?, ?)", (r, g, payload(r, g)))
            done = self.db.execute("UPDATE placement SET wanted = ?, outcome = 0 WHERE resource_id = ?", (g, r))
            self.db.execute(
                "INSERT INTO job (resource_id, generation, targets) VALUES (?, ?, ?)", (r, g, done.rowcount)
            )
            self.db.execute("INSERT INTO event (body) VALUES (?)", (payload(r, g),))
        self.db.execute("COMMIT")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell:
            bell.sendto(b"1", str(self.bell))

    def waiting(self) -> list[Any]:
        return self.db.execute(
            """SELECT p.resource_id, p.node_id, p.wanted, r.payload FROM placement p
               JOIN revision r ON r.resource_id = p.resource_id AND r.generation = p.wanted
               WHERE p.sent < p.wanted ORDER BY p.node_id, p.resource_id LIMIT 1000"""
        ).fetchall()

    def mark(self, rows: Sequence[Any]) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany("UPDATE placement SET sent = ?1 WHERE resource_id = ?2 AND node_id = ?3 AND sent < ?1",
                            [(g, r, n) for r, n, g, _ in rows])  # fmt: skip
        self.db.execute("COMMIT")

    def acknowledge(self, acks: Sequence[tuple[Any, ...]]) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany(
            "INSERT INTO event (node_id, epoch, number, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [(n, e, number, body) for _, n, _, e, number, body in acks],
        )
        crossed: dict[tuple[int, int], int] = {}
        for r, n, g, *_ in acks:
            done = self.db.execute(
                "UPDATE placement SET done = ?1, outcome = 1 WHERE resource_id = ?2 AND node_id = ?3 AND done < ?1"
                " AND wanted >= ?1", (g, r, n),
            )  # fmt: skip
            crossed[r, g] = crossed.get((r, g), 0) + done.rowcount
        self.db.executemany(
            "UPDATE job SET applied = applied + ?3, ended_at = CASE WHEN applied + ?3 >= targets THEN 1 END"
            " WHERE resource_id = ?1 AND generation = ?2 AND ended_at IS NULL",
            [(r, g, count) for (r, g), count in crossed.items()],
        )
        self.db.execute("COMMIT")


def connect(url: str) -> PostgreSQL | SQLite:
    """A store by what tells one from the other: a path, or words for psycopg."""
    return SQLite(url) if url.startswith("/") else PostgreSQL(url)
