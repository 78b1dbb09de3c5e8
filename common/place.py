"""A command's argument that is a folder, or an address that fsspec opens (s3://bucket/set)."""

from __future__ import annotations

from pathlib import Path

import click

from shards.storage import is_url


class Place(click.ParamType):
    """Addresses stay text, for a path has one slash where they have two; everything else but nothing becomes a Path."""

    name = "path"

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        if value == "":  # of a variable that is not set; as a path it would be the working directory
            self.fail("it is empty; name a folder or an address (. for the working directory)", param, ctx)
        return str(value).rstrip("/") if is_url(value) else Path(value)


class LocalPath(click.ParamType):
    """A file or folder of this machine, whether or not it is there."""

    name = "path"

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if value == "":
            self.fail("it is empty; name a file or folder", param, ctx)
        return Path(value)


PLACE, LOCAL_PATH = Place(), LocalPath()
