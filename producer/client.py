"""What a panel in Python imports: say what is wanted, wait for what became of it, ask what happened.

from onehost.producer import Onehost

with Onehost(actor="panel:shop") as onehost:
    job = onehost.account_create("alice", domain="example.com", password="…")
    print(onehost.wait(job)["state"])
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..models import settings
from ..models.errors import Invalid
from ..models.moment import now
from ..models.store import retried, writing
from . import bulk, orphans, pause
from .passwords import hashed
from .reader import Reader
from .submit import release, submit
from .wish import DEADLINE, Receipt, Wish


class Onehost(Reader):
    """The manager, as panels, the command line and scripts see it. Cheap to make; connects when first used.

    Everything that only asks is its Reader's (reader.py).

    `actor` and `source` say in the audit store who asks and from where. Every method raises Refused (Invalid, NotFound,
    Conflict) with nothing changed, or Unreachable.
    """

    def __init__(self, config: settings.Manager | Path | None = None, *, actor: str, source: str = "library") -> None:
        super().__init__(config)
        self.actor = actor
        self.source = source

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

    def dry_run(self, wish: Wish) -> tuple[Receipt, Mapping[str, Any]]:
        """What a wish would change in desired state and, by node, what it would change there. Changes nothing.

        A node gives a `difference`, or a `reason` why it cannot tell; one that is silent for 3 seconds is said so.
        """
        from .ask import dry_run

        return dry_run(self.engine, self.settings, wish)

    # ---- jobs

    def retry(self, job_id: int, **more: Any) -> Receipt:
        """The same spec as a new generation, for all nodes of it. Refused if there is a newer wish."""
        return self._about(job_id, "retry", more)

    def cancel(self, job_id: int, **more: Any) -> Receipt:
        """Ends a running job: unopened stages are closed and the spec before it is wanted again."""
        return self._about(job_id, "cancel", more)

    def revert(self, job_id: int, **more: Any) -> Receipt:
        """Wants again what was wanted before a job that has ended. Refused where there is no way back."""
        return self._about(job_id, "revert", more)

    def _about(self, job_id: int, verb: str, more: Mapping[str, Any]) -> Receipt:
        found = self.job(job_id)
        return self.do(found["noun"], found["name"], verb, {"job": job_id}, **more)

    def release(self, job_id: int, *, reason: str | None = None) -> Receipt:
        """Begins a held job. Raises Refused if it is not held, or if a rule says no by now; it is held then."""
        self._check_said(reason, None)

        def act() -> Receipt:
            with writing(self.engine) as connection:
                return release(connection, self.settings, job_id, self.actor, reason)

        return retried(act)

    def each(self, verb: bulk.Verb, job_ids: Sequence[int], *, reason: str | None = None) -> Iterator[bulk.Done]:
        """Retries, cancels or releases many jobs; gives for each a receipt or a refusal, as it goes on."""
        self._check_said(reason, None)
        return bulk.each(self.engine, self.settings, verb, job_ids, self.actor, self.source, reason)

    def remove_orphan(self, orphan_id: int, *, reason: str | None = None) -> Receipt:
        """Removes an orphan from every node that holds it. Raises NotFound, or Refused if no node has named it."""
        self._check_said(reason, None)
        with writing(self.engine) as connection:
            return orphans.remove(connection, orphan_id, self.actor, self.source, reason, now())

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


_HOW = ("reason", "if_generation", "idempotency_key", "deadline", "batch", "max_fail", "dry_run")


def _check_words(what: str, text: str | None, longest: int) -> None:
    """What stands beside a wish goes into records, tables and logs: one line of real text. Raises Invalid."""
    if text is not None and not (0 < len(text) <= longest and text.isprintable()):
        raise Invalid(f"{what} must be 1 to {longest} printable characters on one line", {what: "text"})
