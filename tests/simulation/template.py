"""A small quiet cluster, made once: each history starts from a copy of its store, its ledgers and its machines."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine

from onehost import migrations
from onehost.broker_config.consumer import Delivery
from onehost.models.store import engine as store_engine

from .machine import Machine

#: Storage and director, and two that serve.
ROLES = {"s1": ["storage", "director"], "w1": ["web", "ssh"], "w2": ["web", "ssh"]}


class StoreFile:
    """The manager's store: one connection for the whole run, so that statements are compiled once."""

    def __init__(self, folder: Path) -> None:
        path = folder / "store.db"
        migrations.upgrade(f"sqlite:///{path}")
        # Power cuts of the machine are not simulated, those of processes are: a rollback must work, no more.
        self.engine: Engine = store_engine.sqlite(
            f"sqlite:///{path}", synchronous="OFF", journal_mode="MEMORY", locking_mode="EXCLUSIVE"
        )
        with self.engine.connect() as connection:
            self.raw: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]

    def save(self) -> sqlite3.Connection:
        """A copy in memory."""
        copy = sqlite3.connect(":memory:")
        self.raw.backup(copy)
        return copy

    def restore(self, copy: sqlite3.Connection) -> None:
        copy.backup(self.raw)

    def close(self) -> None:
        self.engine.dispose()


@dataclass
class Template:
    """What a history starts with."""

    folder: Path
    store: StoreFile
    empty_ledger: bytes
    saved: sqlite3.Connection
    ledgers: dict[str, bytes] = field(default_factory=dict)
    machines: dict[str, Machine] = field(default_factory=dict)
    #: Letters that each queue has held.
    past: dict[str, list[Delivery]] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path) -> Template:
        """A migrated store and an empty ledger; no nodes yet."""
        store = StoreFile(folder)
        migrations.upgrade(f"sqlite:///{folder}/empty.db", "ledger")
        return cls(folder, store, (folder / "empty.db").read_bytes(), store.save())

    def close(self) -> None:
        self.saved.close()
        self.store.close()
        shutil.rmtree(self.folder)
