"""Manners of every command line of the project: errors in one line, the nearest name for a mistyped one.

What a user can act on is an exception whose message is the whole story: ValueError for bad input, OSError for files and
disks, `PlainError` for what else a stage expects to happen. Anything else is a defect of ours and keeps its traceback. An interrupt from
the keyboard is one line and exit status 130.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import wraps
from typing import Any, TypeVar, cast

import click

from common.memory import is_out_of_memory
from common.printable import printable
from shards.files import full_disk

INTERRUPTED = 130
"""Exit status, as shells have it for a command that SIGINT has ended."""

_Command = TypeVar("_Command", bound=Callable[..., None])


class PlainError(Exception):
    """Something that went wrong outside the program; its message says what and names the way out."""


class UnheardError(PlainError):
    """Standard output does not take what there is to say."""


def nearest(name: str, known: Iterable[str], *, what: str = "") -> str:
    """The end of a message about an unknown name: "did you mean a or b?", else "known: a, b, c"."""
    names = list(known)
    near = get_close_matches(name, names, n=2)
    return f"did you mean {' or '.join(near)}?" if near else f"known{what}: {', '.join(names)}"


def one_line_errors(*, out_of_memory: str) -> Callable[[_Command], _Command]:
    """Decorator: what a user can do something about becomes click's one line and exit status 1.

    out_of_memory: what to change when the device's memory runs out, such as "use a smaller --batch".
    """

    def decorate(command: _Command) -> _Command:
        @wraps(command)
        def run(*args: Any, **kwargs: Any) -> None:
            try:
                command(*args, **kwargs)
            except (ValueError, PlainError) as error:
                raise click.ClickException(printable(str(error))) from error
            except OSError as error:
                raise click.ClickException(printable(explain_os_error(error))) from error
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                first = (str(error).splitlines() or ["out of memory"])[0]
                raise click.ClickException(printable(f"{first}: {out_of_memory}")) from error

        return cast(_Command, run)

    return decorate


def explain_os_error(error: OSError) -> str:
    """One line: the system's message with its file, and what to do where the disk is full."""
    return f"{error}: free some space and run the same command again" if full_disk(error) else str(error)


def tell(text: str, *, err: bool = False) -> None:
    """A line of what a command has found. Whoever has stopped listening (`| head`) misses it, and the command goes on.

    Raises UnheardError where standard output does not take it (a full disk); what standard error does not take is dropped.
    """
    try:
        click.echo(text, err=err)
    except OSError as error:
        stream = sys.stderr if err else sys.stdout
        nowhere = os.open(os.devnull, os.O_WRONLY)  # else what is left in the stream fails again when Python ends
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        if not err and not isinstance(error, BrokenPipeError):
            raise UnheardError(f"standard output takes no more: {error.strerror or error}") from error


class Suggesting(click.Group):
    """A command group that names the nearest command for an unknown one, and ends all of them in one manner on an interrupt."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # which click takes for a question that was not answered: "Aborted!", exit status 1
            tell("interrupted", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            ctx.fail(f"no command {args[0]!r}; {nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)
