"""What a director's files say, what its daemon does with them, and what is told to a running HAProxy."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onehost.models.errors import Blocked, Pending, Permanent, Temporary
from onehost.workers.entry import Entry
from onehost.workers.host import Host, balance, proxy, route
from onehost.workers.host.balance import Server, Service
from onehost.workers.host.director import BEFORE, CONFIG, FOLDER, Director
from onehost.workers.host.machine import Machine, rehearsal
from onehost.workers.host.run import Ended, RehearsedRunner
from onehost.workers.reconcilers.node import RECONCILER as NODE
from onehost.workers.reconcilers.virtual_service import RECONCILER as SERVICE

HTTP = Service(5, "http", "198.51.100.10", 80, "web", 300, "wrr", "http")
SSH = Service(6, "ssh", "198.51.100.10", 2222, "ssh", 0, "wlc", "ssh")
WEB1 = Server(12, "web1", "10.0.0.1", ("web", "ssh"), 100, "active")
WEB2 = Server(13, "web2", "10.0.0.2", ("web",), 50, "active")


class Nodes:
    """A view."""

    def __init__(self, *entries: Entry) -> None:
        self.entries = list(entries)

    def all(self, noun: str) -> list[Entry]:
        return [one for one in self.entries if one.noun == noun]


class Programs(RehearsedRunner):
    """A machine whose programs end as told."""

    def __init__(self, real: bool = True) -> None:
        self.real = real
        self.ran: list[list[str]] = []
        self.ends: dict[str, Ended] = {}

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        seconds: float = 30,
        fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> Ended:
        self.ran.append(list(argv))
        answer = "[]" if argv[:2] == ["ip", "-j"] else ""
        return self.ends.get(" ".join(argv), Ended(tuple(argv), 0, answer))


@pytest.fixture
def director(tmp_path: Path) -> Director:
    made = Director(rehearsal(tmp_path))
    made.recover()
    return made


def commit(director: Director) -> None:
    director.validate()
    director.switch()
    director.signal()
    director.settle()


def config(tmp_path: Path) -> str:
    return (tmp_path / CONFIG.lstrip("/")).read_text()


def section(text: str, name: str) -> list[str]:
    return [line.strip() for line in text.partition(f"\nlisten {name}\n")[2].partition("\nlisten ")[0].splitlines()]


def test_the_file() -> None:
    text, structure = balance.render([SSH, HTTP], [WEB2, WEB1])
    http, ssh = section(text, "http.5"), section(text, "ssh.6")
    assert http[:3] == ["bind 198.51.100.10:80", "balance roundrobin", "source 0.0.0.0 usesrc clientip"]
    assert "stick-table type ip size 200k expire 300s peers onehost" in http and "stick on src" in http
    assert "server web1 10.0.0.1:80 id 12 weight 100 check" in http
    assert "server web2 10.0.0.2:80 id 13 weight 50 check" in http
    assert "balance leastconn" in ssh and "tcp-check expect rstring ^SSH-2.0-" in ssh
    assert not any("stick" in line or "web2" in line for line in ssh)
    assert f"    description {structure}\n" in text and "localpeer onehost" in text


def test_structure_ignores_weights_and_nothing_else() -> None:
    _, structure = balance.render([HTTP], [WEB1, WEB2])
    drained = Server(12, "web1", "10.0.0.1", ("web", "ssh"), 100, "drained")
    text, same = balance.render([HTTP], [drained, WEB2])
    assert same == structure and "id 12 weight 0 check" in text
    moved = Server(12, "web1", "10.0.0.9", ("web", "ssh"), 100, "active")
    longer = Service(5, "http", "198.51.100.10", 80, "web", 301, "wrr", "http")
    others = [balance.render([HTTP], [moved, WEB2]), balance.render([longer], [WEB1, WEB2]), balance.render([HTTP], [])]
    assert len({structure, *(other[1] for other in others)}) == 4


def test_server_numbers_fit_haproxy() -> None:
    numbers = [Server(owner, "n", "", (), 1, "active").number for owner in (1, 2**31 - 1, 2**31, 2**40)]
    assert numbers[:3] == [1, 2**31 - 1, 1] and all(1 <= number < 2**31 for number in numbers)


def test_documents_come_back() -> None:
    assert balance.service(balance.document(HTTP)) == HTTP and balance.server(balance.document(WEB1)) == WEB1


def test_one_rename_switches_haproxys_file(director: Director, tmp_path: Path) -> None:
    director.put(HTTP)
    director.put(WEB1)
    assert director.changed() == {5, 12} and "\nlisten " not in config(tmp_path)
    commit(director)
    assert "server web1" in config(tmp_path) and not director.changed()
    assert director.service(5) == HTTP and director.server(12) == WEB1 and director.server(5) is None
    director.put(HTTP)
    assert not director.changed()
    director.drop(12)
    director.restore(12)
    assert not director.changed()
    assert director.holders(replace(WEB1, owner=99)) == {12}
    assert director.holders(replace(HTTP, owner=99, name="web1")) == set()


def test_an_operators_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / CONFIG.lstrip("/")
    path.parent.mkdir(parents=True)
    path.write_text("theirs")
    for _ in range(2):
        Director(rehearsal(tmp_path)).recover()
    assert (tmp_path / BEFORE.lstrip("/")).read_text() == "theirs" and "onehost" in path.read_text()


def test_untouched_director_costs_nothing(tmp_path: Path) -> None:
    idle = Director(rehearsal(tmp_path))
    idle.restore(7)
    assert not idle.changed()
    idle.settle()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Director, Programs]:
    programs = Programs(real=False)
    made = Director(Machine(tmp_path, programs))
    made.recover()
    made.put(HTTP)
    made.put(WEB1)
    made.validate()
    made.switch()
    made.settle()
    programs.real = True
    return made, programs


def refuse(director: Director, programs: Programs, file: str, words: str) -> None:
    programs.ends[f"haproxy -c -f {file}"] = Ended(("haproxy",), 1, words)


def test_validate_names_the_culprit(tried: tuple[Director, Programs], tmp_path: Path) -> None:
    director, programs = tried
    bad = Server(13, "web2", "nowhere", ("web",), 1, "active")
    director.put(bad)
    lines = balance.render([HTTP], [WEB1, bad])[0].splitlines()
    for text, culprit in (("server web2", "13"), ("balance roundrobin", "5"), ("maxconn", "")):
        line = 1 + next(i for i, found in enumerate(lines) if text in found)
        words = f"[ALERT] (1) : config : parsing [{FOLDER}/staged/haproxy.cfg:{line}] : no"
        refuse(director, programs, f"{FOLDER}/staged/haproxy.cfg", words)
        with pytest.raises(Permanent, match=r"haproxy: .* no") as raised:
            director.validate()
        assert raised.value.culprit == culprit
    refuse(director, programs, CONFIG, "broken")
    with pytest.raises(Blocked, match="broken"):
        director.validate()


def test_a_port_of_another_program_is_refused(tried: tuple[Director, Programs]) -> None:
    director, _ = tried
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        director.put(Service(8, "taken", "127.0.0.1", port, "web", 0, "wrr", "tcp"))
        with pytest.raises(Permanent, match=f"port {port}") as raised:
            director.validate()
    assert raised.value.culprit == "8"
    director.validate()


def test_no_service_is_not_tried(tried: tuple[Director, Programs]) -> None:
    director, programs = tried
    director.drop(5)
    director.validate()
    assert programs.ran == []


class Answering:
    """Stands for HAProxy's socket: remembers commands and answers from a table."""

    def __init__(self, path: Path) -> None:
        self.said: list[str] = []
        self.answers: dict[str, str] = {}
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while True:
            client, _ = self.server.accept()
            with client:
                command = client.makefile().readline().strip()
                if command == "end":
                    return
                if command:
                    self.said.append(command)
                    client.sendall(self.answers.get(command, "").encode() + b"\n")


STATE = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight
2 http.5 12 web1 10.0.0.1 2 0 100 100 1 6
2 http.5 13 web2 10.0.0.2 2 8 50 50 1 6
"""
STAT = "# pxname,svname,scur,status,sid,\nhttp.5,FRONTEND,3,OPEN,0,\nhttp.5,web1,2,UP,12,\nhttp.5,web2,1,UP,13,\n"


@pytest.fixture
def haproxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    path = tmp_path / "s"
    monkeypatch.setattr(balance, "SOCKET", str(path))
    monkeypatch.setattr(proxy, "MASTER", str(tmp_path / "m"))
    monkeypatch.setattr(proxy, "TAKE_SECONDS", 0.2)
    monkeypatch.setattr(proxy.Proxy, "main", lambda self: 1)
    made = Answering(path)
    made.answers = {"show servers state": STATE, "show stat -1 4 -1": STAT, "show stat -1 1 -1": STAT}
    yield made
    with socket.socket(socket.AF_UNIX) as last:
        last.connect(str(path))
        last.sendall(b"end\n")
    made.thread.join()
    made.server.close()


def test_weights_alone_are_told_and_nothing_twice(haproxy: Answering, tmp_path: Path) -> None:
    running = proxy.Proxy(Machine(tmp_path, Programs()))
    haproxy.answers["show info"] = "description: onehost-1"
    running.take("onehost-1")
    running.weigh([HTTP], [Server(12, "web1", "10.0.0.1", ("web",), 100, "drained"), WEB2])
    told = [said for said in haproxy.said if said.startswith("set")]
    assert told == ["set server http.5/web1 weight 0", "set server http.5/web2 state ready"]
    running.expel(HTTP, WEB1)
    running.expel(SSH, WEB1)
    assert haproxy.said[-1] == "clear table http.5 data.server_id eq 12"
    haproxy.answers[haproxy.said[-1]] = "No such table"
    with pytest.raises(Temporary, match="No such table"):
        running.expel(HTTP, WEB1)


def test_a_foreign_haproxy_is_restarted_and_waited_for(haproxy: Answering, tmp_path: Path) -> None:
    programs = Programs()
    running = proxy.Proxy(Machine(tmp_path, programs))
    with pytest.raises(Temporary, match="has nothing and not onehost-2"):
        running.take("onehost-2")
    assert programs.ran == [["systemctl", "restart", "haproxy"]]


def test_what_haproxy_tells(haproxy: Answering, tried: tuple[Director, Programs]) -> None:
    director, _ = tried
    assert director.connections(12) == 2 and director.connections(13) == 0
    director.verify_server(WEB1)
    with pytest.raises(Permanent, match="weight 100 in http, not 0"):
        director.verify_server(Server(12, "web1", "10.0.0.1", ("web",), 100, "drained"))
    with pytest.raises(Permanent, match=r"reaches web1 at 10\.0\.0\.1"):
        director.verify_server(Server(12, "web1", "10.0.0.9", ("web",), 100, "active"))
    with pytest.raises(Permanent, match="does not know web9"):
        director.verify_server(Server(19, "web9", "10.0.0.9", ("web",), 100, "active"))
    with pytest.raises(Permanent, match="real servers of http: web2"):
        director.verify_service(HTTP)
    with pytest.raises(Permanent, match="does not listen"):
        director.verify_service(SSH)
    with pytest.raises(Permanent, match="still knows web2"):
        director.verify_no_server(13)
    with pytest.raises(Permanent, match="still serves"):
        director.verify_no_service("http.5")
    director.verify_no_server(14)


def test_routes_are_set_once_and_forwarding_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = Programs()
    monkeypatch.setattr(route, "_NONLOCAL", tmp_path / "missing")
    machine = Machine(tmp_path, programs)
    route.prepare(machine)
    programs.ends["ip rule show"] = Ended(("ip",), 0, "100: from all fwmark 0x1 lookup 100\n")
    route.prepare(machine)
    words = [" ".join(argv) for argv in programs.ran]
    assert words.count("ip rule add fwmark 1 lookup 100") == 1 and words.count("nft -f -") == 2
    programs.ends["nft -f -"] = Ended(("nft",), 1, "no such file")
    with pytest.raises(Temporary, match="no such file"):
        route.prepare(machine)


# ---- reconcilers


def node(**more: Any) -> Entry:
    spec = {"address": "10.0.0.1", "roles": ["web", "ssh"], "weight": 100, "traffic": "active", "drain_seconds": 60}
    roles = more.pop("roles", frozenset({"director"}))
    given = {key: more.pop(key) for key in ("replaces", "started_seconds", "applied_spec", "id") if key in more}
    wanted = None if more.get("spec", 1) is None else {**spec, **more}
    return Entry(**{"id": 12, "noun": "node", "name": "web1", "generation": 1, "roles": roles, **given, "spec": wanted})


def service(**given: Any) -> Entry:
    spec = {"address": "198.51.100.10", "port": 80, "role": "web", "persistence_seconds": 300}
    spec |= {"scheduler": "wrr", "check": "http"}
    made = {"id": 5, "noun": "virtual_service", "name": "http", "generation": 1, "roles": frozenset({"director"})}
    return Entry(**{**made, "spec": spec, **given})


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host.rehearsal(tmp_path)
    made.recover(frozenset({"director"}))
    return made


def apply(host: Host, *entries: Entry) -> list[dict[str, str]]:
    known: dict[str, Any] = {"node": NODE, "virtual_service": SERVICE}
    view = Nodes(*entries)
    differences = [known[one.noun].compare(one, host, view) for one in entries]
    for step in ("prepare", "stage", "commit", "finish", "verify"):
        if step == "commit":
            commit(host.director)
        else:
            for one in entries:
                getattr(known[one.noun], step)(one, host, view)
    return differences


def test_nodes_and_services_meet_in_either_order(host: Host, tmp_path: Path) -> None:
    assert apply(host, service()) == [{"service": "made"}]
    assert apply(host, node()) == [{"server": "made"}]
    assert "server web1 10.0.0.1:80 id 12 weight 100" in config(tmp_path)
    assert apply(host, node(), service()) == [{}, {}]
    assert apply(host, node(weight=7, traffic="cordoned")) == [{"weight": "100 -> 7", "traffic": "active -> cordoned"}]
    assert apply(host, node(spec=None)) == [{"server": "removed"}]
    assert "server web1" not in config(tmp_path)
    assert apply(host, service(spec=None)) == [{"service": "removed"}]
    assert "\nlisten " not in config(tmp_path)


def test_a_node_without_the_role_has_nothing_to_do(tmp_path: Path) -> None:
    host = Host.rehearsal(tmp_path)
    for entry in (node(roles=frozenset({"web"})), node(roles=frozenset({"web"}), spec=None)):
        assert NODE.compare(entry, host, Nodes()) == {}
        for step in (NODE.prepare, NODE.stage, NODE.finish, NODE.verify):
            step(entry, host, Nodes())
        assert not host.director.changed()
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_id_of_the_name_is_replaced_and_an_orphan_is_not(host: Host, tmp_path: Path) -> None:
    apply(host, service(), node())
    with pytest.raises(Permanent, match="orphan"):
        NODE.compare(node(id=20), host, Nodes())
    assert apply(host, node(id=20, replaces=12)) == [{"server": "made"}]
    assert config(tmp_path).count("server web1") == 1 and "id 20" in config(tmp_path)
    assert apply(host, service(id=30, replaces=5)) == [{"service": "made"}]
    assert config(tmp_path).count("listen http") == 1


def test_a_drain_is_pending_until_its_connections_or_its_time_are_over(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(host, service(), node())
    left = {12: 3}
    monkeypatch.setattr(host.director, "connections", left.get)
    with pytest.raises(Pending, match=r"^3 connections left on web1$"):
        apply(host, node(traffic="drained"))
    left[12] = 1
    with pytest.raises(Pending, match=r"^1 connection left on web1$"):
        apply(host, node(traffic="drained", started_seconds=59.0))
    assert apply(host, node(traffic="drained", started_seconds=60.0)) == [{}]
    left[12] = 0
    assert apply(host, node(traffic="drained")) == [{}]


def test_a_service_misses_an_applied_node(host: Host) -> None:
    apply(host, service())
    spec = dict(node().spec or {})
    SERVICE.verify(service(), host, Nodes(node()))
    with pytest.raises(Permanent, match="node web1 is not among the real servers of http"):
        SERVICE.verify(service(), host, Nodes(node(applied_spec=spec)))
