"""SSH host keys: made by the manager, the same on every node, and how a client is told of them beforehand."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.serialization import SSHPrivateKeyTypes

#: Kind of key as it is called in file names, and the number that RFC 4255 and its successors give to it.
KINDS = {"ed25519": 4, "ecdsa": 3, "rsa": 1}
RSA_BITS = 3072


def made(kind: str) -> tuple[str, str]:
    """A new private key in OpenSSH's own format, and its public key as one line without a comment."""
    from cryptography.hazmat.primitives import serialization

    key = _private(kind)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private.decode(), public.decode()


def _private(kind: str) -> SSHPrivateKeyTypes:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "ecdsa":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)


def fingerprint(public: str) -> str:
    """A public key's fingerprint as `ssh-keygen -l` shows it."""
    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def known_hosts(places: Iterable[tuple[str, int]], publics: Mapping[str, str]) -> Iterator[str]:
    """Lines of known_hosts, by kind of key, for all addresses and ports at once."""
    hosts = ",".join(dict.fromkeys(host if port == 22 else f"[{host}]:{port}" for host, port in places))
    for public in publics.values():
        yield f"{hosts} {public}"


def sshfp(host: str, publics: Mapping[str, str]) -> Iterator[str]:
    """Records for a zone, by kind of key: a client that asks DNS (with DNSSEC) needs no known_hosts."""
    for kind, public in publics.items():
        digest = hashlib.sha256(base64.b64decode(public.split()[1])).hexdigest()
        yield f"{host}. IN SSHFP {KINDS[kind]} 2 {digest}"
