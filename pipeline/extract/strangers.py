"""Whether a folder may become a shard set, or is one that can be continued: what is in it may belong to somebody else.

Comes in: the folder that --out names. Goes out: nothing, or a PlanError. Nothing is written.
"""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path

from shards import schema
from shards.records import any_recorded

OURS = (".lock", ".locks", ".log")
IN_RECORDS = ("plan.json", "videos", "pass-*", ".*")


class PlanError(ValueError):
    """The set at hand cannot be continued with what was asked for."""


def refuse_strangers(root: Path) -> None:
    """Raises PlanError for what is no directory, for one that holds something else than a set, for a set of another format, and for a copy
    of a set without its records: its shards would be made again over those that are there, perhaps of other videos and settings."""
    if (root.exists() or root.is_symlink()) and not root.is_dir():
        raise PlanError(f"{root} is no directory; give an --out of its own")
    if not root.is_dir():
        return
    begun = _only_records(root / schema.RECORDS)
    if (root / schema.MANIFEST).exists():
        _refuse_manifest(root, begun)
    elif not begun and (found := sorted(path.name for path in root.iterdir() if path.name not in OURS)):
        raise PlanError(f"{root} is not empty and no shard set (it holds {found[0]!r}); give an --out of its own")


def _only_records(folder: Path) -> bool:
    """Whether it is there and holds what runs write into it, be it nothing yet."""
    return folder.is_dir() and all(any(fnmatch(path.name, name) for name in IN_RECORDS) for path in folder.iterdir())


def _refuse_manifest(root: Path, begun: bool) -> None:
    path = root / schema.MANIFEST
    try:
        body = json.loads(path.read_bytes())
    except (ValueError, RecursionError, IsADirectoryError) as error:
        if begun:
            return  # damaged; it is made anew from the records
        raise PlanError(
            f"{root} has no records, and a {schema.MANIFEST} that cannot be read; give another --out"
        ) from error
    said = (body.get("format"), body.get("version")) if isinstance(body, dict) else (None, None)
    if said != (schema.FORMAT, schema.VERSION):
        raise PlanError(
            f"{path} is not of format {schema.FORMAT} {schema.VERSION} (it says {said[0]!r}, {said[1]!r}); give another --out, or move it"
        )
    if body.get("shards") and not any_recorded(root):
        raise PlanError(
            f"the set at {root} has no {schema.RECORDS}: it can be read, but not continued; copy them, too, or give another --out"
        )
