"""The identity on a rehearsed machine, and how it is made."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onehost.models import host_keys, nouns
from onehost.models.errors import Invalid, Permanent
from onehost.workers.entry import Difference, Entry
from onehost.workers.host import Host, identity
from onehost.workers.reconcilers import reconcilers

IDENTITY = reconcilers()["identity"]
NOUN = nouns.noun("identity")
VIEW: Any = None
ALL = frozenset({"ssh", "web"})


def made(before: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return NOUN.number((before or NOUN.load({})) | changes, before, VIEW)


SPEC = made()
ENTRY = Entry(3, "identity", "cluster", 1, SPEC, roles=ALL)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host.rehearsal(tmp_path)
    host.recover(ALL)
    return host


def apply(host: Host, entry: Entry) -> Difference:
    difference = IDENTITY.compare(entry, host, VIEW)
    IDENTITY.prepare(entry, host, VIEW)
    IDENTITY.stage(entry, host, VIEW)
    if host.identity.changed():
        host.identity.validate()
        host.identity.switch()
        host.identity.signal()
    IDENTITY.verify(entry, host, VIEW)
    host.identity.settle()
    assert IDENTITY.compare(entry, host, VIEW) == {}
    return difference


def test_made_changed_removed(host: Host) -> None:
    assert apply(host, ENTRY) == {"host keys": "made", "certificate": "made"}
    path = host.machine.path
    for place in (*identity.KEYS.values(), identity.CERTIFICATE):
        assert stat.S_IMODE(path(place).stat().st_mode) == 0o600
    config = path(identity.CONFIG).read_text()
    assert config.count("HostKey /etc/onehost/ssh/host_") == 3 and "PRIVATE" not in config
    assert apply(host, replace(ENTRY, spec=made(SPEC, host_name="cp.example.com"))) == {"certificate": "changed"}
    assert apply(host, replace(ENTRY, spec=None)) == {"host keys": "removed"}
    assert not path(identity.CONFIG).exists() and not any(path(each).exists() for each in identity.KEYS.values())
    assert path(identity.CERTIFICATE).exists(), "Apache would not start without"


def test_only_what_the_nodes_roles_need(host: Host) -> None:
    assert apply(host, replace(ENTRY, roles=frozenset({"ssh"}))) == {"host keys": "made"}
    assert apply(host, replace(ENTRY, roles=frozenset({"web"}))) == {"certificate": "made", "host keys": "removed"}


def test_a_certificate_of_another_key_goes_nowhere(host: Host) -> None:
    wrong = SPEC | {"tls_key": made()["tls_key"]}
    with pytest.raises(Permanent, match="certificate does not work with its key"):
        apply(host, replace(ENTRY, spec=wrong))
    assert list(host.machine.path(f"{identity.FOLDER}/trial").iterdir()) == []
    host.identity.restore(3)
    assert host.identity.changed() == frozenset()


def test_a_signal_that_a_crash_cut_off_is_made_up_for(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(host, ENTRY)
    told: list[str] = []
    monkeypatch.setattr(host.identity, "_tell_sshd", lambda: told.append("sshd"))
    host.identity.recover()
    assert told == []
    IDENTITY.stage(replace(ENTRY, spec=made(SPEC, renew=True)), host, VIEW)
    host.identity.switch()
    host.identity.recover()
    assert told == ["sshd"]


def test_half_an_identity_does_not_keep_sshd_from_what_brings_it_back(host: Host) -> None:
    path = host.machine.path
    path(identity.CONFIG).parent.mkdir(parents=True, exist_ok=True)
    path(identity.CONFIG).write_text("HostKey /etc/onehost/ssh/host_rsa_key\n")
    host.ssh.recover()
    assert not path(identity.CONFIG).exists(), "it names keys that are not there"


def test_keys_are_kept_until_they_are_renewed() -> None:
    assert made(SPEC) == SPEC
    renewed = made(SPEC, renew=True)
    assert not renewed["renew"] and all(renewed[key] != SPEC[key] for key in NOUN.secret_fields)
    named = made(SPEC, host_name="cp.example.com")
    assert {key for key in SPEC if named[key] != SPEC[key]} >= {"host_name", "tls_key", "tls_certificate"}
    assert all(named[key] == SPEC[key] for key in SPEC if key.startswith("ssh_"))
    plain, secrets = NOUN.split(SPEC)
    assert "PRIVATE" not in str(plain) and str(secrets).count("BEGIN OPENSSH PRIVATE KEY") == 3
    with pytest.raises(Invalid):
        NOUN.check_name("other")


def test_how_clients_are_told() -> None:
    publics = {"ed25519": SPEC["ssh_ed25519_public"]}
    lines = [*host_keys.known_hosts([("cp.example.com", 22), ("10.0.0.1", 2222), ("10.0.0.1", 2222)], publics)]
    assert lines == [f"cp.example.com,[10.0.0.1]:2222 {SPEC['ssh_ed25519_public']}"]
    (record,) = host_keys.sshfp("cp.example.com", publics)
    assert record.startswith("cp.example.com. IN SSHFP 4 2 ") and len(record.split()[-1]) == 64
