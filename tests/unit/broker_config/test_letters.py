"""Letters that the broker could not take are refused before they stand in the way of others."""

from __future__ import annotations

import pytest

from onehost.broker_config.letters import Letter
from onehost.models.errors import Invalid
from onehost.models.wire import MAX_BODY_BYTES


def test_a_body_below_the_limit_is_a_letter() -> None:
    assert Letter("m1", "a.b.c", b"x" * MAX_BODY_BYTES).message_id == "m1"


@pytest.mark.parametrize(
    ("message_id", "key", "body", "correlation_id", "kind"),
    [
        ("m1", "a.b.c", b"x" * (MAX_BODY_BYTES + 1), "", ""),
        ("", "a.b.c", b"", "", ""),
        ("ü" * 128, "a.b.c", b"", "", ""),
        ("m1", "k" * 256, b"", "", ""),
        ("m1", "a.b.c", b"", "j" * 256, ""),
        ("m1", "a.b.c", b"", "", "t" * 256),
    ],
)
def test_what_the_broker_could_not_take_is_refused(
    message_id: str, key: str, body: bytes, correlation_id: str, kind: str
) -> None:
    with pytest.raises(Invalid):
        Letter(message_id, key, body, correlation_id, kind)
