"""Certificates at the edge: checked before anything is written, made where none is brought, the key only in secrets."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from onehost.models import certificates, self_signed
from onehost.models.errors import Invalid, Refused
from onehost.models.store import Revision
from onehost.producer import expiry

from .manager import Store

NAME = "alice.example"


@pytest.fixture
def shop(store: Store) -> Store:
    """Two accounts with a domain each."""
    for name in ("alice", "bob"):
        store.ack_all(store.onehost.do("account", name, "create", {"domain": f"{name}.example"}))
    return store


def brought(*names: str, days: int = 90) -> dict[str, Any]:
    made = self_signed.made(names[0], names, days)
    return {"certificate": made.certificate.splitlines(), "key": made.key.splitlines()}


def spec(store: Store) -> dict[str, Any]:
    return dict(store.onehost.get("certificate", NAME)["spec"])


def test_one_that_nobody_brought_is_made_and_stays(shop: Store) -> None:
    shop.onehost.do("certificate", NAME, "create", {"account": "alice"})
    found = spec(shop)
    assert found["names"] == [NAME, f"www.{NAME}"] and found["self_signed"] is True
    assert shop.onehost.apply("certificate", NAME, {"account": "alice"}).job_id is None
    shop.onehost.do("certificate", NAME, "self-sign", {})
    assert spec(shop)["fingerprint"] != found["fingerprint"]


def test_one_that_was_brought_is_told_and_the_same_again_changes_nothing(shop: Store) -> None:
    wish = brought(NAME, f"*.{NAME}")
    shop.onehost.do("certificate", NAME, "create", {"account": "alice"} | wish)
    assert spec(shop)["names"] == [NAME, f"*.{NAME}"] and spec(shop)["self_signed"] is False
    assert shop.onehost.do("certificate", NAME, "upload", wish).job_id is None
    assert shop.onehost.do("certificate", NAME, "upload", brought(NAME)).job_id is not None


def test_the_key_stands_in_secrets_alone(shop: Store) -> None:
    wish = brought(NAME)
    shop.onehost.do("certificate", NAME, "create", {"account": "alice"} | wish)
    line = wish["key"][1]
    with shop.onehost.engine.connect() as connection:
        rows = connection.execute(select(Revision.payload, Revision.secrets)).all()
    assert [line in (row.secrets or b"").decode() for row in rows].count(True) == 1
    assert not any(line in (row.payload or b"").decode() for row in rows)
    assert line not in json.dumps(
        [shop.onehost.get("certificate", NAME), shop.onehost.list("certificate")], default=str
    )


@pytest.mark.parametrize(
    ("name", "fields", "error", "words"),
    [
        (NAME, brought("bob.example"), Invalid, "is for bob.example and not for alice.example"),
        (NAME, brought(NAME) | {"key": brought(NAME)["key"]}, Invalid, "does not belong"),
        (NAME, {"certificate": brought(NAME)["certificate"]}, Invalid, "key: is needed too"),
        (NAME, {"certificate": ["\u202e"], "key": ["x"]}, Invalid, "is not PEM"),
        (NAME, brought(NAME, days=0), Invalid, "has expired"),
        ("bob.example", brought("bob.example"), Refused, "no domain of account alice"),
        ("new.example", {}, Refused, "no domain of account alice"),
        ("alice_example", {}, Invalid, "is not valid: "),
    ],
)  # fmt: skip
def test_what_does_not_serve_leaves_nothing(shop: Store, name: str, fields: dict[str, Any], error: type[Exception],
                                            words: str) -> None:  # fmt: skip
    before = shop.dump()
    with pytest.raises(error, match=words):
        shop.onehost.do("certificate", name, "create", {"account": "alice"} | fields)
    assert shop.dump() == before


def test_it_goes_and_comes_back_with_its_account(shop: Store) -> None:
    shop.onehost.settings = replace(shop.onehost.settings, grace_seconds=30)
    shop.ack_all(shop.onehost.do("certificate", NAME, "create", {"account": "alice"} | brought(NAME)), "w1", "w2")
    shown = spec(shop)
    removal = shop.onehost.do("account", "alice", "delete", {})
    assert removal.owned == {"certificate": 1}
    shop.onehost.do("account", "alice", "cancel", {"job": removal.job_id})
    assert spec(shop) == shown


def test_one_that_ends_soon_is_told(shop: Store) -> None:
    shop.onehost.do("certificate", NAME, "create", {"account": "alice"} | brought(NAME, days=10))
    end, now = datetime.fromisoformat(spec(shop)["not_after_at"]), datetime.now(UTC)
    with shop.onehost.engine.connect() as connection:
        assert expiry.expiring(connection, now) == [{"name": NAME, "not_after_at": end}]
        assert expiry.expiring(connection, end - timedelta(days=15)) == []


def test_the_manager_takes_its_own_for_what_it_is() -> None:
    made = self_signed.made(NAME)
    certificates.expect_name(certificates.checked(made.certificate, made.key, datetime.now(UTC)), NAME)
