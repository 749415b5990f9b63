"""Settings: one file, overridden by names in the environment, secrets only by path."""

from __future__ import annotations

from pathlib import Path

import pytest

from onehost.models import settings
from onehost.models.errors import Invalid, NotFound


def test_without_a_file_there_are_defaults(tmp_path: Path) -> None:
    assert settings.manager(tmp_path / "none", {}) == settings.Manager()
    assert settings.worker(tmp_path / "none", {}).beat_seconds == 5.0


def test_the_file_and_then_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "onehost.toml"
    file.write_text('store = "sqlite:///a"\nfirst_uid = 30000\n[broker]\nhost = "mq"\nport = 1\npassword_file = "/x"\n')
    environ = {"ONEHOST_CONFIG": str(file), "ONEHOST_STORE": "sqlite:///b", "ONEHOST_LAST_UID": "31000", "OTHER": "1",
               "ONEHOST_BROKER": "nonsense", "ONEHOST_UNKNOWN": "x"}  # fmt: skip
    found = settings.manager(None, environ)
    assert (found.store, found.first_uid, found.last_uid) == ("sqlite:///b", 30000, 31000)
    assert found.broker == settings.Broker("mq", 1, password_file=Path("/x"))
    assert found.as_user("relay").password_file == found.secrets / "relay"


@pytest.mark.parametrize("text", ["store = ", "nonsense = 1", '[broker]\nuser = "a"\nnonsense = 1', 'first_uid = "x"',
                                  "first_uid = []", "[store]\na = 1\n[broker]\nport = {}"])  # fmt: skip
def test_a_bad_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "onehost.toml"
    file.write_text(text)
    with pytest.raises(Invalid, match=r"onehost\.toml"):
        settings.manager(file, {})


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        settings.worker(tmp_path, {})


def test_a_secret_that_others_can_read_is_none(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    with pytest.raises(NotFound):
        settings.read_secret(file)
    file.write_text("planted\n")
    file.chmod(0o640)
    with pytest.raises(Invalid) as caught:
        settings.read_secret(file)
    assert "planted" not in str(caught.value)
    file.chmod(0o600)
    assert settings.Broker(password_file=file).password() == "planted"


def test_brokers_are_tried_in_turn_and_none_is_forgotten() -> None:
    first = settings.Broker("mq1", 5673, user="relay", fallbacks=("mq2", "10.0.0.3:5674", "[fd00::4]:5675"))
    seen = []
    broker = first
    for _ in range(5):
        seen.append((broker.host, broker.port))
        assert (broker.user, len(broker.fallbacks)) == ("relay", 3)
        broker = broker.rotated()
    assert seen == [("mq1", 5673), ("mq2", 5673), ("10.0.0.3", 5674), ("fd00::4", 5675), ("mq1", 5673)]
    alone = settings.Broker()
    assert alone.rotated() is alone


@pytest.mark.parametrize("fallbacks", ['["mq:port"]', '["a@mq"]', '["mq:5672/x"]', '[""]', '"mq2"', "[5672]"])
def test_a_fallback_is_a_host_and_a_port(tmp_path: Path, fallbacks: str) -> None:
    file = tmp_path / "worker.toml"
    file.write_text(f"[broker]\nfallbacks = {fallbacks}\n")
    with pytest.raises(Invalid):
        settings.worker(file, {})
