"""What arrives is checked, never trusted: hostile bytes end as Undecodable, whatever they are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from marshmallow import EXCLUDE, Schema, ValidationError

from onehost.models import forms, wire
from onehost.models.digest import Digest
from onehost.models.glance import glance

APPLY = {
    "form": "apply", "node": "web1", "id": 7, "noun": "account", "version": [1, 0], "name": "alice", "generation": 3,
    "incarnation": 0, "payload": {"php": True},
}  # fmt: skip
ACK = {
    "form": "ack", "node": "web1", "epoch": 5, "number": 1, "incarnation": 0, "id": 7, "noun": "account",
    "name": "alice", "generation": 3, "outcome": "applied", "at": 1.5,
}  # fmt: skip
HELLO = {"form": "hello", "node": "web1", "hello": "h", "epoch": 5, "incarnation": 0, "digest": Digest().text(),
         "highest": {"uid": 20001}}  # fmt: skip
BEAT = {"form": "beat", "node": "web1", "epoch": 5, "last": 0, "at": 1.0}
WELCOME = {"form": "welcome", "node": "web1", "hello": "h", "incarnation": 0, "differing": [1], "have": [5, 2],
           "is_paused": False}  # fmt: skip
COVER = {"form": "cover", "node": "web1", "hello": "h", "buckets": [1], "wanted": [[7, 3]]}
QUESTION = {
    "form": "question", "node": "web1", "question": "q", "asker": "a1", "id": 7, "noun": "account", "name": "alice",
    "generation": 3, "payload": None,
}  # fmt: skip
ANSWER = {"form": "answer", "node": "web1", "question": "q"}
HAIL = {"form": "hail", "node": "web1"}
ALL = [APPLY, ACK, HELLO, BEAT, WELCOME, COVER, HAIL, QUESTION, ANSWER]


def bytes_of(letter: dict[str, Any], **more: Any) -> bytes:
    return json.dumps(letter | more).encode()


@pytest.mark.parametrize("letter", ALL, ids=lambda letter: letter["form"])
def test_a_letter_comes_out_as_it_went_in(letter: dict[str, Any]) -> None:
    decoded = wire.decode(wire.encode(**letter))
    assert (decoded.form, decoded.node) == (letter["form"], "web1")
    assert {key: decoded[key] for key in letter} == letter


@pytest.mark.parametrize("letter", ALL, ids=lambda letter: letter["form"])
def test_a_newer_sender_poisons_nothing(letter: dict[str, Any]) -> None:
    assert "news" not in wire.decode(bytes_of(letter, news={"deep": [1]})).body


@pytest.mark.parametrize("letter", ALL, ids=lambda letter: letter["form"])
def test_nothing_required_may_be_missing(letter: dict[str, Any]) -> None:
    for name in letter:
        with pytest.raises(wire.Undecodable):
            wire.decode(json.dumps({key: value for key, value in letter.items() if key != name}).encode())


DEEP = b'{"form":"beat","node":"web1","epoch":1,"at":1,"blocked":' + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}"
HOSTILE = {
    "nothing": b"", "no JSON": b"hello", "NUL": b"\0", "not UTF-8": b"\xff\xfe", "a number": b"1", "a list": b"[]",
    "a text": b'"apply"', "null": b"null", "no form": b"{}", "unknown form": b'{"form":"conquer","node":"web1"}',
    "form is a list": b'{"form":[],"node":"web1"}', "form is a dict": b'{"form":{},"node":"web1"}',
    "form is null": b'{"form":null}', "deep lists": b"[" * 100_000, "deep dicts": b'{"a":' * 30_000, "deep field": DEEP,
    "deep and closed": b"[" * 900 + b"]" * 900, "oversize": b" " * wire.MAX_BODY_BYTES + b"{}",
    "a huge number": b'{"form":"hail","node":' + b"9" * 5000 + b"}",
    "huge id": bytes_of(ACK, id=1 << 63), "negative id": bytes_of(ACK, id=-1), "id is text": bytes_of(ACK, id="7"),
    "id is a float": bytes_of(ACK, id=7.5), "id is true": bytes_of(ACK, id=[True]),
    "NaN": bytes_of(ACK, at=float("nan")), "infinite": bytes_of(ACK, at=float("inf")),
    "far future": bytes_of(ACK, at=1e300),
    "before time": bytes_of(ACK, at=-1.0), "NaN seconds": bytes_of(ACK, seconds={"a": float("nan")}),
    "unknown outcome": bytes_of(ACK, outcome="won"), "a noun no column holds": bytes_of(ACK, noun="n" * 41),
    "a NUL no column holds": bytes_of(ACK, reason="a\0b"), "half a pair": bytes_of(ACK, reason="\ud800"),
    "half a pair in a key": bytes_of(ACK, difference={"\udfff": "x"}), "a NUL name": bytes_of(ACK, name="a\0"),
    "difference is a list": bytes_of(ACK, difference=[1]), "difference of dicts": bytes_of(ACK, difference={"a": {}}),
    "a thousand differences": bytes_of(ACK, difference={str(n): "" for n in range(1000)}),
    "half a digest": bytes_of(HELLO, digest="0" * 10), "a digest of words": bytes_of(HELLO, digest="x" * 4096),
    "a signed digest": bytes_of(HELLO, digest=("+" + "0" * 15) * 256),
    "no digest": bytes_of(HELLO, digest=""), "no highest": bytes_of(HELLO, highest=None),
    "ranges of two": bytes_of(HELLO, held=[[1, 2]]),
    "ranges of nothing": bytes_of(HELLO, held=[[]]), "range of text": bytes_of(HELLO, held=[["1", 2, 3]]),
    "rows of two": bytes_of(HELLO, buckets=[1], rows=[[1, 2]]), "have of one": bytes_of(WELCOME, have=[1]),
    "lacking of three": bytes_of(WELCOME, lacking=[[1, 2, 3]]), "wanted of one": bytes_of(COVER, wanted=[[1]]),
    "blocked nests": bytes_of(BEAT, blocked={"a": {"b": 1}}), "signals of words": bytes_of(BEAT, signals={"a": "b"}),
    "payload is a list": bytes_of(APPLY, payload=[]), "version of one": bytes_of(APPLY, version=[1]),
    "have is empty": bytes_of(APPLY, have=[]), "asker is no word": bytes_of(QUESTION, asker="a.#"),
}  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bytes_are_refused_in_words(data: bytes) -> None:
    with pytest.raises(wire.Undecodable) as caught:
        wire.decode(data)
    assert str(caught.value).encode()


JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(), inner, max_size=3),
    max_leaves=8,
)


#: Values at the edge of what some field takes.
NEAR: list[Any] = [
    0, -1, (1 << 63) - 1, 1 << 63, True, False, 1.5, 1e11, 1e12, float("nan"), float("inf"), None, "", "a\0b", "\ud800",
    "n" * 40, "n" * 41, "n" * 253, "n" * 254, "applied", "won", [], [1, 0], [1, True], [1, 0.0], ["web"], ["w" * 41],
    {}, {"a": "b"}, {"a": 1}, {"a": 1.5}, {"a": True}, {"a" * 81: "b"}, {"a": "\0"}, {"a": float("nan")},
    {"a": [1]}, {str(n): "" for n in range(201)}, [""] * 33,
]  # fmt: skip


@given(some.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(wire.Undecodable):
        wire.decode(data)


@given(some.sampled_from(ALL), some.data())
def test_any_value_in_any_field(letter: dict[str, Any], data: some.DataObject) -> None:
    name = data.draw(some.sampled_from(sorted(forms.FORMS[letter["form"]]().fields)))
    try:
        decoded = wire.decode(bytes_of(letter, **{name: data.draw(JSON)}))
    except wire.Undecodable:
        return
    if letter["form"] not in (
        "apply",
        "question",
    ):  # what came from a node goes into the store: it must be writable there
        text = wire.canonical(dict(decoded.body))
        assert b"\\u0000" not in text


@given(some.sampled_from([APPLY, ACK, BEAT]), some.data())
def test_a_quick_look_gives_what_the_schema_gives_or_nothing(letter: dict[str, Any], data: some.DataObject) -> None:
    schema = forms.FORMS[letter["form"]](unknown=EXCLUDE)
    fields = sorted(schema.fields)
    near = JSON | some.sampled_from(NEAR)
    changed = data.draw(some.dictionaries(some.sampled_from(fields), near, max_size=3))
    missing = data.draw(some.sets(some.sampled_from(fields), max_size=1))
    agree(schema, {key: value for key, value in (letter | changed).items() if key not in missing})


@pytest.mark.parametrize("letter", [APPLY, ACK, BEAT], ids=lambda letter: letter["form"])
def test_a_quick_look_is_right_about_every_field(letter: dict[str, Any]) -> None:
    schema = forms.FORMS[letter["form"]](unknown=EXCLUDE)
    for name in schema.fields:
        for value in NEAR:
            agree(schema, letter | {name: value})


def agree(schema: Schema, given: dict[str, Any]) -> None:
    quick = glance(schema)(given)
    try:
        loaded = schema.load(given)
    except ValidationError:
        assert quick is None
        return
    assert quick is None or repr(quick) == repr(loaded)  # by their words: 1, 1.0 and True are equal


@pytest.mark.parametrize("letter", [APPLY, ACK, BEAT], ids=lambda letter: letter["form"])
def test_a_plain_letter_needs_no_more_than_a_quick_look(letter: dict[str, Any]) -> None:
    schema = forms.FORMS[letter["form"]](unknown=EXCLUDE)
    assert letter["form"] in wire.MANY
    assert not any(schema._hooks.values())  # a hook would never be asked
    assert glance(schema)(letter) == schema.load(letter)


def test_a_body_is_put_in_as_it_was_rendered() -> None:
    letter = {key: value for key, value in ACK.items() if key not in ("form", "node")}
    assert wire.decode(wire.joined(wire.canonical(letter), form="ack", node="web1")) == wire.decode(bytes_of(ACK))


def test_a_payload_is_put_in_as_it_was_rendered() -> None:
    envelope = {key: value for key, value in APPLY.items() if key != "payload"}
    data = wire.apply_letter(b'{"z":1,"a":2}', **envelope)
    assert data.endswith(b',"payload":{"z":1,"a":2}}')
    assert wire.decode(data)["payload"] == {"z": 1, "a": 2}
    assert wire.decode(wire.apply_letter(None, **envelope))["payload"] is None


def test_what_is_too_large_is_not_sent() -> None:
    with pytest.raises(ValueError, match="more than"):
        wire.apply_letter(b" " * wire.MAX_BODY_BYTES, node="web1")
    with pytest.raises(ValueError, match="more than"):
        wire.encode(form="hail", node="x" * wire.MAX_BODY_BYTES)


def test_words_are_cleaned_before_they_travel() -> None:
    assert wire.clean("a\0b\ud800c\U0001f600", 4) == "a\ufffdb?"
    assert wire.clean("plain ü", 100) == "plain ü"
