"""`backup` and `restore`: the store in one file, and back as a new life."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...models.errors import Refused
from .groups import Command
from .output import emit
from .session import current, who

if TYPE_CHECKING:
    from ..archive import Manifest


def _backup(file: Path, force: bool, check: bool) -> None:
    from .. import backup as backups

    session = current()
    manifest = backups.check(file) if check else backups.backup(session.client.engine, file, force=force)

    def words() -> None:
        click.echo(f"{file} is whole: {_about(manifest)}")
        if not check:
            click.echo(f"It holds hashes of passwords: keep it as safe as the store. It does not hold "
                       f"{session.settings.secrets}, nor the settings: copy them too.", err=True)  # fmt: skip

    emit(session, {"file": str(file), **asdict(manifest)}, words)


def _about(manifest: Manifest) -> str:
    at = manifest.at[:19].replace("T", " ")
    return (f"{manifest.database}, tables {manifest.revision}, onehost {manifest.version}, made {at}Z, "
            f"audit head {manifest.position}:{manifest.hash}")  # fmt: skip


def _restore(file: Path, yes: bool) -> None:
    from .. import restore as restores
    from ..archive import opened

    session = current()
    if not yes:
        with opened(file.absolute()) as (manifest, _):
            about = _about(manifest)
        if not sys.stdin.isatty():
            raise Refused(
                "a restore replaces the whole store and must be confirmed", hint=f"onehost restore {file} --yes"
            )
        click.echo(f"{file}: {about}", err=True)
        if not click.confirm("Replace the store by it? Everything wished since then is forgotten", err=True):
            raise Refused("nothing was changed")
    found = restores.restore(session.settings.store, file, session.actor or who())

    def words() -> None:
        click.echo(f"the store is that of {found.manifest.at[:19].replace('T', ' ')}Z, in a new life: incarnation "
                   f"{found.incarnation}")  # fmt: skip
        click.echo("next: onehost broker apply; then start relay and audit; then onehost status", err=True)
        if found.nodes:
            click.echo(f"new accounts wait until {found.nodes} nodes have said which numbers they hold", err=True)

    data = {"incarnation": found.incarnation, "nodes_to_report": found.nodes, "backup": asdict(found.manifest)}
    emit(session, data, words)


_FILE = click.Argument(["file"], type=click.Path(path_type=Path, dir_okay=False))
backup = Command(
    "backup",
    callback=_backup,
    params=[
        _FILE,
        click.Option(["--force"], is_flag=True, help="Replace a file of that name."),
        click.Option(["--check"], is_flag=True, help="Make none: read this one to its end and prove it."),
    ],
    help="Copy the store into one file while everything runs, and prove the copy. It holds hashes of passwords.",
    example="backup /var/backups/onehost.backup",
)
restore = Command(
    "restore",
    callback=_restore,
    params=[_FILE, click.Option(["--yes"], is_flag=True, help="Do not ask.")],
    help="Put a backup back as a new life of the store. Relay and audit must be stopped.",
    example="restore /var/backups/onehost.backup",
)
