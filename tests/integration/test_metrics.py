"""Real processes tell their numbers in Prometheus' form, to this machine alone, and live on without a port."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from onehost import migrations
from onehost.broker_config import apply, bootstrap, routing
from onehost.models.metrics import READER_SECONDS, Metric, Tally, serve
from onehost.producer import Onehost, nodes
from onehost.producer.metrics import AUDIT, RELAY
from onehost.workers.metrics import WORKER

from ..services.process import free_ports
from .conftest import wait_until


def read(port: int) -> dict[str, dict[tuple[str, ...], float]]:
    """What a process tells: by sample its values by labels. Parsed by Prometheus' own library."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, family.name
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.values()))] = sample.value
    return found


def answers(port: int) -> bool:
    try:
        return bool(read(port))
    except OSError:
        return False


class Processes:
    """Relay, audit process and one worker, each a process of its own."""

    def __init__(self, broker: Any, folder: Path) -> None:
        self.relay, self.audit, self.worker = free_ports(3)
        self.settings = replace(broker.settings(folder))
        migrations.upgrade(self.settings.store)
        bootstrap.bootstrap(self.settings, lambda arguments, stdin: broker.ctl(arguments, stdin))
        self.onehost = Onehost(self.settings, actor="test")
        self.onehost.node_add("web1", "10.0.0.11", ["web"])
        password = folder / "password"
        password.write_text(nodes.credentials(self.onehost.engine, "web1"))
        password.chmod(0o600)
        apply.synchronise(self.settings, nodes.hashes(self.onehost.engine))
        names = ("store", "management", "secrets", "definitions")
        lines = [f'{name} = "{getattr(self.settings, name)}"' for name in names]
        lines += [f"relay_metrics_port = {self.relay}", f"audit_metrics_port = {self.audit}"]
        (folder / "onehost.toml").write_text("\n".join([*lines, f"[broker]\nport = {broker.port}\n"]))
        (folder / "machine").mkdir()
        (folder / "worker.toml").write_text(
            f'node = "web1"\nledger = "{folder}/ledger.db"\nrehearse = "{folder}/machine"\nbeat_seconds = 0.5\n'
            f"metrics_port = {self.worker}\n[broker]\nport = {broker.port}\n"
            f'user = "{routing.node_user("web1")}"\npassword_file = "{password}"\n'
        )
        self._folder = folder
        programs = (["-m", "onehost.producer", "relay"], ["-m", "onehost.producer", "audit"], ["-m", "onehost.workers"])
        self.running = {program[-1]: self._start(program) for program in programs}

    def _start(self, program: list[str]) -> subprocess.Popen[bytes]:
        own = {"ONEHOST_CONFIG": f"{self._folder}/onehost.toml", "ONEHOST_WORKER_CONFIG": f"{self._folder}/worker.toml"}
        with (self._folder / f"{program[-1]}.log").open("ab") as log:
            return subprocess.Popen([sys.executable, *program], env=os.environ | own, stdout=log, stderr=log)

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()

    def close(self) -> None:
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            assert process.wait(20) == 0
        self.onehost.close()


@pytest.fixture
def processes(rabbitmq: Any, tmp_path: Path) -> Iterator[Processes]:
    made = Processes(rabbitmq, tmp_path)
    yield made
    made.close()


@pytest.mark.broker
def test_what_real_processes_tell(processes: Processes) -> None:
    wait_until(lambda: all(answers(port) for port in (processes.relay, processes.audit, processes.worker)), 40)
    wait_until(lambda: processes.onehost.get("node", "web1")["open"] == 0, 40)
    wait_until(lambda: processes.onehost.status()["nodes"][0]["state"] == "online", 40)
    wait_until(lambda: read(processes.relay)["onehost_relay_waiting"][()] == 0)
    relay = read(processes.relay)
    assert relay["onehost_relay_published_total"][()] >= 1 and relay["onehost_relay_unroutable_total"][()] == 0
    assert relay["onehost_relay_confirm_seconds_count"] == relay["onehost_relay_batch_letters_count"]
    audit = read(processes.audit)
    assert audit["onehost_audit_acknowledgements_total"][()] >= 1 and audit["onehost_audit_refused_total"][()] == 0
    assert audit["onehost_audit_node_state"] == {("online", "web1"): 1}
    assert audit["onehost_audit_open_placements"][()] == audit["onehost_audit_oldest_open_seconds"][()] == 0
    worker = read(processes.worker)
    assert worker["onehost_worker_rounds_total"][()] >= 1 == worker["onehost_worker_synced"][()]
    assert worker["onehost_worker_commit_seconds_count"][()] > 0
    assert set(worker["onehost_worker_phase_seconds_count"]) >= {("compare",), ("verify",)}
    for told, metrics in ((relay, RELAY), (audit, AUDIT), (worker, WORKER)):
        assert told.keys() >= {sample(metric) for metric in metrics}
        assert told["process_resident_memory_bytes"][()] > 0
    for port in (processes.relay, processes.audit, processes.worker):
        assert listens_on(port) == {"0100007F"}, "to this machine alone"


def sample(metric: Metric) -> str:
    return metric.name + {"counter": "_total", "gauge": "", "histogram": "_count"}[metric.kind]


def listens_on(port: int) -> set[str]:
    """The addresses in hexadecimal on which somebody listens at a port."""
    tables = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    rows = [line.split() for line in tables.splitlines()]
    return {row[1].partition(":")[0] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"}


@pytest.mark.broker
def test_a_port_that_is_taken_stops_nobody(rabbitmq: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(f"{__name__}.free_ports", lambda count: [taken.getsockname()[1]] * count)
        made = Processes(rabbitmq, tmp_path)
        try:
            wait_until(lambda: made.onehost.get("node", "web1")["open"] == 0, 40)
            assert all('"no metrics"' in made.log(name) for name in made.running)
        finally:
            made.close()


def test_a_slow_reader_holds_others_up_for_seconds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    tally = Tally()
    tally.count("onehost_test_things", 3)
    serve(port, [Metric("onehost_test_things", "counter", "Things.")], [tally], dict)
    began = time.monotonic()
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
    assert read(port)["onehost_test_things_total"] == {(): 3}
    assert time.monotonic() - began < 10 * READER_SECONDS
    for each in slow:
        each.close()


def test_what_cannot_be_asked_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    (port,) = free_ports(1)

    def look() -> dict[str, float]:
        raise RuntimeError("the store is away")

    metrics = [Metric("onehost_test_things", "counter", "Things."), Metric("onehost_test_open", "gauge", "Open.")]
    serve(port, metrics, [Tally()], look)
    told = read(port)
    assert told["onehost_test_things_total"] == {(): 0} and "onehost_test_open" not in told
    assert "some numbers are missing" in caplog.text


@pytest.mark.parametrize("metric", [*RELAY, *AUDIT, *WORKER], ids=lambda metric: metric.name)
def test_names_follow_the_rules(metric: Metric) -> None:
    assert re.fullmatch(r"onehost_(relay|audit|worker)_[a-z_]+", metric.name)
    assert metric.help.endswith(".") and not metric.name.endswith("_total"), "the library adds it to counters"
    assert set(metric.labels) <= {"node", "state", "phase"}, "no label names an account"
    assert metric.kind != "histogram" or metric.bounds == tuple(sorted(metric.bounds))


def test_nothing_is_loaded_without_a_port() -> None:
    program = "import sys, onehost.producer.main, onehost.workers.main as w; from onehost.models.metrics import serve;"
    program += "serve(0, (), (), dict); print([m for m in sys.modules if 'prometheus' in m or m == 'http.server'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
