"""What is special in our use of click: a program whose failures read well, and commands imported when they are used."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import click

from calipy.console.failures import tell

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
INTERRUPTED = 130
"""128 + SIGINT, as shells say it."""


class Program(click.Group):
    """A command with subcommands. `lazy`: subcommand -> "module:attribute", imported when it is used, not before.
    A failure is told by `failures.tell` with exit status 1; `--debug` before the subcommand shows its traceback too."""

    def __init__(self, *arguments: Any, lazy: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._lazy = dict(lazy or {})
        self._debug = False
        debug = click.Option(
            ["--debug"], is_flag=True, expose_value=False, callback=_note_debug, help="Show where a failure arose."
        )
        self.params.append(debug)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All subcommands, sorted."""
        return sorted({*super().list_commands(ctx), *self._lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand, or None if there is none of that name."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._lazy[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None, complete_var: str | None = None,
        standalone_mode: bool = True, **more: Any,
    ) -> Any:  # fmt: skip
        """Runs the program and exits: 0, 1 after a failure, 2 for wrong usage, 130 when interrupted. Not
        `standalone_mode`: returns and raises, as click's does."""
        self._debug = False
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **more)
        except Exception as error:
            if not standalone_mode:
                raise
            sys.exit(_told(error, debug=self._debug))
        if not standalone_mode:
            return code
        sys.exit(code if isinstance(code, int) else 0)


def _told(error: Exception, *, debug: bool) -> int:
    """Tells the error to the user; the exit status."""
    if isinstance(error, click.Abort):
        return INTERRUPTED
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        # The reader has seen enough (`| head`). What is still in the buffer must not raise again at the very end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    tell(error, sys.stderr, debug=debug)
    return 1


def _note_debug(ctx: click.Context, _option: click.Parameter, value: bool) -> None:
    program = ctx.find_root().command
    if value and isinstance(program, Program):
        program._debug = True


def output_option(*formats: str, default: str = "table") -> Callable[[F], F]:
    """`-o`, `--output` of a read verb; passed as `output`."""
    return click.option(
        "-o", "--output", type=click.Choice(formats or ("table", "json")), default=default, show_default=True,
        help="How to print it.",
    )  # fmt: skip


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a command's work on an event loop of its own."""
    import asyncio  # the agent's first act doesn't wait for it

    return asyncio.run(work)
