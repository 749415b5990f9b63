"""What a home holds is measured as root by a walk that follows no link; told once for all of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from onehost.models.errors import Temporary
from onehost.workers.host import Host
from onehost.workers.host.homes import HOME
from onehost.workers.host.machine import Machine
from onehost.workers.host.run import RealRunner
from onehost.workers.ledger import Ledger
from onehost.workers.usage import Usage

from .conftest import letter

MIB = 1 << 20


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A machine in a folder, on which programs run."""
    return Host(Machine(tmp_path / "machine", RealRunner()))


def home(host: Host, name: str, owner: int) -> Path:
    made = host.machine.path(f"{HOME}/{name}")
    made.mkdir(parents=True)
    (made / ".onehost-id").write_text(f"{owner}\n")
    return made


def test_a_home_is_measured_without_following_a_link(host: Host, tmp_path: Path) -> None:
    alice, outside = home(host, "alice", 5), tmp_path / "outside"
    outside.mkdir()
    (outside / "large").write_bytes(os.urandom(3 * MIB))
    empty = host.homes.size("alice")
    assert empty < MIB
    (alice / "mine").write_bytes(os.urandom(2 * MIB))
    (alice / "link").symlink_to(outside)
    (alice / "file-link").symlink_to(outside / "large")
    (alice / f"9\n7\t{alice}").mkdir(parents=True)
    assert 2 * MIB <= host.homes.size("alice") < 3 * MIB
    (host.machine.path(HOME) / "bob").symlink_to(outside)
    assert host.homes.size("bob") < MIB
    with pytest.raises(Temporary, match="/home/carol cannot be measured"):
        host.homes.size("carol")


def test_all_homes_of_its_own_are_told_together(host: Host, ledger: Ledger) -> None:
    stop, told = threading.Event(), []

    def tell(bodies: Sequence[dict[str, Any]]) -> None:
        told.extend(bodies)
        stop.set()

    for owner, name in ((5, "alice"), (6, "bob"), (7, "carol")):
        ledger.store([letter(owner, name=name, roles=["storage"])])
    ledger.store([letter(8, name="dave", roles=["web"])])
    for name, owner in (("alice", 5), ("bob", 99), ("dave", 8)):
        home(host, name, owner)
    Usage(ledger, host, 0.01, tell).run(stop)
    (body,) = told
    assert [each[0] for each in body["stored"]] == [5] and 0 < body["stored"][0][1] < MIB


def test_it_is_not_measured_where_nobody_wants_it(host: Host, ledger: Ledger) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=Usage(ledger, host, 0.0, lambda bodies: pytest.fail("measured")).run, args=(stop,))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
