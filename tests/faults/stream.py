"""A panel under way: a seeded stream of wishes about a few names, each recorded with its outcome."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from onehost.models.errors import Refused, Unreachable
from onehost.models.store import Job, Revision, reading
from onehost.producer import Onehost
from onehost.producer.submit import Wish

from .model import BARE, Call, Model

NAMES = ("ann", "bob", "cleo", "dan", "eve", "fay", "gus", "hal")
#: A name that is only ever asked for and taken back: nobody may hear of it.
GHOST = "ghost"
HASHES = tuple(f"$6$saltsalt${chr(97 + number) * 86}" for number in range(4))


class Stream:
    """Submits until told to end. One thread, so that the model knows the order."""

    def __init__(self, onehost: Onehost, model: Model, seed: str, *, pause_seconds: float = 0.05) -> None:
        self._onehost = onehost
        self.model = model
        self._chance = random.Random(seed)
        self._prefix = f"{seed}.{time.time_ns():x}"
        self._pause_seconds = pause_seconds
        self._stop = threading.Event()
        self._moved = threading.Condition()
        self._turning = threading.RLock()
        self.calls: list[Call] = []
        #: Calls that the store did not answer.
        self.unreached = 0
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait_for(self, calls: int, seconds: float = 60.0) -> None:
        """Waits until so many more calls are answered."""
        until, goal = time.monotonic() + seconds, len(self.calls) + calls
        with self._moved:
            while len(self.calls) < goal and not self.error and time.monotonic() < until:
                self._moved.wait(0.1)
        if self.error:
            raise self.error
        assert len(self.calls) >= goal, f"the panel stands still after {len(self.calls)} calls"

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nobody wishes anything while the block runs."""
        with self._turning:
            yield

    def halt(self) -> None:
        """No more wishes, whatever the last one comes to."""
        self._stop.set()

    def end(self) -> None:
        """No more wishes; raises what the stream found wrong."""
        self._stop.set()
        self._thread.join(90)
        assert not self._thread.is_alive(), "a submit never came back"
        if self.error:
            raise self.error

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                with self._turning:
                    self._turn()
                self._stop.wait(self._chance.random() * self._pause_seconds)
        except BaseException as error:
            self.error = error
        with self._moved:
            self._moved.notify_all()

    def _turn(self) -> None:
        kind = self._chance.random()
        if kind < 0.08:
            self._ghost()
        elif kind < 0.2:
            self._many()
        else:
            call = self._call(self._chance.choice(NAMES))
            self._submit([call])
            if call.outcome == "ok" and call.job_id and self._chance.random() < 0.1:
                self._again(call)

    def _many(self) -> None:
        """Several wishes in one transaction: all or nothing."""
        names = self._chance.sample(NAMES, 3)
        calls = [self._call(name, alone=False) for name in names]
        self._submit(calls)

    def _submit(self, calls: list[Call]) -> None:
        lawful = [self.model.foretell(call) for call in calls]
        try:
            receipts = self._onehost.submit([self._wish(call) for call in calls])
        except Refused as error:
            for call in calls:
                call.outcome, call.words = "refused", error.what
            assert any("refused" in each for each in lawful), f"refused without a reason: {calls[0]}"
        except (Unreachable, SQLAlchemyError) as error:
            self.unreached += 1
            for call in calls:
                call.outcome, call.words = "unknown", str(error)[:200]
            self._resolve(calls)
        else:
            for call, receipt in zip(calls, receipts, strict=True):
                call.resource_id, call.generation, call.job_id = (
                    receipt.resource_id, receipt.generation, receipt.job_id
                )  # fmt: skip
                call.outcome = "ok"
            assert all("ok" in each for each in lawful), f"should have been refused: {calls[0]}"
        finally:
            self._note(calls)

    def _resolve(self, calls: list[Call]) -> None:
        """Whether a call without an answer was carried out: by its key, as soon as the store answers."""
        while True:
            try:
                with reading(self._onehost.engine) as connection:
                    for call in calls:
                        job = connection.execute(select(Job).where(Job.idempotency_key == call.key)).one_or_none()
                        if job:
                            call.resource_id, call.generation, call.job_id = job.resource_id, job.generation, job.id
                        call.words = f"unknown at first; {'done' if job else 'not done'}"
            except (Unreachable, SQLAlchemyError):
                if self._stop.wait(0.1):
                    time.sleep(0.1)
                continue
            break
        done = [call for call in calls if call.job_id]
        for call in calls:
            call.outcome = "ok" if call.job_id else "lost"
        # One that changes nothing has no job; all others stand or fall together.
        assert not done or len(done) == len(calls) or len(calls) > 1, calls
        if done:
            for call in calls:
                if not call.job_id:
                    call.outcome = "nothing"

    def _note(self, calls: list[Call]) -> None:
        for call in calls:
            if call.outcome == "ok":
                self.model.take(call)
        with self._moved:
            self.calls += calls
            self._moved.notify_all()

    def _again(self, call: Call) -> None:
        """The same wish with the same key is the same job."""
        try:
            receipt = self._onehost.submit([self._wish(call)])[0]
        except (Unreachable, SQLAlchemyError):
            return
        assert receipt.job_id == call.job_id, f"P3: done twice: {call}, {receipt}"

    def _ghost(self) -> None:
        """Submitted the whole way, then taken back: a dry run, and a batch whose last wish is refused."""
        try:
            self._onehost.submit([Wish("account", GHOST, "create", {}, "ghost")], dry_run=True)
        except (Unreachable, SQLAlchemyError):
            return
        try:
            self._onehost.submit([Wish("account", GHOST, "create", {}, "ghost"),
                                  Wish("account", "nobody", "set", {"php": False}, "ghost")])  # fmt: skip
        except (Refused, Unreachable, SQLAlchemyError):
            return
        raise AssertionError("P2: half a batch was taken")

    def _wish(self, call: Call) -> Wish:
        return Wish("account", call.name, call.verb, call.fields, "stream", idempotency_key=call.key)

    def _call(self, name: str, *, alone: bool = True) -> Call:
        """A likely wish about a name. In a batch only what surely fits: one refusal would take back all."""
        life, chance = self.model.living(name), self._chance
        verbs: dict[str, int] = {"create": 1, "set": 1}
        if life:
            verbs = {"set": 8, "passwd": 3, "suspend": 2, "unsuspend": 2, "delete": 3, "retry": 2, "create": 1}
            if alone and name in self.model.last_job:
                verbs["cancel"] = 2
        elif alone:
            verbs = {"create": 10, "set": 1, "delete": 1, "retry": 1}
        if not alone:
            verbs = {"suspend": 1, "unsuspend": 1, "passwd": 3, "set": 3} if life else {"create": 1}
        (verb,) = chance.choices([*verbs], [*verbs.values()])
        key = f"{self._prefix}.{len(self.calls)}.{name}"
        fields = self._fields(name, verb)
        if not alone:
            fields.pop("domain", None)
        return Call(verb, name, fields, key)

    def _fields(self, name: str, verb: str) -> dict[str, Any]:
        chance = self._chance
        own = f"{name}.example.com"
        makers: dict[str, Callable[[], Any]] = {
            # Now and then somebody else's.
            "domain": lambda: chance.choice([own, own, f"{name}2.example.com", f"{chance.choice(NAMES)}.example.com"]),
            "document_root": lambda: chance.choice(["web", "public", "web/deep"]),
            "php": lambda: chance.random() < 0.5,
            "access": lambda: chance.choice(["none", "sftp", "shell"]),
        }
        if verb == "create":
            return {"domain": own, "password_hash": chance.choice(HASHES)}
        if verb == "passwd":
            return {"password_hash": chance.choice(HASHES)}
        if verb == "cancel":
            return {"job": self.model.last_job[name]}
        if verb == "set":
            return {key: makers[key]() for key in chance.sample(sorted(makers), chance.randint(1, 2))}
        return {}


def revisions(onehost: Onehost) -> set[tuple[int, int]]:
    """Every (resource id, generation) of the store."""
    with reading(onehost.engine) as connection:
        return {(row.resource_id, row.generation) for row in connection.execute(select(Revision))}


__all__ = ["BARE", "GHOST", "NAMES", "Stream", "revisions"]
