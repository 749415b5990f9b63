"""Passwords are hashed at the edge, where they are typed: nothing behind this file ever sees one."""

from __future__ import annotations

from ..models.errors import Invalid

#: What shadow(5) uses on Debian for sha512-crypt; a login costs a few milliseconds.
ROUNDS = 5000
SHORTEST = 8
LONGEST = 512


def hashed(password: str) -> str:
    """The sha512-crypt hash of a password. Raises Invalid, without repeating it."""
    from passlib.hash import sha512_crypt

    if not SHORTEST <= len(password) <= LONGEST or "\0" in password or "\n" in password:
        raise Invalid(f"a password is {SHORTEST} to {LONGEST} characters on one line", {"password": "length"})
    return str(sha512_crypt.using(rounds=ROUNDS).hash(password))
