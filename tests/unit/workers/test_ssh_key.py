"""SSH keys on a rehearsed machine: sections of one file that do not know of each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import ValidationError

from onehost.models import host_keys, names
from onehost.models.errors import Temporary
from onehost.workers.entry import Difference, Entry
from onehost.workers.host import Host, key_file
from onehost.workers.host.book import User
from onehost.workers.host.key_file import Section
from onehost.workers.host.ssh import KEYS
from onehost.workers.reconcilers import reconcilers

SSH_KEY = reconcilers()["ssh_key"]
KEY, OTHER = (host_keys.made("ed25519")[1] for _ in range(2))
SPEC: dict[str, Any] = {"account": "alice", "account_id": 5, "uid": 20001, "gid": 20001, "key": KEY,
                        "from_networks": [], "sftp_only": False}  # fmt: skip
ENTRY = Entry(9, "ssh_key", "alice.laptop", 1, SPEC, roles=frozenset({"ssh"}))


class Nothing:
    def all(self, noun: str) -> list[Entry]:
        return []


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host.rehearsal(tmp_path)
    host.recover(frozenset({"ssh"}))
    host.users.put(User(5, "alice", 20001, 20001))
    host.users.switch()
    host.users.settle()
    return host


def apply(host: Host, entry: Entry) -> Difference:
    difference = SSH_KEY.compare(entry, host, Nothing())
    SSH_KEY.prepare(entry, host, Nothing())
    SSH_KEY.stage(entry, host, Nothing())
    turn(host)
    assert SSH_KEY.compare(entry, host, Nothing()) == {}
    return difference


def turn(host: Host) -> None:
    if host.ssh.changed():
        host.ssh.validate()
        host.ssh.switch()
    host.ssh.settle()


def text(host: Host, name: str = "alice") -> str:
    path = host.machine.path(f"{KEYS}/{name}")
    return path.read_text() if path.exists() else ""


def test_keys_and_the_accounts_list_stand_side_by_side(host: Host) -> None:
    host.ssh.put("alice", 5, [OTHER])
    turn(host)
    assert apply(host, ENTRY) == {"key": "made"}
    assert text(host) == f"# onehost 9 of 5\n{KEY} alice.laptop\n# onehost 5\n{OTHER}\n"
    limits = replace(ENTRY, spec=SPEC | {"from_networks": ["192.0.2.0/24", "2001:db8::1"], "sftp_only": True})
    assert apply(host, limits) == {"key": "changed"}
    line = 'from="192.0.2.0/24,2001:db8::1",restrict,command="internal-sftp -u 0027" '
    assert text(host).splitlines()[1] == f"{line}{KEY} alice.laptop"
    host.ssh.put("alice", 5, [])
    turn(host)
    assert text(host).count("# onehost") == 1
    assert apply(host, replace(ENTRY, spec=None, generation=3)) == {"key": "removed"}
    assert not host.machine.path(f"{KEYS}/alice").exists()


def test_one_that_fails_is_put_back_alone(host: Host) -> None:
    apply(host, ENTRY)
    host.ssh.put("alice", 9, ["changed"], 5)
    host.ssh.put("alice", 10, ["new"], 5)
    host.ssh.restore(9)
    turn(host)
    assert text(host) == f"# onehost 9 of 5\n{KEY} alice.laptop\n# onehost 10 of 5\nnew\n"


def test_what_let_into_a_removed_account_goes_with_it(host: Host) -> None:
    apply(host, ENTRY)
    host.ssh.put("alice", 20, [OTHER])
    host.ssh.drop("alice", 5)
    turn(host)
    assert text(host) == f"# onehost 20\n{OTHER}\n" and host.ssh.holders("alice") == {20}


def test_no_key_for_a_namesake(host: Host) -> None:
    with pytest.raises(Temporary, match="account alice of id 7 is not on this node yet"):
        apply(host, replace(ENTRY, spec=SPEC | {"account_id": 7}))


LINE = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1).filter(lambda text: not text.startswith("#"))
SECTIONS = st.dictionaries(
    st.integers(1, 99), st.tuples(st.integers(1, 99), st.lists(LINE, min_size=1, max_size=3).map(tuple)), max_size=5
)


@given(SECTIONS)
def test_a_file_is_read_back_as_it_was(given_: dict[int, tuple[int, tuple[str, ...]]]) -> None:
    sections = {owner: Section(owner, account, lines) for owner, (account, lines) in given_.items()}
    assert key_file.parse(key_file.render(sections.values())) == sections


@given(st.binary())
def test_any_file_can_be_read(content: bytes) -> None:
    key_file.parse(content)


@given(st.text())
def test_a_network_is_one_word_or_refused(text: str) -> None:
    try:
        kept = names.network(text)
    except ValidationError:
        return
    assert kept.isascii() and set(kept) <= set("0123456789abcdef.:/") and names.network(kept) == kept


@pytest.mark.parametrize("bad", ["10.0.0.1/8", "10.0.0.0/33", "*", "!10.0.0.0/8", '10.0.0.0/8"', "::1%eth0", "a,b", ""])
def test_bad_networks(bad: str) -> None:
    with pytest.raises(ValidationError):
        names.network(bad)
