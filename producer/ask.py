"""Asks nodes: what a wish would change there, what differs, how a daemon is. Answered within seconds or not at all."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, select

from ..broker_config import routing
from ..broker_config.connections import pika_parameters
from ..broker_config.letters import Letter
from ..broker_config.publisher import Publisher
from ..models import nouns, states, wire
from ..models.settings import Broker, Manager
from ..models.store import NodeStatus, Resource, Revision, Target, reading
from . import query
from .membership import nodes
from .submit import submit
from .wish import Receipt, Wish

#: How long nodes may take to answer, in seconds; an unread question is dropped by the broker after that.
ANSWER_SECONDS = 3.0
SILENT = "did not answer"


def dry_run(engine: Engine, settings: Manager, wish: Wish) -> tuple[Receipt, dict[str, Any]]:
    """What a wish would change in desired state, and by node what it would change there: a difference or a reason.

    Raises Refused like the wish itself. A broker or node that does not answer is said so, never raised.
    """
    asker = uuid.uuid4().hex[:12]
    letters: dict[str, Letter] = {}
    answers: dict[str, Any] = {}

    def look(connection: Connection, receipts: list[Receipt]) -> None:
        for node, is_there, letter in _questions(connection, receipts[0], asker):
            if is_there:
                letters[node] = letter
            else:
                answers[node] = {"reason": "was not asked: it is not online"}

    receipt = submit(engine, settings, [wish], dry_run=True, look=look)[0]
    if letters:
        answers |= _ask(settings.as_user("ask"), asker, letters, ANSWER_SECONDS)
    return receipt, dict(sorted(answers.items()))


def question(engine: Engine, settings: Manager, names: Collection[str], asks: str, payload: Mapping[str, Any],
             seconds: float) -> dict[str, Any]:  # fmt: skip
    """Asks nodes by name; none named: all. By node what it tells, or the `reason` why it does not.

    Raises NotFound for a node that is not there, Unreachable if the store is not.
    """
    asker = uuid.uuid4().hex[:12]
    letters: dict[str, Letter] = {}
    answers: dict[str, Any] = {}
    with reading(engine) as connection:
        found = {node["name"]: node for node in query.nodes(connection)}
        for name in names:
            query.resource(connection, "node", name)
    for name in names or found:
        node = found[name]
        if node["state"] not in (states.NodeState.ONLINE, states.NodeState.UNSYNCED):
            answers[name] = {"reason": f"was not asked: it is {node['state']}"}
            continue
        body = wire.encode(
            form="question", node=name, question=name, asker=asker, id=node["id"], noun="node", name=name,
            generation=node["generation"], roles=sorted(node["roles"]), payload=dict(payload), asks=asks,
            seconds=seconds,
        )  # fmt: skip
        key = routing.job_key("node", name, "question")
        letters[name] = Letter(f"question.{asker}.{name}", key, body, type="question",
                               expiration_ms=int(seconds * 1000))  # fmt: skip
    if letters:
        answers |= _ask(settings.as_user("ask"), asker, letters, seconds)
    return dict(sorted(answers.items()))


def _questions(connection: Connection, receipt: Receipt, asker: str) -> list[tuple[str, bool, Letter]]:
    if receipt.job_id is None:
        return []
    resource = connection.execute(select(Resource).where(Resource.id == receipt.resource_id)).one()
    revision = connection.execute(
        select(Revision.payload, Revision.secrets)
        .where(Revision.resource_id == resource.id, Revision.generation == receipt.generation)
    ).one()  # fmt: skip
    alive = nodes(connection)
    targets = connection.execute(
        select(Target.node_id, NodeStatus.state)
        .outerjoin(NodeStatus, NodeStatus.node_id == Target.node_id)
        .where(Target.job_id == receipt.job_id)
    )
    found = []
    for target in targets:
        node = alive[target.node_id]
        body = wire.encode(
            form="question", node=node.name, question=node.name, asker=asker, id=resource.id, noun=resource.noun,
            name=resource.name, generation=receipt.generation, replaces=resource.replaces, roles=sorted(node.roles),
            secrets=json.loads(revision.secrets) if revision.secrets else {},
            payload=None if revision.payload is None else json.loads(revision.payload),
        )  # fmt: skip
        key = routing.job_key(nouns.noun(resource.noun).name, node.name, "question")
        letter = Letter(f"question.{asker}.{node.name}", key, body, type="question",
                        expiration_ms=int(ANSWER_SECONDS * 1000))  # fmt: skip
        found.append((node.name, target.state == states.NodeState.ONLINE, letter))
    return found


def _ask(broker: Broker, asker: str, letters: Mapping[str, Letter], seconds: float) -> dict[str, Any]:
    """Answers by node; whatever goes wrong on the way is the reason of those that have not answered."""
    import pika

    try:
        connection = pika.BlockingConnection(pika_parameters(broker, "ask"))
    except Exception as error:  # pika raises some outside its own tree
        return {node: {"reason": f"was not asked: {type(error).__name__}"} for node in letters}
    try:
        channel = connection.channel()
        queue = f"{routing.ANSWER_QUEUE_PREFIX}{asker}"
        channel.queue_declare(queue, exclusive=True)
        channel.queue_bind(queue, routing.EVENTS, f"answer.*.{asker}")
        publisher = Publisher(broker, routing.JOBS, purpose="ask", confirm_timeout_seconds=ANSWER_SECONDS)
        report = publisher.send(list(letters.values()))
        publisher.close()
        silent = {node: {"reason": report.why or SILENT} for node in letters}
        return silent | _listen(channel, queue, list(letters), seconds)
    finally:
        connection.close()


def _answer(body: bytes, user: str | None) -> wire.Letter | None:
    try:
        letter = wire.decode(body)
    except wire.Undecodable:
        return None  # a node that talks nonsense has not answered
    is_own = user == routing.NODE_USER_PREFIX + letter.node
    return letter if letter.form == "answer" and is_own else None


def _listen(channel: Any, queue: str, asked: Sequence[str], seconds: float) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    until = time.monotonic() + seconds
    for _, properties, body in channel.consume(queue, auto_ack=True, inactivity_timeout=0.1):
        if body is not None and (letter := _answer(body, properties.user_id)) and letter.node in asked:
            answers[letter.node] = {key: letter[key] for key in ("difference", "reason", "told")}
        if len(answers) == len(asked) or time.monotonic() > until:
            break
    channel.cancel()
    return answers
