"""What is there is changed together: the same as one by one, in hardly more statements than one takes."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from onehost.models.errors import NotFound, Refused
from onehost.producer import Wish, changing, submit

from .manager import Store

NAMES = ("one", "two", "three", "four")


def wish(name: str, verb: str = "set", **fields: Any) -> Wish:
    return Wish("account", name, verb, fields, actor="test")


def made(store: Store) -> None:
    for receipt in store.onehost.submit([wish(name, "create", domain=f"{name}.example.com") for name in NAMES]):
        store.ack_all(receipt)


def shape(store: Store, receipt: Any) -> Any:
    """What a change has come to, but for ids."""
    placed = store.placements(receipt.resource_id)
    job = store.job(receipt.job_id) if receipt.job_id else {"state": "", "stages": ""}
    numbers = sorted((node, row.wanted, row.done, row.outcome, row.sent) for node, row in placed.items())
    targets = store.targets(receipt.job_id) if receipt.job_id else {}
    return receipt.generation, receipt.targets, dict(receipt.difference), job["state"], targets, numbers


@pytest.mark.parametrize("fields", [
    {"access": "shell"}, {"access": "sftp"}, {"document_root": "web/public"}, {"php": False, "access": "none"},
])  # fmt: skip
def test_changed_together_is_what_it_is_one_by_one(store: Store, monkeypatch: pytest.MonkeyPatch,
                                                   fields: dict[str, Any]) -> None:  # fmt: skip
    made(store)
    # Of each pair one is changed while a stage of an older job is not open yet.
    older = store.onehost.submit([wish("one", ssh_keys=[]), wish("two", document_root="htdocs")])[1:]
    older += store.onehost.submit([wish("three", document_root="htdocs")])
    assert {store.job(receipt.job_id)["state"] for receipt in older} == {"running"}
    many = store.onehost.submit([wish("one", **fields), wish("two", **fields)])
    monkeypatch.setattr(changing, "change", lambda *_: None)
    single = [store.onehost.submit([wish(name, **fields)])[0] for name in ("four", "three")]
    assert [shape(store, receipt) for receipt in many] == [shape(store, receipt) for receipt in single]
    later = "superseded" if many[0].job_id else "waiting"
    assert [store.targets(receipt.job_id) for receipt in older] == 2 * [{"s1": "waiting", "w1": later, "w2": later}]
    assert store.wrong_digests() == {}


def test_what_is_special_goes_its_way_one_by_one(store: Store) -> None:
    made(store)
    receipts = store.onehost.submit([wish("one", access="none"), wish("one", access="shell"),
                                     wish("two", domain="other.example.com"), wish("three", "suspend")])  # fmt: skip
    assert [receipt.generation for receipt in receipts] == [2, 3, 2, 2]
    assert store.claims()["other.example.com"] == receipts[2].resource_id
    assert store.claims()["two.example.com"] == -receipts[2].resource_id


@pytest.mark.parametrize(("second", "error"), [(wish("stranger", php=False), NotFound), (wish("two", uid=7), Refused)])
def test_one_that_is_refused_takes_all_with_it(store: Store, second: Wish, error: type[Exception]) -> None:
    made(store)
    before = store.dump()
    with pytest.raises(error):
        store.onehost.submit([wish("one", access="none"), second])
    assert store.dump() == before


def test_a_password_is_kept_once(store: Store) -> None:
    made(store)
    hashed = "$y$j9T$aaaaaaaaaaaaaaaaaaaaa/$bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
    store.onehost.submit([wish("one", "passwd", password_hash=hashed)])
    store.onehost.submit([wish("one", php=False), wish("two", php=False)])
    kept = [row for row in store.dump()["revision"] if hashed in row]
    assert len(kept) == 1 and ", 3, " in kept[0]


def test_many_take_hardly_more_statements_than_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made(store)
    store.onehost.submit([wish(f"m{n}", "create") for n in range(100)])
    said: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda c, cursor, words, *more: said.append(words))
    monkeypatch.setattr(submit, "submit_one", None)
    store.onehost.submit([wish("one", php=False)])
    single, _ = len(said), said.clear()
    store.onehost.submit([wish(name, access="none") for name in NAMES])
    assert len(said) < 2 * single
