"""Certificates that somebody brings: every way in which they do not serve is said at once, and no key is repeated."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from onehost.models import certificates, self_signed
from onehost.models.errors import Invalid

NOW = datetime(2026, 6, 1, tzinfo=UTC)
PEM = serialization.Encoding.PEM


class Authority:
    """Signs, and is signed by another or by itself."""

    def __init__(self, name: str, above: Authority | None = None, *, ca: bool = True) -> None:
        self.key, self.name = ec.generate_private_key(ec.SECP256R1()), name
        self.certificate = (above or self).sign(self.key.public_key(), name, [], ca=ca)

    def sign(self, public: Any, name: str, domains: list[str], *, ca: bool = False, days: tuple[int, int] = (-9, 90),
             algorithm: Any = None) -> x509.Certificate:  # fmt: skip
        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

        builder = x509.CertificateBuilder().subject_name(named(name)).issuer_name(named(self.name))
        builder = builder.public_key(public).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(NOW + timedelta(days[0])).not_valid_after(NOW + timedelta(days[1]))
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), True)
        if domains:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(each) for each in domains]), False
            )
        return builder.sign(self.key, algorithm or hashes.SHA256())


ROOT = Authority("Root")
MIDDLE = Authority("Middle", ROOT)
STRANGER = Authority("Middle")
KEY = ec.generate_private_key(ec.SECP256R1())
LEAF = MIDDLE.sign(KEY.public_key(), "a", ["shop.example", "*.shop.example"])


def pem(*given: x509.Certificate) -> str:
    return "".join(each.public_bytes(PEM).decode() for each in given)


def private(key: Any = KEY, password: bytes | None = None) -> str:
    shut = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, shut).decode()


def refused(chain: str, key: str, now: datetime = NOW) -> str:
    with pytest.raises(Invalid) as raised:
        certificates.checked(chain, key, now)
    assert "PRIVATE KEY" not in str(raised.value) and raised.value.problems
    return str(raised.value)


def test_a_whole_chain_is_taken_and_told() -> None:
    found = certificates.checked(pem(LEAF, MIDDLE.certificate, ROOT.certificate), private(), NOW)
    assert found.names == ("shop.example", "*.shop.example")
    assert (found.issuer, found.not_after_at) == ("CN=Middle", NOW + timedelta(90))
    assert found.chain == pem(LEAF, MIDDLE.certificate, ROOT.certificate) and found.key == private()


def test_what_stands_around_the_blocks_does_not_come_along() -> None:
    text = f"Bag Attributes\n  friendlyName: <Directory />\n{pem(LEAF)}\nServerName x\n{pem(MIDDLE.certificate)}"
    found = certificates.checked(text, f"Define x\n{private()}", NOW)
    assert (found.chain, found.key) == (pem(LEAF, MIDDLE.certificate), private())


def test_what_the_manager_makes_passes() -> None:
    made = self_signed.made("shop.example", ["shop.example", "www.shop.example"])
    found = certificates.checked(made.certificate, made.key, datetime.now(UTC))
    assert found.names == ("shop.example", "www.shop.example") and found.fingerprint == made.fingerprint


@pytest.mark.parametrize(
    ("chain", "key", "words"),
    [
        (pem(LEAF), private(MIDDLE.key), "does not belong"),
        (pem(MIDDLE.certificate, LEAF), private(), "the server's own first"),
        (pem(LEAF, ROOT.certificate), private(), "CN=a is not signed by CN=Root"),
        (pem(LEAF, STRANGER.certificate), private(), "CN=a is not signed by CN=Middle"),
        (pem(LEAF, MIDDLE.certificate, MIDDLE.certificate), private(), "CN=Middle is not signed by CN=Middle"),
        (pem(MIDDLE.sign(KEY.public_key(), "a", ["x.example"], days=(-9, -1))), private(), "CN=a has expired"),
        (pem(MIDDLE.sign(KEY.public_key(), "a", ["x.example"], days=(3, 9))), private(), "is not valid before"),
        (pem(LEAF), private(password=b"x"), "is encrypted"),
        (pem(LEAF), "rubbish", "is not a private key in PEM"),
        (pem(LEAF), pem(LEAF), "is not a private key in PEM"),
        ("rubbish", private(), "is not a certificate in PEM"),
        (pem(LEAF)[:200] + pem(LEAF)[210:], private(), "is not a certificate in PEM"),
        (pem(LEAF), private(rsa.generate_private_key(65537, 1024)), "RSA of 2048"),
        (pem(LEAF), private(ed25519.Ed25519PrivateKey.generate()), "RSA of 2048"),
        (pem(*[LEAF] * 9), private(), "a chain of more than 8"),
        (pem(MIDDLE.sign(KEY.public_key(), "a", ["x.example"], algorithm=hashes.SHA224())), private(), "SHA-256"),
    ],
)  # fmt: skip
def test_what_does_not_serve_is_refused_in_words(chain: str, key: str, words: str) -> None:
    assert words in refused(chain, key)


def test_who_may_not_sign_breaks_the_chain() -> None:
    no_ca = Authority("Middle", ROOT, ca=False)
    assert "may not sign others" in refused(
        pem(no_ca.sign(KEY.public_key(), "a", ["x.example"]), no_ca.certificate), private()
    )


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("shop.example", "shop.example", True),
        ("*.example.com", "shop.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "a.shop.example.com", False),
        ("*.com", "example.com", False),
        ("*", "example", False),
        ("shop.example", "www.shop.example", False),
    ],
)
def test_wildcards_stand_for_one_label(pattern: str, name: str, covered: bool) -> None:
    assert certificates.covers(pattern, name) is covered


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_any_text_is_refused_in_words(before: str, after: str) -> None:
    try:
        found = certificates.checked(f"{before}{pem(LEAF)}{after}", private(), NOW)
    except Invalid:
        return
    assert found.chain == pem(LEAF)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20))
def test_a_name_out_of_a_certificate_is_shown_without_what_moves_the_cursor(text: str) -> None:
    try:
        signed = Authority(text[:40]).sign(KEY.public_key(), text[:40], ["shop.example"])
    except ValueError:
        return
    found = certificates.checked(pem(signed), private(), NOW)
    assert found.issuer.isprintable()
