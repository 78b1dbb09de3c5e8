"""How the commands of stage 1 end on bad input, a full disk or a failed chunk: one line and a non-zero exit."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from pipeline.extract.local import ExtractionError
from shards.files import full_disk


def plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """What a user can do something about becomes click's one line instead of a traceback."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (ValueError, ExtractionError) as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            hint = ": free some space and run the same command again" if full_disk(error) else ""
            raise click.ClickException(f"{error}{hint}") from error

    return run
