"""Drift and daemons over the bus: asked and answered, put back by jobs, marked by beats; and what a person is told."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from onehost.models.errors import Invalid, Permanent
from onehost.producer import EventFilter
from onehost.producer.audit import Audit
from onehost.producer.presence import Presence
from onehost.workers.host.machine import rehearsal

from .command_line import CommandLine
from .conftest import Cluster, wait_until
from .manager import Store

HASH = "$6$" + "a" * 16 + "$" + "b" * 86


def command_line(cluster: Cluster) -> CommandLine:
    """The command line with the settings of the cluster."""
    broker, line = cluster.settings.broker, CommandLine(cluster.folder)
    top = {"store": cluster.settings.store, "secrets": str(cluster.settings.secrets),
           "management": cluster.settings.management}  # fmt: skip
    words = [f"{key} = {json.dumps(value)}" for key, value in top.items()]
    words += ["[broker]", f"host = {json.dumps(broker.host)}", f"port = {broker.port}"]
    line.config.write_text("\n".join([*words, f"vhost = {json.dumps(broker.vhost)}", ""]))
    return line


def all_online(cluster: Cluster) -> None:
    wait_until(lambda: {node["state"] for node in cluster.onehost.status()["nodes"]} == {"online"})


def test_drift_is_told_put_back_and_cleared(cluster: Cluster) -> None:
    onehost, line = cluster.onehost, command_line(cluster)
    onehost.wait(onehost.account_create("alice", password_hash=HASH))
    all_online(cluster)
    assert line.run("node", "check", "--all").exit_code == 0
    host: Any = cluster.workers["web1"]._host
    host.machine, host.recover_again = rehearsal(cluster.folder / "machine"), lambda names: None
    state = cluster.recorders["web1"]["account"].state
    state["alice"] = (state["alice"][0], {"edited": "by hand"})
    done = line.run("node", "check", "web1")
    assert done.exit_code == 1 and "account alice: would be put back (it: changed)" in done.output
    assert state["alice"][1] == {"edited": "by hand"}
    assert line.run("node", "check", "web1", "--repair", "--dry-run").exit_code == 1
    adopted = line.run("node", "check", "web1", "--adopt")
    assert adopted.exit_code == 1 and "not adopted: no field of account can say this" in adopted.output
    recorder: Any = cluster.recorders["web1"]["account"]
    recorder.adopt = lambda entry, host: ({"access": "shell"}, "")
    would = line.good("node", "check", "web1", "--adopt", "--dry-run")
    assert would.strip() == "web1: account alice: access: shell (would be)"
    assert onehost.get("account", "alice")["spec"]["access"] == "sftp"
    # The periodic look finds it, too; a beat brings it.
    cluster.workers["web1"]._watch_over.soon()
    wait_until(lambda: found(cluster) == ["found"])
    assert "drift: account alice" in line.good("node", "show", "web1")
    shown = json.loads(line.run("-o", "json", "status", "--no-broker").stdout)
    assert "drift web1" in [f"{reason['kind']} {reason['about']}" for reason in shown["reasons"]]
    repaired = line.run("-o", "json", "node", "check", "web1", "--repair", "--reason", "not by us")
    assert repaired.exit_code == 0, repaired.output
    assert state["alice"][1] != {"edited": "by hand"}
    job = json.loads(repaired.stdout)["jobs"]["web1"]
    assert job["kind"] == "node.repair" and job["state"] == "applied" and "account alice" in str(job["nodes"])
    wait_until(lambda: found(cluster) == ["found", "cleared"])
    assert line.run("node", "check", "web1").exit_code == 0


def found(cluster: Cluster) -> list[str]:
    events = cluster.onehost.events(EventFilter(kind="node.drift"))
    return [event["outcome"] for event in events][::-1]


def test_a_node_that_cannot_be_asked_says_so(cluster: Cluster) -> None:
    line = command_line(cluster)
    all_online(cluster)
    cluster.stop_worker("web2")
    done = line.run("node", "check", "web2")
    assert done.exit_code == 7 and "web2: did not answer" in done.output
    wait_until(lambda: "offline" in str([n["state"] for n in cluster.onehost.status()["nodes"]]))
    done = line.run("node", "check", "--all")
    assert done.exit_code == 7 and "web2: was not asked: it is offline" in done.output and "web1: equal" in done.output
    assert line.run("node", "check", "nowhere").exit_code == 4
    assert (
        line.run("node", "check").exit_code == line.run("node", "check", "web1", "--repair", "--adopt").exit_code == 2
    )
    assert line.run("daemon", "list", "web2").exit_code == 7


@dataclass
class Fake:
    """A daemon that only counts."""

    name: str = "apache"
    pid: int = 7
    did: list[str] = field(default_factory=list)
    part: Any = None
    key = "apache"
    installed = True
    words: str = ""

    def pids(self) -> dict[str, int]:
        return {"apache2": self.pid}

    def runs(self) -> bool:
        return bool(self.pid)

    def enabled(self) -> bool:
        return True

    def boots(self, comes: bool) -> None:
        self.did.append(f"boots {comes}")

    def must_pass(self) -> None:
        if self.words:
            raise Permanent(self.words)

    def tests(self) -> str:
        return self.words

    def start(self) -> None:
        self.did.append("start")
        self.pid = 8

    def stop(self) -> None:
        self.did.append("stop")
        self.pid = 0

    def restart(self) -> None:
        self.must_pass()
        self.pid += 1

    def tail(self, lines: int, only: str, secrets: list[str]) -> list[str]:
        assert HASH in secrets
        return [f"{lines} {only}"]


def test_daemons_are_ordered_about_and_asked(cluster: Cluster) -> None:
    onehost, line, fake = cluster.onehost, command_line(cluster), Fake()
    onehost.wait(onehost.account_create("alice", password_hash=HASH))
    all_online(cluster)
    host: Any = cluster.workers["web1"]._host
    host.programs, host.needed_programs = {"apache": fake}, lambda roles: [fake]
    assert "would restart it; it is running" in line.good("daemon", "restart", "web1", "apache", "--dry-run")
    done = json.loads(line.good("-o", "json", "daemon", "restart", "web1", "apache", "--wait"))
    assert (done["job"]["kind"], done["job"]["state"]) == ("daemon.restart", "applied")
    assert "running (apache2 7) -> running (apache2 8)" in str(done["job"]["nodes"])
    event = next(iter(onehost.events(EventFilter(kind="daemon.restart"))))
    assert event["detail"]["daemon"] == "apache" and event["actor"] == "tester"
    fake.words = "foo.conf:3: Invalid command"
    refused = line.run("daemon", "restart", "web1", "apache", "--wait")
    assert refused.exit_code == 1 and "foo.conf:3" in refused.output
    tested = line.run("daemon", "test", "web1", "apache")
    assert tested.exit_code == 1 and "foo.conf:3: Invalid command" in tested.output
    assert line.good("daemon", "log", "web1", "apache", "-n", "7", "--only", "error").strip() == "7 error"
    fake.words = ""
    assert line.run("daemon", "reload", "web1", "php", "--wait").exit_code == 1
    assert "running" in line.good("daemon", "list", "web1") and "idle" not in line.good("daemon", "list", "web1")


def test_a_daemon_stopped_on_purpose_stays_stopped_and_shows(cluster: Cluster) -> None:
    line, fake = command_line(cluster), Fake()
    all_online(cluster)
    host: Any = cluster.workers["web1"]._host
    host.programs, host.needed_programs = {"apache": fake}, lambda roles: [fake]
    line.good("daemon", "stop", "web1", "apache", "--wait")
    assert fake.did == ["stop", "boots False"]
    wait_until(lambda: "apache on web1 is stopped on purpose" in line.run("status", "--no-broker").stdout)
    assert line.run("daemon", "status", "web1", "apache").exit_code == 1
    cluster.stop_worker("web1")
    cluster.start_worker("web1")
    wait_until(lambda: "web1" in cluster.workers and cluster.workers["web1"].sync.synced.is_set())
    host = cluster.workers["web1"]._host
    assert host.stopped == {"apache"}
    host.programs, host.needed_programs = {"apache": fake}, lambda roles: [fake]
    line.good("daemon", "start", "web1", "apache", "--wait")
    assert fake.did[2:] == ["boots True", "start"] and host.stopped == frozenset()
    wait_until(lambda: "on purpose" not in line.run("status", "--no-broker").stdout)


# ---- the manager alone


def test_the_daemon_must_be_one_that_is_known(store: Store) -> None:
    with pytest.raises(Invalid, match="daemon"):
        store.onehost.do("node", "w1", "daemon-restart", {"daemon": "rm -rf"})
    with pytest.raises(Invalid, match="daemon"):
        store.onehost.do("node", "w1", "daemon-restart")
    with pytest.raises(Invalid, match="takes no fields"):
        store.onehost.do("node", "w1", "repair", {"daemon": "apache"})


def test_drift_is_one_event_whatever_is_started_anew(store: Store) -> None:
    drift = {"/etc/x": "is changed"}
    store.say(store.beat("w1", drift=drift, drifted=1), store.beat("w2"))
    store.say(store.beat("w1", drift=drift, drifted=1))
    store.audit = Audit(store.engine, Presence(15))
    store.say(store.beat("w1", drift=drift, drifted=1))
    assert [event["outcome"] for event in store.onehost.events(EventFilter(kind="node.drift"))] == ["found"]
    store.say(store.beat("w1"))
    events = list(store.onehost.events(EventFilter(kind="node.drift")))
    assert [event["outcome"] for event in events] == ["cleared", "found"]
    assert events[1]["detail"]["found"] == drift and events[1]["node"] == "w1"
