"""Names are checked hard and spelled one way."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as some
from marshmallow import ValidationError

from onehost.models import names
from onehost.models.errors import Invalid

ED25519 = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)


def key(blob: bytes, kind: str = "ssh-ed25519") -> str:
    return f"{kind} {base64.b64encode(blob).decode()}"


GOOD = [
    (names.account, "ab", "ab"), (names.account, "a" * 16, "a" * 16), (names.account, "alice2", "alice2"),
    (names.node, "a", "a"), (names.node, "web-1", "web-1"), (names.node, "a" * 40, "a" * 40),
    (names.domain, "Example.COM", "example.com"), (names.domain, "example.com.", "example.com"),
    (names.domain, "bücher.example.org", "xn--bcher-kva.example.org"),
    (names.domain, "BÜCHER.example.org", "xn--bcher-kva.example.org"),
    (names.domain, "xn--bcher-kva.example.org", "xn--bcher-kva.example.org"),
    (names.domain, "a.b.c.example.co.uk", "a.b.c.example.co.uk"), (names.domain, "faß.de", "xn--fa-hia.de"),
    (names.ssh_key, key(ED25519) + " alice@home", key(ED25519)), (names.ssh_key, f"  {key(ED25519)}\n", key(ED25519)),
    (names.document_root, "web", "web"), (names.document_root, "sites/main.d/x_1-2", "sites/main.d/x_1-2"),
    (names.password_hash, "$6$" + "a" * 16 + "$" + "b" * 86, "$6$" + "a" * 16 + "$" + "b" * 86),
    (names.password_hash, "$6$rounds=5000$a$" + "." * 86, "$6$rounds=5000$a$" + "." * 86),
    (names.password_hash, "$y$j9T$abc$" + "c" * 43, "$y$j9T$abc$" + "c" * 43),
    (names.address, "10.0.0.1", "10.0.0.1"), (names.address, "2001:DB8:0::1", "2001:db8::1"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "given_text", "wanted"), GOOD)
def test_good_names_have_one_spelling(check: Callable[[str], str], given_text: str, wanted: str) -> None:
    assert check(given_text) == wanted
    assert check(check(given_text)) == wanted


BAD = [
    *((names.account, text) for text in ("", "a", "A" * 3, "1ab", "a" * 17, "a-b", "a_b", "a.b", "a b", "ab\n", "äb",
                                         "ab\0", "a/b", "..", "root", "www", "onehost", "postfix", "test", "ａｂ")),
    *((names.node, text) for text in ("", "1a", "a.b", "A", "a_b", "a" * 41, "a\n", "a*", "#", "-a")),
    *((names.domain, text) for text in (
        "", ".", "com", "localhost", "co.uk", "github.io", "1.2.3.4", "1.2.3", "a..b.com", "-a.com", "a-.com",
        "a_b.com", "a b.com", "a.com\n", "a/b.com", "x" * 64 + ".com", ".".join(["abcdefgh"] * 30) + ".com", "*.a.com",
        "a.local", "foo.localhost", "http://a.com", "a.com:80", "\u202ea.com", "a\0b.com", "xn--a.com",
    )),
    *((names.ssh_key, text) for text in (
        "", "ssh-ed25519", "ssh-ed25519 !!!", key(ED25519[:-1]), key(ED25519, "ssh-rsa"), "ssh-dss AAAA",
        'command="sh" ' + key(ED25519), key(ED25519) + "\n" + key(ED25519), key(ED25519) + "\r" + key(ED25519),
        "ssh-ed25519 " + base64.b64encode(b"\xff" * 60).decode(), "ssh-ed25519 AAA",
    )),
    *((names.document_root, text) for text in (
        "", "/", "/etc", "..", "a/..", "a/../b", ".a", "a//b", "a/", "a b", "0..", "a..b", "a\n", "a\0", "x" * 64,
        "/".join(["x" * 30] * 7), "-a", "a\\b", "ä",
    )),
    *((names.password_hash, text) for text in (
        "", "secret", "$1$a$" + "b" * 22, "$6$a$" + "b" * 85, "$6$a$" + "b" * 87, "$6$a:b$" + "b" * 86,
        "$6$a$" + "b" * 85 + ":", "$6$rounds=1$a$" + "b" * 86, "$y$j9T$a$" + "b" * 42, "*", "!",
        "$6$a$" + "b" * 86 + "\n",
    )),
    *((names.address, text) for text in ("", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "1.2.3", "1.2.3.4/24", "a",
                                         "01.2.3.4")),
]  # fmt: skip


@pytest.mark.parametrize(("check", "text"), BAD)
def test_bad_names_are_refused(check: Callable[[str], str], text: str) -> None:
    with pytest.raises((Invalid, ValidationError)):
        check(text)


@pytest.mark.parametrize("check", [names.account, names.node, names.domain, names.ssh_key, names.document_root,
                                   names.password_hash])  # fmt: skip
@pytest.mark.parametrize("what", [None, 1, True, [], {}, b"ab"])
def test_what_is_no_text_is_refused(check: Callable[[object], str], what: object) -> None:
    with pytest.raises((Invalid, ValidationError)):
        check(what)


def test_a_refused_hash_is_never_repeated() -> None:
    with pytest.raises(ValidationError) as caught:
        names.password_hash("planted-password")
    assert "planted" not in str(caught.value)


@given(some.text(max_size=40))
def test_whatever_passes_is_plain(text: str) -> None:
    for check in (names.account, names.node, names.domain, names.document_root):
        try:
            passed = check(text)
        except (Invalid, ValidationError):
            continue
        assert passed.isascii()
        assert not set(passed) & set(" \t\r\n\0:;'\"\\$`*?[]<>|&#%")
        assert not passed.startswith(("-", "/", ".")) and ".." not in passed
