"""`broker apply` and `broker check` against a real broker: what is made, what drifts, what a node may do."""

from __future__ import annotations

import json
import signal
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pika
import pika.exceptions
import pytest

from onehost.broker_config import routing
from onehost.broker_config.apply import check, prepare, synchronise
from onehost.broker_config.bootstrap import bootstrap
from onehost.broker_config.connections import pika_parameters
from onehost.broker_config.credentials import password_hash, secret
from onehost.broker_config.management import Management
from onehost.broker_config.state import Kind, Verb
from onehost.models.errors import Refused, Unreachable
from onehost.models.settings import Broker, Manager

pytestmark = pytest.mark.broker

NODES = ("web1", "web2")


@dataclass
class Cluster:
    """A broker made fit for some nodes."""

    rabbitmq: Any
    settings: Manager
    nodes: dict[str, str] = field(default_factory=dict)

    def add(self, node: str) -> None:
        self.nodes[node] = password_hash(secret(self.settings.secrets / routing.node_user(node)))

    def broker(self, user: str) -> Broker:
        return replace(self.settings.as_user(user), vhost=routing.VHOST)

    def channel(self, user: str) -> Any:
        return pika.BlockingConnection(pika_parameters(self.broker(user), "test")).channel()

    @property
    def management(self) -> Management:
        return Management(self.settings.management, "topology", secret(self.settings.secrets / "topology"))

    def names(self, kind: str) -> set[str]:
        return {thing["name"] for thing in self.management.get(kind)}


@pytest.fixture(scope="module")
def cluster(rabbitmq: Any, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    made = Cluster(rabbitmq, rabbitmq.settings(tmp_path_factory.mktemp("cluster")))
    bootstrap(made.settings, rabbitmq.ctl)
    for node in NODES:
        made.add(node)
    synchronise(made.settings, made.nodes)
    return made


@pytest.fixture(autouse=True)
def _is_mended(cluster: Cluster) -> Iterator[None]:
    """Every test leaves the broker as it should be, by the means under test."""
    yield
    bootstrap(cluster.settings, cluster.rabbitmq.ctl)
    synchronise(cluster.settings, cluster.nodes)
    assert check(cluster.settings, cluster.nodes) == []


def test_a_second_apply_changes_nothing(cluster: Cluster) -> None:
    before = cluster.settings.definitions.read_bytes()
    assert synchronise(cluster.settings, cluster.nodes) == []
    assert cluster.settings.definitions.read_bytes() == before


def test_everything_is_there_and_guest_is_gone(cluster: Cluster) -> None:
    assert cluster.names("users") >= {"relay", "audit", "ask", "topology", "node-web1", "node-web2"}
    assert "guest" not in cluster.names("users")
    said = cluster.rabbitmq.ctl(["-q", "-p", "onehost", "list_queues", "name", "type", "policy", "--no-table-headers"])
    assert {tuple(line.split()) for line in said.splitlines()} == {
        ("onehost.audit", "quorum", "onehost.audit"),
        ("onehost.beat", "quorum", "onehost.beat"),
        ("onehost.dead", "quorum", "onehost.dead"),
        ("onehost.node.web1", "quorum", "onehost.node"),
        ("onehost.node.web2", "quorum", "onehost.node"),
    }


def test_secrets_are_for_their_owner_and_definitions_for_the_broker(cluster: Cluster) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in cluster.settings.secrets.iterdir()}
    assert modes.keys() >= {"relay", "audit", "ask", "topology"}
    assert set(modes.values()) == {0o600}
    assert cluster.settings.definitions.stat().st_mode & 0o777 == 0o640
    text = cluster.settings.definitions.read_text()
    assert not [name for name in modes if secret(cluster.settings.secrets / name) in text]


@pytest.mark.parametrize("has_guest", [True, False])
def test_bootstrap_works_with_and_without_guest(cluster: Cluster, tmp_path: Path, has_guest: bool) -> None:
    calls: list[list[str]] = []

    def ctl(arguments: list[str], stdin: bytes) -> None:
        calls.append(list(arguments))
        cluster.rabbitmq.ctl(arguments, stdin)

    if has_guest:
        cluster.management.put("users", "guest", body={"password": "guest", "tags": "administrator"})
    settings = cluster.rabbitmq.settings(tmp_path)
    bootstrap(settings, ctl)
    assert [call[0] for call in calls] == ([] if has_guest else ["import_definitions"])
    assert [path.name for path in tmp_path.iterdir()] == ["secrets"]
    assert Management(settings.management, "topology", secret(settings.secrets / "topology")).accepts_login()
    bootstrap(settings, _never)
    synchronise(settings, cluster.nodes)
    assert check(settings, cluster.nodes) == []
    assert "guest" not in {user["name"] for user in cluster.rabbitmq.api("users", "topology", _topology(settings))}


Damage = Callable[[Management], None]
DRIFTS: dict[str, tuple[Damage, tuple[str, str, str]]] = {
    "policy removed": (
        lambda m: m.delete("policies", "onehost", "onehost.node"),
        ("create", "policy", "onehost.node"),
    ),
    "policy changed": (
        lambda m: m.put(
            "policies", "onehost", "onehost.beat", body={"pattern": "^x$", "definition": {"max-length": 1}}
        ),
        ("change", "policy", "onehost.beat"),
    ),
    "policy added": (
        lambda m: m.put("policies", "onehost", "onehost.mine", body={"pattern": "^x$", "definition": {"expires": 1}}),
        ("remove", "policy", "onehost.mine"),
    ),
    "queue removed": (
        lambda m: m.delete("queues", "onehost", "onehost.node.web1"),
        ("create", "queue", "onehost.node.web1"),
    ),
    "queue of another type": (
        lambda m: _make_anew(m, "onehost.node.web1"),
        ("change", "queue", "onehost.node.web1"),
    ),
    "exchange removed": (
        lambda m: m.delete("exchanges", "onehost", "onehost.jobs"),
        ("create", "exchange", "onehost.jobs"),
    ),
    "binding added": (
        lambda m: m.post("bindings", "onehost", "e", "onehost.jobs", "q", "onehost.node.web1", body=_key("*.web2.*")),
        ("remove", "binding", "onehost.jobs -> onehost.node.web1: *.web2.*"),
    ),
    "binding between exchanges": (
        lambda m: m.post("bindings", "onehost", "e", "onehost.jobs", "e", "onehost.dead", body=_key("#")),
        ("remove", "binding", "onehost.jobs -> onehost.dead: # (exchange %23)"),
    ),
    "rights widened": (
        lambda m: m.put("permissions", "onehost", "node-web1", body={"configure": ".*", "write": ".*", "read": ".*"}),
        ("change", "permission", "node-web1"),
    ),
    "our own rights removed": (
        lambda m: m.delete("permissions", "onehost", "topology"),
        ("create", "permission", "topology"),
    ),
    "rights elsewhere": (
        lambda m: m.put("permissions", "/", "node-web1", body={"configure": ".*", "write": ".*", "read": ".*"}),
        ("remove", "permission", "node-web1 in /"),
    ),
    "rights on keys removed": (
        lambda m: m.delete("topic-permissions", "onehost", "node-web1"),
        ("create", "topic permission", "node-web1 on onehost.events"),
    ),
    "limits removed": (
        lambda m: [m.delete("user-limits", "node-web1", limit) for limit in ("max-connections", "max-channels")],
        ("create", "limits", "node-web1"),
    ),
    "another password": (
        lambda m: m.put("users", "node-web1", body={"password": "x", "tags": ""}),
        ("change", "credential", "node-web1"),
    ),
    "more power": (
        lambda m: m.put("users", "audit", body={"password": "x", "tags": "administrator"}),
        ("change", "user", "audit"),
    ),
    "a node nobody knows": (
        lambda m: m.put("users", "node-ghost", body={"password": "x", "tags": ""}),
        ("remove", "user", "node-ghost"),
    ),
    "guest is back": (
        lambda m: m.put("users", "guest", body={"password": "guest", "tags": "administrator"}),
        ("remove", "user", "guest"),
    ),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_check_shows_drift_and_apply_mends_it(cluster: Cluster, drift: str) -> None:
    damage, expected = DRIFTS[drift]
    damage(cluster.management)
    found = check(cluster.settings, cluster.nodes)
    assert expected in [(step.verb, step.kind, step.name) for step in found]
    assert check(cluster.settings, cluster.nodes) == found
    assert synchronise(cluster.settings, cluster.nodes) == found
    assert check(cluster.settings, cluster.nodes) == []


def test_an_edited_definitions_file_is_drift(cluster: Cluster) -> None:
    cluster.settings.definitions.write_text("{}")
    assert [(step.verb, step.kind) for step in check(cluster.settings, cluster.nodes)] == [
        (Verb.CHANGE, Kind.DEFINITIONS)
    ]
    synchronise(cluster.settings, cluster.nodes)
    assert len(json.loads(cluster.settings.definitions.read_text())["queues"]) == 5


def test_a_removed_node_loses_user_queue_and_connection_and_others_keep_theirs(cluster: Cluster) -> None:
    management = cluster.management
    management.put("users", "operator", body={"password": "x", "tags": "management"})
    management.put("permissions", "onehost", "operator", body={"configure": ".*", "write": ".*", "read": ".*"})
    operator = Management(cluster.settings.management, "operator", "x")
    operator.put("queues", "onehost", "somebody.else", body={"durable": True})
    cluster.add("web9")
    synchronise(cluster.settings, cluster.nodes)
    leaving, staying = cluster.channel("node-web9"), cluster.channel("node-web1")
    try:
        del cluster.nodes["web9"]
        steps = {(step.verb, step.kind, step.name) for step in synchronise(cluster.settings, cluster.nodes)}
        assert {("remove", "user", "node-web9"), ("remove", "queue", "onehost.node.web9")} <= steps
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            leaving.connection.process_data_events(time_limit=10)
        staying.queue_declare("onehost.node.web1", passive=True)
        assert "operator" in cluster.names("users")
        assert operator.accepts_login()
        assert {"somebody.else", "onehost.node.web1"} <= cluster.names("queues")
        assert "onehost.node.web9" not in cluster.names("queues")
        with pytest.raises(pika.exceptions.ProbableAuthenticationError):
            cluster.channel("node-web9")
    finally:
        staying.connection.close()
        operator.delete("queues", "onehost", "somebody.else")
        management.delete("users", "operator")


def test_a_new_password_of_a_node_ends_its_connections(cluster: Cluster) -> None:
    channel = cluster.channel("node-web1")
    cluster.nodes["web1"] = password_hash("another")
    synchronise(cluster.settings, cluster.nodes)
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        channel.connection.process_data_events(time_limit=10)
    cluster.add("web1")


def _publish(exchange: str, key: str, **properties: Any) -> Callable[[Any], None]:
    def probe(channel: Any) -> None:
        channel.confirm_delivery()
        channel.basic_publish(exchange, key, b"{}", pika.BasicProperties(**properties))

    return probe


def _consume(queue: str) -> Callable[[Any], None]:
    return lambda channel: channel.basic_consume(queue, lambda *_: None)


#: Who tries what, and the broker's answer: 0 is yes; a pair is for brokers before and from 4.0.
PROBES: dict[str, tuple[str, Callable[[Any], Any], int | tuple[int, int]]] = {
    "own event": ("node-web1", _publish("onehost.events", "ack.web1.account", user_id="node-web1"), 0),
    "own hello": ("node-web1", _publish("onehost.events", "hello.web1.-"), 0),
    "another's event": ("node-web1", _publish("onehost.events", "ack.web2.account"), 403),
    "a name that only begins alike": ("node-web1", _publish("onehost.events", "ack.web11.account"), 403),
    "another's event by CC": (
        "node-web1",
        _publish("onehost.events", "ack.web1.account", headers={"CC": ["ack.web2.account"]}),
        (0, 403),
    ),
    "another's name": ("node-web1", _publish("onehost.events", "ack.web1.account", user_id="relay"), 406),
    "a job": ("node-web1", _publish("onehost.jobs", "account.web2.apply"), 403),
    "past the exchanges": ("node-web1", _publish("", "onehost.node.web2"), 403),
    "own queue": ("node-web1", _consume("onehost.node.web1"), 0),
    "another's queue": ("node-web1", _consume("onehost.node.web2"), 403),
    "purge another's queue": ("node-web1", lambda c: c.queue_purge("onehost.node.web2"), 403),
    "the audit queue": ("node-web1", _consume("onehost.audit"), 403),
    "dead letters": ("node-web1", _consume("onehost.dead"), 403),
    "bind own queue wider": ("node-web1", lambda c: c.queue_bind("onehost.node.web1", "onehost.jobs", "#"), 403),
    "delete own queue": ("node-web1", lambda c: c.queue_delete("onehost.node.web1"), 403),
    "a queue of its own": ("node-web1", lambda c: c.queue_declare("", exclusive=True), 403),
    "depth of own queue": ("node-web1", lambda c: c.queue_declare("onehost.node.web1", passive=True), 0),
    "relay sends jobs": ("relay", _publish("onehost.jobs", "account.web1.apply", user_id="relay"), 0),
    "relay forges events": ("relay", _publish("onehost.events", "ack.web1.account"), 403),
    "relay reads a node's queue": ("relay", _consume("onehost.node.web1"), 403),
    "audit reads acknowledgements": ("audit", _consume("onehost.audit"), 0),
    "audit reads beats": ("audit", _consume("onehost.beat"), 0),
    "audit reads dead letters": ("audit", _consume("onehost.dead"), 0),
    "audit reads a node's queue": ("audit", _consume("onehost.node.web1"), 403),
    "audit sends jobs": ("audit", _publish("onehost.jobs", "account.web1.apply"), 403),
    "ask makes its queue": ("ask", lambda c: c.queue_declare("onehost.answer.a1", exclusive=True), 0),
    "ask takes a node's queue": ("ask", lambda c: c.queue_delete("onehost.node.web1"), 403),
}


@pytest.mark.parametrize("probe", PROBES)
def test_rights(cluster: Cluster, probe: str) -> None:
    user, attempt, expected = PROBES[probe]
    if isinstance(expected, tuple):
        expected = expected[cluster.management.version() >= (4, 0)]
    channel = cluster.channel(user)
    code = 0
    try:
        attempt(channel)
    except pika.exceptions.ChannelClosedByBroker as refusal:
        code = refusal.reply_code
    finally:
        channel.connection.close()
    assert code == expected
    cluster.management.delete("queues", "onehost", "onehost.node.web1", "contents")
    cluster.management.delete("queues", "onehost", "onehost.audit", "contents")


def test_ask_hears_answers_to_itself(cluster: Cluster) -> None:
    ask, node = cluster.channel("ask"), cluster.channel("node-web1")
    try:
        ask.queue_declare("onehost.answer.a1", exclusive=True)
        ask.queue_bind("onehost.answer.a1", routing.EVENTS, "answer.*.a1")
        assert check(cluster.settings, cluster.nodes) == []
        _publish(routing.EVENTS, routing.answer_key("web1", "a1"))(node)
        assert ask.basic_get("onehost.answer.a1", auto_ack=True)[2] == b"{}"
    finally:
        ask.connection.close()
        node.connection.close()


def test_a_full_set_of_connections_is_refused_one_more(cluster: Cluster) -> None:
    held = [cluster.channel("node-web2") for _ in range(6)]
    try:
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            cluster.channel("node-web2")
    finally:
        for channel in held:
            channel.connection.close()


def test_a_wiped_broker_comes_back_complete_from_the_definitions_file(cluster: Cluster) -> None:
    rabbitmq = cluster.rabbitmq
    rabbitmq.stop(signal.SIGKILL)
    rabbitmq.wipe()
    rabbitmq.extra_configuration = [f"load_definitions = {cluster.settings.definitions}"]
    try:
        rabbitmq.start()
        assert check(cluster.settings, cluster.nodes) == []
        cluster.channel("node-web1").connection.close()
        with pytest.raises(urllib.error.HTTPError):
            rabbitmq.api("whoami")
    finally:
        rabbitmq.extra_configuration = []


def test_a_first_broker_boots_from_a_prepared_file(cluster: Cluster, tmp_path: Path) -> None:
    settings, rabbitmq = cluster.rabbitmq.settings(tmp_path), cluster.rabbitmq
    prepare(settings, cluster.nodes)
    prepare(settings, cluster.nodes)
    rabbitmq.stop(signal.SIGKILL)
    rabbitmq.wipe()
    rabbitmq.extra_configuration = [f"load_definitions = {settings.definitions}"]
    try:
        rabbitmq.start()
        bootstrap(settings, _never)
        # Policies for newer brokers differ in form; nothing else may.
        assert {step.kind for step in synchronise(settings, cluster.nodes)} <= {Kind.POLICY, Kind.DEFINITIONS}
        assert check(settings, cluster.nodes) == []
    finally:
        rabbitmq.extra_configuration = []


def test_a_wrong_password_and_a_dead_address_are_told_apart_from_each_other(cluster: Cluster) -> None:
    with pytest.raises(Unreachable, match="401") as refused:
        Management(cluster.settings.management, "topology", "wrong").get("users")
    assert refused.value.hint
    with pytest.raises(Unreachable, match="Connection refused") as down:
        Management("http://127.0.0.1:1", "topology", "x").get("users")
    assert "rabbitmq_management" in down.value.hint
    cluster.management.put("users", "node-web1", body={"password": "known", "tags": "management"})
    with pytest.raises(Refused):
        Management(cluster.settings.management, "node-web1", "known").get("users")


def _never(arguments: Any, stdin: bytes) -> None:
    raise AssertionError(f"rabbitmqctl {arguments} was not needed")


def _topology(settings: Manager) -> str:
    return secret(settings.secrets / "topology")


def _key(pattern: str) -> dict[str, Any]:
    return {"routing_key": pattern, "arguments": {}}


def _make_anew(management: Management, queue: str) -> None:
    management.delete("queues", "onehost", queue)
    management.put("queues", "onehost", queue, body={"durable": True, "arguments": {"x-queue-type": "classic"}})
    management.post("bindings", "onehost", "e", "onehost.jobs", "q", queue, body=_key("*.web1.*"))
