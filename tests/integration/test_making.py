"""Many wishes at once: what is made together is what it would be one by one, in about as many statements as one."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event, select

from onehost.models.errors import Conflict, Invalid
from onehost.models.store import NodeStatus, Target, together, writing
from onehost.producer import Wish
from onehost.producer.surroundings import Surroundings

from .manager import Store


def account(name: str, **more: Any) -> Wish:
    fields = {"domain": more.pop("domain", f"{name}.example.com")}
    return Wish("account", name, "create", fields, actor="test", **more)


def test_made_together_is_what_it_is_one_by_one(store: Store) -> None:
    one = store.onehost.submit([account("one")])[0]
    two, three = store.onehost.submit([account("two"), account("three")])
    shapes = []
    for receipt in (one, two, three):
        found = store.onehost.get("account", receipt.name)
        uid = found["spec"].pop("uid")
        assert found["spec"].pop("gid") == uid
        job = store.job(receipt.job_id)
        spec = {key: value for key, value in found["spec"].items() if key != "domain"}
        unopened = sorted(node["opened_at"] is None for node in job["nodes"])
        shapes.append((spec, job["state"], receipt.targets, store.targets(receipt.job_id), unopened))
        assert receipt.resource_id == one.resource_id + len(shapes) - 1 and uid == 20000 + len(shapes) - 1
    assert shapes[0] == shapes[1] == shapes[2]
    store.ack_all(two)
    assert store.job(two.job_id)["state"] == "applied"


def test_a_wish_for_what_is_there_goes_with_those_that_make(store: Store) -> None:
    store.onehost.submit([account("old")])
    change = Wish("account", "old", "set", {"access": "none"}, actor="test")
    receipts = store.onehost.submit([account("new"), change])
    assert [receipt.generation for receipt in receipts] == [1, 2]


@pytest.mark.parametrize(("second", "error"), [
    ({"name": "bb", "domain": "aa.example.com"}, Conflict),
    ({"name": "bb", "domain": "www.aa.example.com"}, Conflict),
    ({"name": "bb", "domain": "old.example.com"}, Conflict),
    ({"name": "aa"}, Conflict),
    ({"name": "bb", "domain": "no domain"}, Invalid),
])  # fmt: skip
def test_one_that_is_refused_takes_all_with_it(store: Store, second: dict[str, Any], error: type[Exception]) -> None:
    store.onehost.submit([account("old")])
    before = store.dump()
    with pytest.raises(error):
        store.onehost.submit([account("aa"), account(**second)])
    assert store.dump() == before


def test_numbers_that_were_taken_for_all_and_not_given_out_are_given_back(store: Store) -> None:
    store.onehost.submit([account(f"aa{number}") for number in range(7)])
    with writing(store.engine) as connection:
        around = Surroundings(connection, store.onehost.settings)
        with around.together(5):
            assert [around.number("uid", 20000, 59999) for _ in range(2)] == [20007, 20008]
        assert around.number("uid", 20000, 59999) == 20009
    assert store.onehost.submit([account("last")])[0].targets == 3
    assert store.onehost.get("account", "last")["spec"]["uid"] == 20010


def test_many_take_hardly_more_statements_than_one(store: Store) -> None:
    said: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda c, cursor, words, *more: said.append(words))
    store.onehost.submit([account("one")])
    single, _ = len(said), said.clear()
    store.onehost.submit([account(f"m{n}") for n in range(200)])
    assert len(said) < 3 * single


def test_rows_changed_together(store: Store) -> None:
    with writing(store.engine) as connection:
        ids = connection.execute(select(NodeStatus.node_id).order_by(NodeStatus.node_id)).scalars().all()
        rows = [{"node_id": node, "acked": 7, "beat": b"\0\xff"} for node in ids]
        together.change(connection, NodeStatus, rows, ("node_id",), _is_first)
        together.change(connection, NodeStatus, [], ("node_id",))
        found = connection.execute(select(NodeStatus.node_id, NodeStatus.beat).order_by(NodeStatus.node_id)).all()
        assert [row.beat == b"\0\xff" for row in found] == [True, False, False]
        dialect = connection.dialect.name
        given, keys = together.keyed(dialect, ("n",)), together.keys(dialect, ("n",), [(ids[0],), (ids[0],), (99,)])
        same = select(NodeStatus.node_id).join(given, given.c.n == NodeStatus.node_id)
        assert connection.execute(same, keys).scalars().all() == [ids[0], ids[0]]
        together.add(connection, Target, [])


def _is_first(new: Any) -> Any:
    return NodeStatus.node_id == 1
