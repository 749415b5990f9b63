"""Passwords of broker users: made here, kept in files of mode 0600, known to the broker as salted hashes only."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from pathlib import Path

from ..models.settings import read_secret
from .atomic_file import write_atomically

#: RabbitMQ's name for what password_hash() computes.
HASHING_ALGORITHM = "rabbit_password_hashing_sha256"
#: In place of a hash: the user cannot log in by password at all.
NO_PASSWORD = ""
_SALT_BYTES = 4


def random_password() -> str:
    """A new password: 32 random bytes, safe in files, URLs and shells."""
    return secrets.token_urlsafe(32)


def password_hash(password: str) -> str:
    """RabbitMQ's hash of a password: base64 of a random salt and SHA-256 over salt and password."""
    return _hash(password, secrets.token_bytes(_SALT_BYTES))


def matches(password: str, hashed: str) -> bool:
    """Whether `hashed` is a hash of this password."""
    try:
        salt = base64.b64decode(hashed, validate=True)[:_SALT_BYTES]
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(_hash(password, salt).encode(), hashed.encode())


def secret(path: Path) -> str:
    """The password kept in `path`; made first if there is none.

    Raises Invalid if others can read the file, OSError if it cannot be written.
    """
    if not path.exists():
        if not path.parent.exists():
            path.parent.mkdir(parents=True, mode=0o700)
        write_atomically(path, f"{random_password()}\n".encode(), mode=0o600)
    return read_secret(path)


def _hash(password: str, salt: bytes) -> str:
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
