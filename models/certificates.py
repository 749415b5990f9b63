"""Certificates that somebody brings: read, checked as a server and its clients will, and spelled anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, NoReturn, cast

from .errors import Invalid

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

#: Certificates in one chain, the server's own among them.
LONGEST_CHAIN = 8
#: A clock may be off by this much before a certificate is said not to be valid yet.
SKEW = timedelta(days=1)
_RSA_BITS = range(2048, 8193)
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
#: Others are refused by TLS libraries of our day, so that a server would not start with them.
_HASHES = ("sha256", "sha384", "sha512")


@dataclass(frozen=True)
class Certificate:
    """A chain and its key as PEM, the server's certificate first, with what may be shown of them."""

    chain: str
    key: str
    names: tuple[str, ...]
    issuer: str
    #: SHA-256 of the server's certificate, in hexadecimal digits.
    fingerprint: str
    not_after_at: datetime


def checked(chain: str, key: str, now: datetime) -> Certificate:
    """What `chain` and `key` say, if a server can use them. Raises Invalid; a key is never repeated."""
    from cryptography.hazmat.primitives import hashes, serialization

    private = _key(key)
    certificates = _certificates(chain)
    own = certificates[0]
    public = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if own.public_key().public_bytes(*public) != private.public_key().public_bytes(*public):
        last = certificates[-1].public_key().public_bytes(*public) == private.public_key().public_bytes(*public)
        _refuse("key", "belongs to the last certificate: the order must be the server's own first, its issuer next"
                if last and len(certificates) > 1 else "does not belong to the certificate")  # fmt: skip
    _check_links(certificates)
    for each in certificates:
        _check_dates(each, now)
    pem = "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in certificates)
    spelled = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Certificate(
        pem, spelled.decode(), _names(own), _printable(own.issuer.rfc4514_string()),
        own.fingerprint(hashes.SHA256()).hex(), own.not_valid_after_utc,
    )  # fmt: skip


def expect_name(found: Certificate, name: str) -> None:
    """Raises Invalid unless the certificate is for the domain `name`."""
    if not any(covers(each, name) for each in found.names):
        _refuse("certificate", f"is for {', '.join(found.names[:5]) or 'no domain'} and not for {name}")


def covers(pattern: str, name: str) -> bool:
    """Whether a name of a certificate stands for `name`: itself, or `*` in the place of its first label."""
    if pattern.startswith("*."):
        return name.partition(".")[2] == pattern[2:] and "." in pattern[2:]
    return pattern == name


def _key(text: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    try:
        found = serialization.load_pem_private_key(text.encode(), password=None)
    except TypeError:
        _refuse("key", "is encrypted: take the password away first, for example by openssl pkey")
    except Exception:  # a library that says why in many ways, some of which repeat what it was given
        _refuse("key", "is not a private key in PEM")
    is_rsa = isinstance(found, rsa.RSAPrivateKey) and found.key_size in _RSA_BITS
    if not is_rsa and not (isinstance(found, ec.EllipticCurvePrivateKey) and found.curve.name in _CURVES):
        _refuse("key", "must be RSA of 2048 to 8192 bits, or EC P-256, P-384 or P-521")
    return cast("rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey", found)


def _certificates(text: str) -> Sequence[x509.Certificate]:
    from cryptography import x509

    with _as_refusal("is not a certificate in PEM"):
        found = x509.load_pem_x509_certificates(text.encode())
    if len(found) > LONGEST_CHAIN:
        _refuse("certificate", f"is a chain of more than {LONGEST_CHAIN}")
    for each in found:
        with _as_refusal("cannot be read"):
            kind = each.signature_hash_algorithm
        if each.issuer != each.subject and (kind is None or kind.name not in _HASHES):
            _refuse("certificate", f"{_who(each)} is not signed with SHA-256, SHA-384 or SHA-512")
    return found


def _check_links(certificates: Sequence[x509.Certificate]) -> None:
    from cryptography import x509

    for below, above in pairwise(certificates):
        try:
            below.verify_directly_issued_by(above)
            constraints = above.extensions.get_extension_for_class(x509.BasicConstraints).value
        except x509.ExtensionNotFound:
            constraints = x509.BasicConstraints(ca=False, path_length=None)
        except Exception:
            _refuse("certificate", f"chain is broken: {_who(below)} is not signed by {_who(above)}, which follows it")
        if not constraints.ca:
            _refuse("certificate", f"chain is broken: {_who(above)} may not sign others")


def _check_dates(each: x509.Certificate, now: datetime) -> None:
    if each.not_valid_after_utc <= now:
        _refuse("certificate", f"{_who(each)} has expired at {each.not_valid_after_utc.astimezone(UTC):%F %T} UTC")
    if each.not_valid_before_utc > now + SKEW:
        _refuse("certificate", f"{_who(each)} is not valid before {each.not_valid_before_utc:%F %T} UTC")


def _names(own: x509.Certificate) -> tuple[str, ...]:
    from cryptography import x509

    try:
        with _as_refusal("cannot be read"):
            found = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(_printable(each).lower() for each in found.get_values_for_type(x509.DNSName))


def _who(each: x509.Certificate) -> str:
    return _printable(each.subject.rfc4514_string()) or "a certificate without a name"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)[:200]


@contextmanager
def _as_refusal(why: str) -> Iterator[None]:
    """What a library says of damaged bytes, as a refusal."""
    from cryptography import x509

    try:
        yield
    except x509.ExtensionNotFound:
        raise
    except Exception:
        _refuse("certificate", why)


def _refuse(field: str, why: str) -> NoReturn:
    raise Invalid(f"certificate is not valid: {field}: {why}", {field: why})
