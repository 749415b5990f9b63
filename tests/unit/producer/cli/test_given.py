"""Every kind of option becomes the right click parameter, and what was given the right field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from onehost.models.errors import Invalid
from onehost.models.nouns import Option
from onehost.producer.cli import given
from onehost.producer.cli.failures import Mistake

OPTIONS = (
    Option("address", "", positional=True, required=True),
    Option("port", "", "number", positional=True, required=True),
    Option("document_root", ""),
    Option("weight", "", "number"),
    Option("php", "", "yes_no"),
    Option("roles", "", "list", ("web", "ssh")),
    Option("access", "", "choice", ("none", "sftp")),
    Option("ssh_keys", "", "file"),
    Option("password_hash", "", "password"),
    Option("domains", "", "limit"),
    Option("limits", "", "mapping"),
)


def parsed(*words: str) -> dict[str, Any]:
    taken: dict[str, Any] = {}
    command = click.Command("x", params=given.parameters(OPTIONS), callback=lambda **values: taken.update(values))
    command.main(["10.0.0.1", "80", *words], standalone_mode=False)
    return given.fields(OPTIONS, taken)


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ((), {}),
        (("--document-root", "web"), {"document_root": "web"}),
        (("--document-root", ""), {"document_root": None}),
        (("--weight", "0"), {"weight": 0}),
        (("--php",), {"php": True}),
        (("--no-php",), {"php": False}),
        (("--roles", "web", "--roles", "ssh"), {"roles": ["web", "ssh"]}),
        (("--access", "none"), {"access": "none"}),
        (("--domains", "0"), {"domains": 0}),
        (("--domains", "none"), {"domains": None}),
        (
            ("--limits", "ftp-logins=3", "--limits", "shell=no", "--limits", "crons=none"),
            {"limits": {"ftp_logins": 3, "shell": False, "crons": None}},
        ),
        (("--limits", ""), {"limits": {}}),
        (("--password-hash", "$6$x"), {"password_hash": "$6$x"}),
    ],
)
def test_options(words: tuple[str, ...], fields: dict[str, Any]) -> None:
    assert parsed(*words) == {"address": "10.0.0.1", "port": 80} | fields


def test_a_file_is_one_item_a_line(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("\ufeffone\n\n  # a comment\n two \r\n")
    assert given.items(str(path)) == ["one", "two"]
    path.write_text("")
    assert given.items(str(path)) == []


def test_an_endless_file_is_refused() -> None:
    with pytest.raises(Invalid, match="larger than"):
        given.items("/dev/zero")


def test_password_and_hash_together_are_a_mistake() -> None:
    with pytest.raises(Mistake):
        parsed("--password", "--password-hash", "$6$x")
