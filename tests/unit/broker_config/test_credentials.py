"""Passwords: RabbitMQ's own hash, and files that only their owner reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from onehost.broker_config import credentials
from onehost.models.errors import Invalid


def test_the_hash_is_the_one_of_rabbitmq() -> None:
    # What RabbitMQ 3.10 stored for guest/guest.
    assert credentials.matches("guest", "xBaTlHT5RqBAT6zRz5qljSIEwv69Eq6ggxAiOEevI3lpsmJ+")


def test_a_hash_fits_its_password_only_and_is_salted() -> None:
    password = credentials.random_password()
    hashed = credentials.password_hash(password)
    assert credentials.matches(password, hashed)
    assert not credentials.matches(password + "x", hashed)
    assert credentials.password_hash(password) != hashed


@pytest.mark.parametrize("hashed", ["", "x", "====", "ümlaut", "AAAA"])
def test_what_is_no_hash_fits_nothing(hashed: str) -> None:
    assert not credentials.matches("", hashed)


def test_a_secret_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "relay"
    password = credentials.secret(path)
    assert len(password) >= 40
    assert credentials.secret(path) == password
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["relay"]


def test_a_secret_open_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "relay"
    credentials.secret(path)
    path.chmod(0o640)
    with pytest.raises(Invalid):
        credentials.secret(path)
