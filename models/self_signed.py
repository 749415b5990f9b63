"""Certificates that nobody vouches for: good enough to speak TLS until a better one is there."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

#: Nobody renews it by itself, and no browser trusts it for its dates.
DAYS = 3650


@dataclass(frozen=True)
class Made:
    """A key and its certificate, both PEM, with what may be shown of them."""

    key: str
    certificate: str
    #: SHA-256 of the certificate, in hexadecimal digits.
    fingerprint: str
    not_after_at: datetime


def made(common_name: str, alternatives: Sequence[str] = (), days: int = DAYS) -> Made:
    """A new EC P-256 key with a certificate for these names (addresses too), valid from yesterday for skewed clocks."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC).replace(microsecond=0)
    not_after_at = now + timedelta(days=days)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(not_after_at)
        .add_extension(x509.SubjectAlternativeName([_general(each) for each in alternatives or [common_name]]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return Made(private.decode(), pem, certificate.fingerprint(hashes.SHA256()).hex(), not_after_at)


def _general(text: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
