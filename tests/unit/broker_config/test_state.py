"""The difference between what should be and what is: complete, ordered, quiet when equal."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from onehost.broker_config.desired import desired
from onehost.broker_config.state import Kind, State, Step, Verb, difference

EMPTY = State({})


def wanted(*nodes: str) -> State:
    return desired(nodes, {f"node-{node}": f"hash of {node}" for node in nodes}, (3, 10))


def changed(state: State, kind: Kind, name: str, content: dict[str, Any] | None) -> State:
    """`state` with one object replaced, added, or with None removed."""
    objects = {k: dict(v) for k, v in state.objects.items()}
    objects[kind].pop(name, None)
    if content is not None:
        objects[kind][name] = content
    return State(objects)


def said(steps: list[Step]) -> list[tuple[str, str, str]]:
    return [(step.verb, step.kind, step.name) for step in steps]


def test_equal_states_need_no_step() -> None:
    assert difference(wanted("web1"), wanted("web1")) == []


def test_an_empty_broker_gets_everything_in_a_safe_order() -> None:
    steps = difference(wanted("web1"), EMPTY)
    assert {step.verb for step in steps} == {Verb.CREATE}
    order = {kind: i for i, kind in enumerate(Kind)}
    assert [order[step.kind] for step in steps] == sorted(order[step.kind] for step in steps)
    position = {(step.kind, step.name): i for i, step in enumerate(steps)}
    credential = position[Kind.CREDENTIAL, "node-web1"]
    assert position[Kind.TOPIC_PERMISSION, "node-web1 on onehost.events"] < credential
    assert position[Kind.PERMISSION, "node-web1"] < credential
    assert position[Kind.POLICY, "onehost.node"] < position[Kind.QUEUE, "onehost.node.web1"]


def test_a_stale_node_loses_user_and_queue_and_what_hangs_on_them_goes_by_itself() -> None:
    assert said(difference(wanted("web1"), wanted("web1", "web2"))) == [
        ("remove", "user", "node-web2"),
        ("remove", "queue", "onehost.node.web2"),
    ]


def test_a_queue_of_another_kind_is_made_anew_with_its_bindings() -> None:
    other = {"durable": True, "auto_delete": False, "arguments": {"x-queue-type": "classic"}}
    steps = difference(wanted("web1"), changed(wanted("web1"), Kind.QUEUE, "onehost.node.web1", other))
    assert said(steps) == [
        ("change", "queue", "onehost.node.web1"),
        ("create", "binding", "onehost.jobs -> onehost.node.web1: *.web1.*"),
    ]
    assert "classic" in steps[0].detail


def test_a_hash_is_never_shown() -> None:
    found = {"user": "node-web1", "password_hash": "secret", "hashing_algorithm": "rabbit_password_hashing_sha256"}
    (step,) = difference(wanted("web1"), changed(wanted("web1"), Kind.CREDENTIAL, "node-web1", found))
    assert step.detail == "password_hash"
    assert "secret" not in f"{step} {step!r}"
    assert "hash of" not in f"{step} {step!r}"


def test_details_added_by_the_broker_are_no_drift() -> None:
    found = {**wanted("web1").of(Kind.QUEUE)["onehost.audit"], "node": "a@b", "state": "running"}
    assert difference(wanted("web1"), changed(wanted("web1"), Kind.QUEUE, "onehost.audit", found)) == []


@given(st.sets(st.sampled_from(["a", "b", "c", "d"])), st.sets(st.sampled_from(["a", "b", "c", "d"])))
def test_the_steps_lead_to_the_wanted_state(before: set[str], after: set[str]) -> None:
    steps = difference(wanted(*after), wanted(*before))
    objects = {kind: dict(content) for kind, content in wanted(*before).objects.items()}
    for step in steps:
        if step.verb is Verb.REMOVE:
            del objects[step.kind][step.name]
        else:
            objects[step.kind][step.name] = step.content
    for kind in (Kind.USER, Kind.QUEUE, Kind.POLICY, Kind.EXCHANGE):
        assert objects[kind] == wanted(*after).of(kind)
    assert difference(wanted(*after), wanted(*after)) == []
