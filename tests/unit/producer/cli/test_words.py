"""How things are written: times in filters, cells, sentences about jobs, guarded CSV, errors."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onehost.models.errors import Conflict, Invalid, TimedOut
from onehost.producer.cli import export, failures, follow, moments, output
from onehost.producer.cli.session import Session

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-24", datetime(2026, 11, 24, tzinfo=UTC)),
        ("2026-11-24T10:30", datetime(2026, 11, 24, 10, 30, tzinfo=UTC)),
        ("2026-11-24T10:30Z", datetime(2026, 11, 24, 10, 30, tzinfo=UTC)),
        ("2026-11-24T10:30+02:00", datetime(2026, 11, 24, 8, 30, tzinfo=UTC)),
    ],
)
def test_times(text: str, expected: datetime) -> None:
    assert moments.moment(text) == expected


@pytest.mark.parametrize(("text", "seconds"), [("15m", 900), ("2h", 7200), ("3d", 259200), ("1w", 604800), ("5s", 5)])
def test_how_long_ago(text: str, seconds: int) -> None:
    found = moments.moment(text)
    assert found is not None
    assert abs((datetime.now(UTC) - found).total_seconds() - seconds) < 5


@pytest.mark.parametrize("text", ["", "yesterday", "3y", "-3d", "999999w", "2026-13-01", "12:00"])
def test_no_times(text: str) -> None:
    with pytest.raises(Invalid):
        moments.moment(text)


def test_resource_filter() -> None:
    assert moments.resource_filter("account/alice") == ("account", "alice")
    assert moments.resource_filter("virtual-service") == ("virtual_service", None)
    assert moments.resource_filter(None) == (None, None)


@given(st.one_of(st.none(), st.text(), st.integers(), st.lists(st.text()), st.dictionaries(st.text(), st.text())))
def test_no_cell_begins_like_a_formula_or_moves_the_cursor(value: Any) -> None:
    file = io.StringIO(newline="")
    csv.writer(file).writerow([export.guarded(value)])
    (row,) = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert not row or not row[0].startswith(export.FORMULA)
    assert output.cell(value).isprintable()


def test_cells() -> None:
    shown = [output.cell(v) for v in (None, True, False, ["a", "b"], {"a": None}, 0, 0.25, NOW, "a\x1b[2Jb\nc")]
    assert shown == ["-", "yes", "no", "a, b", "a: -", "0", "0.250", "2026-11-24 12:00:00Z", "a\\x1b[2Jb c"]


def target(state: str, **more: Any) -> dict[str, Any]:
    known = {"node": "web1", "stage": 1, "state": state, "node_state": "online", "node_paused": False, "reason": None}
    return known | {"seconds": None} | more


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (target("waiting"), "waiting"),
        (target("sent"), "sent"),
        (target("sent", node_state="offline"), "sent, the node is offline"),
        (target("waiting", node_state="new"), "waiting, the node was never heard of"),
        (target("applied", seconds=0.42), "applied in 0.4 s"),
        (target("failed", reason="disk\nfull"), "failed: disk full"),
        (target("sent", reason="tries again"), "sent: tries again"),
        (target("sent", node_paused=True), "sent, the node is paused"),
        (target("waiting", stage=2), "waits until 12:00:30Z; until then onehost job cancel 12 undoes everything"),
    ],
)
def test_a_word_about_a_node(one: dict[str, Any], expected: str) -> None:
    until = datetime(2026, 11, 24, 12, 0, 30, tzinfo=UTC) if one["stage"] == 2 else None
    assert follow.word(one, {"id": 12, "nodes": [one], "grace_until_at": until}) == expected


@pytest.mark.parametrize(
    ("state", "applied", "nodes", "code"),
    [
        ("applied", 1, [target("applied")], 0),
        ("applied", 0, [], 0),
        ("failed", 0, [target("failed")], 1),
        ("partial", 1, [target("applied"), target("failed")], 1),
        ("halted", 0, [target("halted")], 1),
        ("running", 1, [target("applied"), target("sent", node_state="offline")], 0),
        ("running", 0, [target("sent", node_state="offline")], 6),
        ("running", 0, [target("failed"), target("sent", node_state="offline")], 1),
        ("superseded", 0, [target("superseded")], 5),
        ("cancelled", 0, [target("cancelled")], 5),
        ("expired", 0, [target("waiting")], 6),
    ],
)
def test_exit_code_of_a_job(state: str, applied: int, nodes: list[dict[str, Any]], code: int) -> None:
    assert follow.exit_code(Session(), {"state": state, "applied": applied, "nodes": nodes, "children": []}) == code


def raising(error: BaseException) -> Any:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (Conflict("it is held", hint="onehost x"), 5, "error: it is held. try: onehost x\n"),
        (Invalid("wrong."), 2, "error: wrong\n"),
        (TimedOut("job 3 goes on"), 6, "error: job 3 goes on\n"),
        (Invalid("hash $6$salt$abcdef and pg://u:secret@h"), 2, "error: hash (hash) and pg://u:***@h\n"),
        (click.UsageError("No such option: --x."), 2, "error: No such option: --x. try: onehost --help\n"),
        (KeyboardInterrupt(), 130, "error: stopped; nothing was asked for\n"),
    ],
)
def test_errors(error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert failures.guard(raising(error)) == code
    assert capsys.readouterr().err == line


def test_a_mistake_of_our_own(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(failures.DEBUG, raising=False)
    assert failures.guard(raising(ValueError("bad $6$salt$hash\nsecond"))) == 70
    said = capsys.readouterr().err
    assert said.startswith("error: unexpected ValueError: bad (hash). try: ONEHOST_DEBUG=1") and said.count("\n") == 1
    monkeypatch.setenv(failures.DEBUG, "1")
    assert failures.guard(raising(ValueError("bad $6$salt$hash"))) == 70
    said = capsys.readouterr().err
    assert "Traceback" in said and "$6$" not in said
