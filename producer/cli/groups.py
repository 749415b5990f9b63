"""Commands and groups that load late, carry an example in their help, and know what was probably meant."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .failures import Mistake
from .session import OUTPUTS, Session


def global_options(*, hidden: bool) -> list[click.Parameter]:
    """The options that stand before the command or after it; hidden in single commands' help."""

    def keep(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
        def callback(ctx: click.Context, _: click.Parameter, value: Any) -> None:
            if value is not None:
                setattr(ctx.ensure_object(Session), name, value)

        return callback

    config_type = click.Path(path_type=Path, dir_okay=False)

    def option(*names: str, env: str = "", **more: Any) -> click.Option:
        if env and not hidden:
            more |= {"envvar": [env], "show_envvar": True}
        name = names[-1].partition("/")[0].removeprefix("--")
        more = {"hidden": hidden} | more
        return click.Option(list(names), expose_value=False, default=None, callback=keep(name), **more)

    return [
        option("-o", "--output", type=click.Choice(OUTPUTS), help="How to write the answer.", hidden=False),
        option("--config", type=config_type, env="ONEHOST_CONFIG", help="Settings of the manager."),
        option("--actor", env="ONEHOST_ACTOR", help="Who asks, for the audit store; else user@host."),
        option("--color/--no-color", help="Colours on a terminal; NO_COLOR is honoured."),
    ]


class Command(click.Command):
    """A command with the global options and an example."""

    def __init__(self, *args: Any, example: str = "", **more: Any) -> None:
        super().__init__(*args, **more)
        self.example = example
        # Where a command has an option of that name, such as the filter --actor, the global one stands before it only.
        taken = {name for parameter in self.params for name in parameter.opts}
        self.params.extend(each for each in global_options(hidden=True) if not taken & set(each.opts))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_example(ctx, formatter, self.example)


class Group(click.Group):
    """A group whose commands may stand in modules that are not loaded yet: name to (module, attribute, help)."""

    command_class = Command

    def __init__(self, *args: Any, example: str = "", late: dict[str, tuple[str, str, str]] | None = None,
                 **more: Any) -> None:  # fmt: skip
        super().__init__(*args, **more)
        self.example = example
        self.late = late or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.late, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = cmd_name.replace("_", "-")
        if name not in self.late:
            return super().get_command(ctx, name)
        module, attribute, _ = self.late[name]
        found: click.Command = getattr(importlib.import_module(f".{module}", __package__), attribute)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-") and not ctx.resilient_parsing:
            near = difflib.get_close_matches(name, self.list_commands(ctx), 1)
            hint = f"did you mean {near[0]}?" if near else f"{ctx.command_path} --help"
            raise Mistake(f"{ctx.command_path} has no command {name!r}", hint=hint, ctx=ctx)
        return super().resolve_command(ctx, args)

    def rows(self, ctx: click.Context, names: list[str]) -> list[tuple[str, str]]:
        """Name and short help of each command, without loading those that wait."""
        found = []
        for name in names:
            command = None if name in self.late else self.get_command(ctx, name)
            text = self.late[name][2] if command is None else command.get_short_help_str(limit=90)
            found.append((name, text))
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(self.rows(ctx, self.list_commands(ctx)))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_example(ctx, formatter, self.example)


def write_example(ctx: click.Context, formatter: click.HelpFormatter, example: str) -> None:
    """The section at the end of a help text; `example` goes on after `onehost`."""
    if example:
        with formatter.section("Example"):
            formatter.write(f"{'':>{formatter.current_indent}}onehost {example}\n")
