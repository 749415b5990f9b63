"""Files of certificates: whole, closed, owned, and Apache told once for all of them, also after a kill."""

from __future__ import annotations

from pathlib import Path

import pytest

from onehost.models import self_signed
from onehost.models.errors import Permanent
from onehost.workers.host import Host, tls
from onehost.workers.host.tls import Tls

WEB = frozenset({"web"})
FILE = "shop.example.5.pem"


def content(owner: int) -> bytes:
    made = self_signed.made("shop.example")
    return tls.render(owner, made.key, made.certificate)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host.rehearsal(tmp_path)
    made.recover(WEB)
    return made


def apply(host: Host) -> None:
    host.tls.validate()
    host.tls.switch()
    host.tls.signal()
    host.tls.settle()


def test_made_changed_removed(host: Host) -> None:
    first, second = content(7), content(7)
    for wanted in (first, second):
        host.tls.put(7, FILE, wanted)
        assert host.tls.changed() == {7}
        apply(host)
        place = host.machine.path(f"{tls.LIVE}/{FILE}")
        assert place.read_bytes() == wanted and place.stat().st_mode & 0o777 == 0o600
        assert Tls(host.machine, host.apache).of(7) == (FILE, wanted)
    host.tls.drop(7)
    apply(host)
    assert list(host.machine.path(tls.LIVE).iterdir()) == []


def test_a_kill_after_the_switch_leaves_apache_to_be_told(host: Host) -> None:
    assert not host.apache.tree.unsignalled()
    host.tls.put(7, FILE, content(7))
    host.tls.switch()
    assert Host(host.machine).apache.tree.unsignalled()


def test_what_apache_was_not_told_is_told_by_itself(host: Host) -> None:
    host.tls.put(7, FILE, content(7))
    host.tls.switch()
    host.tls.tell()
    assert not host.apache.tree.unsignalled()


def test_a_file_goes_from_one_owner_to_another_only_if_it_is_dropped(host: Host) -> None:
    host.tls.put(7, FILE, content(7))
    apply(host)
    host.tls.put(8, FILE, content(8))
    with pytest.raises(Permanent, match="belongs to id 7") as raised:
        host.tls.validate()
    assert raised.value.culprit == "8"
    host.tls.drop(7)
    apply(host)
    assert host.tls.holder(FILE) == 8 and host.tls.of(7) == ("", b"")
    assert host.machine.path(f"{tls.LIVE}/{FILE}").read_bytes().startswith(b"onehost 8\n")


def test_what_tls_refuses_is_never_live_and_names_its_owner(host: Host) -> None:
    good, other = self_signed.made("shop.example"), self_signed.made("shop.example")
    host.tls.put(7, FILE, tls.render(7, other.key, good.certificate))
    with pytest.raises(Permanent, match="TLS refuses") as raised:
        host.tls.validate()
    assert raised.value.culprit == "7"
    host.tls.restore(7)
    assert host.tls.changed() == frozenset()
    assert list(host.machine.path(tls.LIVE).iterdir()) == []


@pytest.mark.parametrize("name", ["../x.5.pem", "a/b.5.pem", "x.pem", "a\nb.5.pem", "\u202ea.5.pem", "a..b.5.pem", ""])
def test_no_name_leads_elsewhere(host: Host, name: str) -> None:
    with pytest.raises(Permanent):
        host.tls.put(7, name, b"")
