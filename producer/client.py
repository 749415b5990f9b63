"""What a panel in Python imports: say what is wanted, wait for what became of it, ask what happened.

from onehost.producer import Onehost

with Onehost(actor="panel:shop") as onehost:
    job = onehost.account_create("alice", domain="example.com", password="…")
    print(onehost.wait(job)["state"])
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..models import nouns, settings, states
from ..models.errors import Invalid, TimedOut, Unreachable
from ..models.moment import now
from ..models.store import bells, connect, reading, retried, writing
from . import bulk, event_search, orphans, pause, query, seal, usage
from .passwords import hashed
from .standing import standing
from .submit import release, submit
from .wish import DEADLINE, Receipt, Wish

#: How long a node may take to look through all it holds, in seconds.
CHECK_SECONDS = 20.0
#: How long `wait` waits at most, in seconds, unless the caller says otherwise.
WAIT_SECONDS = 60.0


class Onehost:
    """The manager, as panels, the command line and scripts see it. Cheap to make; connects when first used.

    `actor` and `source` say in the audit store who asks and from where. Every method raises Refused (Invalid, NotFound,
    Conflict) with nothing changed, or Unreachable.
    """

    def __init__(self, config: settings.Manager | Path | None = None, *, actor: str, source: str = "library") -> None:
        self.settings = config if isinstance(config, settings.Manager) else settings.manager(config)
        self.engine = connect(self.settings.store)
        self.actor = actor
        self.source = source

    def __enter__(self) -> Onehost:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the store."""
        self.engine.dispose()

    # ---- wishes

    def submit(self, wishes: Sequence[Wish], *, dry_run: bool = False) -> list[Receipt]:
        """Commits all wishes in one transaction, or none."""
        return submit(self.engine, self.settings, wishes, dry_run=dry_run)

    def wish(self, noun: str, name: str, verb: str, fields: Mapping[str, Any] | None = None, *,
             reason: str | None = None, if_generation: int | None = None, idempotency_key: str | None = None,
             deadline: timedelta = DEADLINE, batch: str | None = None,
             max_fail: int | None = None) -> Wish:  # fmt: skip
        """A wish in the name of this client's actor. Raises Invalid for words that no record could keep."""
        self._check_said(reason, idempotency_key)
        return Wish(noun, name, verb, dict(fields or {}), self.actor, self.source, reason, if_generation,
                    idempotency_key, deadline, batch, max_fail)  # fmt: skip

    def _check_said(self, reason: str | None, idempotency_key: str | None) -> None:
        for what, text, longest in (("actor", self.actor, 200), ("source", self.source, 200),
                                    ("reason", reason, 1000), ("idempotency key", idempotency_key, 200)):  # fmt: skip
            _check_words(what, text, longest)

    def do(self, noun: str, name: str, verb: str, fields: Mapping[str, Any] | None = None, *, dry_run: bool = False,
           **more: Any) -> Receipt:  # fmt: skip
        """One wish by its verb: `do("account", "alice", "suspend", reason="unpaid")`."""
        return self.submit([self.wish(noun, name, verb, fields, **more)], dry_run=dry_run)[0]

    def apply(self, noun: str, name: str, spec: Mapping[str, Any], **more: Any) -> Receipt:
        """Makes the resource, or changes it, to be exactly this spec (secrets left out are kept)."""
        return self.do(noun, name, "apply", spec, **more)

    def remove(self, noun: str, name: str, **more: Any) -> Receipt:
        """Removes the resource from every node."""
        return self.do(noun, name, "remove", **more)

    def account_create(self, name: str, *, password: str | None = None, **more: Any) -> Receipt:
        """Makes an account. A password is hashed here and goes no further."""
        return self._account(name, "create", password, more)

    def account_set(self, name: str, **more: Any) -> Receipt:
        """Changes settings of an account."""
        return self._account(name, "set", None, more)

    def account_passwd(self, name: str, password: str, **more: Any) -> Receipt:
        """Gives an account a new password."""
        return self._account(name, "passwd", password, more)

    def account_suspend(self, name: str, **more: Any) -> Receipt:
        """Shows a notice page, refuses logins, ends sessions."""
        return self._account(name, "suspend", None, more)

    def account_unsuspend(self, name: str, **more: Any) -> Receipt:
        """Undoes a suspension."""
        return self._account(name, "unsuspend", None, more)

    def account_delete(self, name: str, **more: Any) -> Receipt:
        """Removes an account everywhere; its home goes to the trash."""
        return self._account(name, "delete", None, more)

    def _account(self, name: str, verb: str, password: str | None, more: dict[str, Any]) -> Receipt:
        how = {key: more.pop(key) for key in _HOW if key in more}
        fields = more | ({"password_hash": hashed(password)} if password is not None else {})
        return self.do("account", name, verb, fields, **how)

    def node_add(self, name: str, address: str, roles: Sequence[str], **more: Any) -> Receipt:
        """Adds a node. Its broker user is made by `onehost broker apply`."""
        how = {key: more.pop(key) for key in _HOW if key in more}
        return self.do("node", name, "add", {"address": address, "roles": list(roles), **more}, **how)

    def node_remove(self, name: str, *, lost: bool = False, **more: Any) -> Receipt:
        """Takes a node out of the cluster. `lost`: it will not come back, and no rule keeps it."""
        return self.do("node", name, "remove", {"lost": True} if lost else {}, **more)

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

    def retry(self, job_id: int, **more: Any) -> Receipt:
        """The same spec as a new generation, for all nodes of it. Refused if there is a newer wish."""
        found = self.job(job_id)
        return self.do(found["noun"], found["name"], "retry", {"job": job_id}, **more)

    def cancel(self, job_id: int, **more: Any) -> Receipt:
        """Ends a running job: unopened stages are closed and the spec before it is wanted again."""
        found = self.job(job_id)
        return self.do(found["noun"], found["name"], "cancel", {"job": job_id}, **more)

    def revert(self, job_id: int, **more: Any) -> Receipt:
        """Wants again what was wanted before a job that has ended. Refused where there is no way back."""
        found = self.job(job_id)
        return self.do(found["noun"], found["name"], "revert", {"job": job_id}, **more)

    def release(self, job_id: int, *, reason: str | None = None) -> Receipt:
        """Begins a held job. Raises Refused if it is not held, or if a rule says no by now; it is held then."""
        self._check_said(reason, None)

        def act() -> Receipt:
            with writing(self.engine) as connection:
                return release(connection, self.settings, job_id, self.actor, reason)

        return retried(act)

    def matching(self, verb: bulk.Verb, which: bulk.Where) -> Sequence[int]:
        """The jobs that `each` would be about, oldest first."""
        with reading(self.engine) as connection:
            return bulk.matching(connection, verb, which)

    def each(self, verb: bulk.Verb, job_ids: Sequence[int], *, reason: str | None = None) -> Iterator[bulk.Done]:
        """Retries, cancels or releases many jobs; gives for each a receipt or a refusal, as it goes on."""
        self._check_said(reason, None)
        return bulk.each(self.engine, self.settings, verb, job_ids, self.actor, self.source, reason)

    # ---- brakes

    def pause(self, node: str | None = None, *, reason: str | None = None) -> Sequence[str]:
        """Stops sending, and rounds on the node (None: on every node). Wishes are taken and wait. Gives who was told.

        Raises Conflict if that brake is pulled already.
        """
        self._check_said(reason, None)
        with writing(self.engine) as connection:
            return pause.pause(connection, node, self.actor, reason, now())

    def resume(self, node: str | None = None, *, reason: str | None = None) -> Sequence[str]:
        """Lets the node go on; None: every node, also those that were paused by name. Raises Conflict if none is."""
        self._check_said(reason, None)
        with writing(self.engine) as connection:
            return pause.resume(connection, node, self.actor, reason, now())

    # ---- questions

    def get(self, noun: str, name: str) -> dict[str, Any]:
        """A resource with its spec (no secrets) and where it stands on each node."""
        with reading(self.engine) as connection:
            return query.resource(connection, nouns.noun(noun).name, name)

    def list(self, noun: str) -> list[dict[str, Any]]:
        """Every resource of a noun."""
        with reading(self.engine) as connection:
            return query.resources(connection, nouns.noun(noun).name)

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

    def remove_orphan(self, orphan_id: int, *, reason: str | None = None) -> Receipt:
        """Removes an orphan from every node that holds it. Raises NotFound, or Refused if no node has named it."""
        self._check_said(reason, None)
        with writing(self.engine) as connection:
            return orphans.remove(connection, orphan_id, self.actor, self.source, reason, now())

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

    def dry_run(self, wish: Wish) -> tuple[Receipt, Mapping[str, Any]]:
        """What a wish would change in desired state and, by node, what it would change there. Changes nothing.

        A node gives a `difference`, or a `reason` why it cannot tell; one that is silent for 3 seconds is said so.
        """
        from .ask import dry_run

        return dry_run(self.engine, self.settings, wish)

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


_HOW = ("reason", "if_generation", "idempotency_key", "deadline", "batch", "max_fail", "dry_run")


def _check_words(what: str, text: str | None, longest: int) -> None:
    """What stands beside a wish goes into records, tables and logs: one line of real text. Raises Invalid."""
    if text is not None and not (0 < len(text) <= longest and text.isprintable()):
        raise Invalid(f"{what} must be 1 to {longest} printable characters on one line", {what: "text"})


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
