"""What it costs while nothing happens: processor and memory of relay, audit process and real worker processes."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from results import Row
from sides import READY_SECONDS, Chain

TICKS = os.sysconf("SC_CLK_TCK")


def measure(bench: Any) -> None:
    """Three nodes, each with a process of its own as under supervisor, rehearsing on a folder."""
    seconds = 10 if bench.options.small else 60
    for kind in bench.options.stores:
        place = bench.place()
        chain = Lonely(place / "onehost", 3, bench.store(kind, place), bench.broker, 3)
        try:
            chain.run()
            time.sleep(5)
            before = {name: _cpu(process.pid) for name, process in chain.processes.items()}
            began = time.monotonic()
            time.sleep(seconds)
            passed = time.monotonic() - began
            cpu = {name: (_cpu(process.pid) - before[name]) / passed * 100 for name, process in chain.processes.items()}
            memory = {name: _pss(process.pid) for name, process in chain.processes.items()}
        finally:
            chain.stop()
        workers = [name for name in cpu if name.startswith("fleet")]
        bench.results.add(Row(f"idle processor, {kind}", "% core", {
            "relay+audit": [cpu["relay"] + cpu["audit"]], "worker": [cpu[name] for name in workers]},
            note="(below 1 together, below 0.5 a worker)"))  # fmt: skip
        bench.results.add(Row(f"memory (PSS), {kind}", "MiB", {
            "relay": [memory["relay"]], "audit": [memory["audit"]], "worker": [memory[name] for name in workers]},
            note="(at most 60, 60, 45)"))  # fmt: skip


class Lonely(Chain):
    """Each worker a process of its own."""

    def fleets(self, command: Any, config: dict[str, Any]) -> None:
        for name in self.names:
            (self.folder / f"{name}.toml").write_text(
                f'node = "{name}"\nledger = "{self.folder / name}.ledger"\nrehearse = "{self.folder / name}.root"\n'
                f'[broker]\nport = {config["port"]}\nuser = "node-{name}"\n'
                f'password_file = "{self.folder / name}.password"\n'
            )
            self.start(f"fleet-{name}", [sys.executable, "-m", "onehost.workers"],
                       ONEHOST_WORKER_CONFIG=str(self.folder / f"{name}.toml"))  # fmt: skip

    def run(self) -> None:
        super().run()
        self.wait_until(self.is_done, READY_SECONDS)


def _cpu(pid: int) -> float:
    """Seconds of processor used so far, user and system."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS


def _pss(pid: int) -> float:
    """MiB of memory, shared pages divided among those who share them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024
