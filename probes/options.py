"""Options that a task declares as fields of its dataclass; `cli.py` turns them into options of the commands.

height_px: int = field(default=480, metadata=option("--height", int, "Input height, px."))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

METADATA_KEY = "option"


@dataclass(frozen=True)
class Option:
    """An option of a task on the command line. kind: a click type, or bool for a flag. data: the task measures nothing without."""

    flag: str
    kind: click.ParamType | type
    help: str
    data: bool = False
    default: Any = None
    """The field's, for the help text."""

    @property
    def parameter(self) -> str:
        return self.flag.removeprefix("--").replace("-", "_")


def option(flag: str, kind: click.ParamType | type, help: str, *, data: bool = False) -> dict[str, Option]:
    """The metadata of a field that is an option of the task's command."""
    return {METADATA_KEY: Option(flag, kind, help, data)}


class CommaSeparated(click.ParamType):
    """`a,b` as a tuple of names."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        return tuple(part.strip() for part in str(value).split(",") if part.strip())
