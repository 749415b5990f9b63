"""`job revert`: what was wanted before a job is wanted again; secrets never come back; others say why not."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from onehost.models.errors import Invalid, NotFound, Refused
from onehost.models.store import Revision, reading

from .manager import Store
from .test_grace import HASH

OTHER = HASH.replace("b", "c")


@pytest.fixture
def alice(store: Store) -> Store:
    fields = {"domain": "alice.example.com", "password_hash": HASH}
    store.ack_all(store.onehost.do("account", "alice", "create", fields))
    return store


def test_back_to_the_revision_before(alice: Store) -> None:
    before = alice.onehost.get("account", "alice")["spec"]
    changed = alice.onehost.account_set("alice", access="shell", domain="other.example.com")
    alice.ack_all(changed)
    back = alice.onehost.revert(changed.job_id or 0)
    assert set(back.difference) == {"access", "domain"} and back.generation == 3
    alice.ack_all(back)
    assert alice.onehost.get("account", "alice")["spec"] == before
    assert alice.job(back.job_id)["kind"] == "account.revert"


def test_a_revert_is_reverted(alice: Store) -> None:
    changed = alice.onehost.account_set("alice", access="shell")
    alice.ack_all(changed)
    back = alice.onehost.revert(changed.job_id or 0)
    alice.ack_all(back)
    alice.ack_all(alice.onehost.revert(back.job_id or 0))
    assert alice.onehost.get("account", "alice")["spec"]["access"] == "shell"


def test_a_secret_stays_as_it_is_now(alice: Store) -> None:
    changed = alice.onehost.do("account", "alice", "apply", {"domain": None, "password_hash": OTHER})
    alice.ack_all(changed)
    back = alice.onehost.revert(changed.job_id or 0)
    assert set(back.difference) == {"domain"}
    with reading(alice.engine) as connection:
        newest = select(Revision.secrets).where(Revision.generation == back.generation, Revision.secrets.is_not(None))
        assert OTHER.encode() in connection.execute(newest).scalar_one()


def test_what_belongs_to_an_account_comes_back_after_its_removal(alice: Store) -> None:
    entry = {"account": "alice", "schedule": "* * * * *", "command": "true"}
    alice.ack_all(alice.onehost.do("cron", "alice.one", "create", entry), "w1", "w2")
    gone = alice.onehost.do("cron", "alice.one", "delete")
    alice.ack_all(gone, "w1", "w2")
    back = alice.onehost.revert(gone.job_id or 0)
    assert back.resource_id != gone.resource_id
    assert alice.onehost.get("cron", "alice.one")["spec"]["command"] == "true"


def test_what_has_no_way_back_says_why(alice: Store) -> None:
    made = alice.onehost.jobs(kind="account.create")[0]["id"]
    passwd = alice.onehost.do("account", "alice", "passwd", {"password_hash": OTHER})
    alice.ack_all(passwd)
    before = alice.dump()
    with pytest.raises(Refused, match=r"job \d+ came after it"):
        alice.onehost.revert(made)
    with pytest.raises(Refused, match="a secret never comes back"):
        alice.onehost.revert(passwd.job_id or 0)
    with pytest.raises(NotFound):
        alice.onehost.do("account", "alice", "revert", {"job": 99})
    with pytest.raises(Invalid):
        alice.onehost.do("account", "alice", "revert", {})
    assert alice.dump() == before
    gone = alice.onehost.account_delete("alice")
    with pytest.raises(Refused, match="goes on"):
        alice.onehost.revert(gone.job_id or 0)
    alice.ack_all(gone, "w1", "w2", "s1")
    with pytest.raises(Refused, match="its home is in the trash"):
        alice.onehost.revert(gone.job_id or 0)


def test_what_a_job_has_made_is_removed_by_its_own_verb(store: Store) -> None:
    made = store.onehost.do("account", "bob", "create", {"domain": None})
    store.ack_all(made)
    with pytest.raises(Refused, match="the way back is to remove it"):
        store.onehost.revert(made.job_id or 0)
