"""What may be asked of the manager: what is wanted, where it stands, what happened, what nodes say. Changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from ..models import nouns, settings, states
from ..models.errors import TimedOut, Unreachable
from ..models.store import bells, connect, reading
from . import bulk, event_search, orphans, query, seal, usage
from .standing import standing
from .wish import Receipt

#: How long a node may take to look through all it holds, in seconds.
CHECK_SECONDS = 20.0
#: How long `wait` waits at most, in seconds, unless the caller says otherwise.
WAIT_SECONDS = 60.0


class Reader:
    """Answers from the store and from nodes. Every method raises Refused (Invalid, NotFound) or Unreachable."""

    def __init__(self, config: settings.Manager | Path | None = None) -> None:
        self.settings = config if isinstance(config, settings.Manager) else settings.manager(config)
        self.engine = connect(self.settings.store)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the store."""
        self.engine.dispose()

    # ---- jobs

    def wait(self, job: Receipt | int | None, *, seconds: float = WAIT_SECONDS, everyone: bool = False,
             progress: Callable[[dict[str, Any]], None] = lambda job: None) -> dict[str, Any]:  # fmt: skip
        """The job, once every live target is final (`everyone`: offline ones too). Raises TimedOut; the job goes on.

        `progress` is called with the job each time something of it has changed.
        """
        job_id = job.job_id if isinstance(job, Receipt) else job
        if job_id is None:
            return {"id": None, "state": "unchanged", "nodes": [], "children": [], "targets": 0, "applied": 0,
                    "failed": 0}  # fmt: skip
        listener = bells.Listener(self.engine, bells.JOBS)
        until = time.monotonic() + seconds
        try:
            while True:
                found = self.job(job_id)
                progress(found)
                if _is_over(found, everyone):
                    return found
                left = until - time.monotonic()
                if left <= 0:
                    raise TimedOut(f"job {job_id} goes on after {seconds:g} s", hint=f"onehost job wait {job_id}")
                listener.wait(min(left, 1.0))
        finally:
            listener.close()

    def job(self, job_id: int) -> dict[str, Any]:
        """A job with each of its targets."""
        with reading(self.engine) as connection:
            return query.job(connection, job_id)

    def jobs(self, **filters: Any) -> list[dict[str, Any]]:
        """A page of jobs, newest first; filters as in `query.jobs`."""
        with reading(self.engine) as connection:
            return query.jobs(connection, **filters)

    def matching(self, verb: bulk.Verb, which: bulk.Where) -> Sequence[int]:
        """The jobs that `each` would be about, oldest first."""
        with reading(self.engine) as connection:
            return bulk.matching(connection, verb, which)

    # ---- resources and events

    def get(self, noun: str, name: str) -> dict[str, Any]:
        """A resource with its spec (no secrets) and where it stands on each node."""
        with reading(self.engine) as connection:
            return query.resource(connection, nouns.noun(noun).name, name)

    def list(self, noun: str) -> list[dict[str, Any]]:
        """Every resource of a noun."""
        with reading(self.engine) as connection:
            return query.resources(connection, nouns.noun(noun).name)

    def names(self, noun: str, prefix: str, most: int) -> Sequence[str]:
        """Names of a noun that begin so, in their order, so many at most."""
        with reading(self.engine) as connection:
            return query.names(connection, nouns.noun(noun).name, prefix, most)

    def usage(self, name: str | None = None, *, plan: str | None = None) -> Sequence[dict[str, Any]]:
        """What accounts (None: all; or those of a plan) use of each of their limits. Raises NotFound."""
        with reading(self.engine) as connection:
            if name is not None:
                query.resource(connection, "account", name)
            return usage.usage(connection, name=name, plan=plan)

    def status(self) -> dict[str, Any]:
        """What waits, what failed, who is silent."""
        with reading(self.engine) as connection:
            return standing(connection)

    def orphans(self) -> Sequence[dict[str, Any]]:
        """What nodes hold and the store does not know: after a restore, what was made since the backup."""
        with reading(self.engine) as connection:
            return orphans.listed(connection)

    def history(self, noun: str, name: str, limit: int = event_search.PAGE) -> Sequence[dict[str, Any]]:
        """What happened to a resource, newest first."""
        return [*self.events(event_search.EventFilter(noun=nouns.noun(noun).name, name=name), limit)]

    def events(
        self, which: event_search.EventFilter, limit: int | None = event_search.PAGE
    ) -> Iterator[dict[str, Any]]:
        """Events, newest first; `limit` None: all of them, streamed."""
        with reading(self.engine) as connection:
            yield from event_search.events(connection, which, limit)

    def event(self, event_id: int) -> dict[str, Any]:
        """One event."""
        with reading(self.engine) as connection:
            return event_search.event(connection, event_id)

    def verify(self, anchor: seal.Head | None = None) -> seal.Verdict:
        """Whether the audit store holds; names the first row that does not."""
        with reading(self.engine) as connection:
            return seal.verify(connection, anchor)

    # ---- nodes

    def check(self, nodes: Sequence[str] = (), *, adopt: bool = False,
              seconds: float = CHECK_SECONDS) -> dict[str, Any]:  # fmt: skip
        """How nodes (none named: all) differ from their ledgers: by node `told` with its findings, or a `reason`.

        `adopt`: what of it a wish could make wanted instead. Changes nothing.
        """
        from .ask import question

        return question(self.engine, self.settings, nodes, "check", {"adopt": adopt}, seconds)

    def ask_daemon(self, node: str, what: str, *, daemon: str = "", lines: int = 0, only: str = "",
                   seconds: float = CHECK_SECONDS) -> dict[str, Any]:  # fmt: skip
        """Asks a node for the list, status, log or test of its daemons. Raises Unreachable if it does not answer."""
        from .ask import question

        payload = {"what": what, "daemon": daemon, "lines": lines, "only": only}
        answer = question(self.engine, self.settings, [node], "daemon", payload, seconds)[node]
        if answer["reason"]:
            raise Unreachable(f"node {node}: {answer['reason']}", hint="onehost status")
        told: dict[str, Any] = answer["told"]
        return told


def _is_over(job: Mapping[str, Any], everyone: bool) -> bool:
    if job["state"] == states.Job.HELD:
        return True
    if job["ended_at"] is not None:
        # Those that only offline nodes hold up are over for who does not wait for everyone.
        return all(child["ended_at"] is not None or not (everyone or child["awaited"]) for child in job["children"])
    is_open = (states.Target.WAITING, states.Target.SENT)
    # What no stage has opened yet waits for these, so it says nothing about who holds the job up.
    open_ones = [n for n in job["nodes"] if n["state"] in is_open and n["opened_at"] is not None]
    return not everyone and bool(open_ones) and all(n["node_state"] == states.NodeState.OFFLINE for n in open_ones)
