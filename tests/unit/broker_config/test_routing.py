"""Names and keys: one word per part, and no name that could widen a pattern."""

from __future__ import annotations

import pytest

from onehost.broker_config import routing
from onehost.models.errors import Invalid


def test_the_node_is_the_second_word_of_every_key() -> None:
    keys = [
        routing.job_key("virtual_service", "web-1", "apply"),
        routing.ack_key("web-1", "account"),
        routing.hello_key("web-1"),
        routing.beat_key("web-1"),
        routing.answer_key("web-1", "a1"),
    ]
    assert [key.split(".")[1] for key in keys] == ["web-1"] * 5
    assert {len(key.split(".")) for key in keys} == {3}


@pytest.mark.parametrize("name", ["", "Web", "1web", "a.b", "*", "#", "web1\n", "a" * 41, "wéb", "web_1", "-a", "a b"])
def test_a_name_that_breaks_keys_or_patterns_is_refused(name: str) -> None:
    for function in (routing.node_queue, routing.node_user, routing.node_pattern, routing.hello_key):
        with pytest.raises(Invalid):
            function(name)
    assert routing.node_of_user(f"node-{name}") == ""


@pytest.mark.parametrize("word", ["", "a.b", "*", "#", "A", "a b", "a\n"])
def test_a_word_that_breaks_keys_is_refused(word: str) -> None:
    with pytest.raises(Invalid):
        routing.job_key(word, "web1", "apply")
    with pytest.raises(Invalid):
        routing.answer_key("web1", word)


def test_a_user_tells_its_node() -> None:
    assert routing.node_of_user(routing.node_user("web-1")) == "web-1"
    assert routing.node_of_user("relay") == ""
