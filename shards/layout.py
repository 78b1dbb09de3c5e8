"""Where things lie in a set and what they are called, and the two errors of everything that reads one.

Used by every module of this package, mostly through `shards.schema`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

RECORDS = "records"


class ShardSetError(ValueError):
    """A shard set that is missing, incomplete, damaged or of another format."""


class SampleError(ValueError):
    """One sample that cannot be trusted; the message names key, shard and what is wrong."""


def shard_path(chunk: int, pass_index: int) -> str:
    """Path of a shard inside its set, posix style."""
    return f"pass-{pass_index:02d}/{chunk:06d}.tar"


@lru_cache(1 << 16)
def shard_place(path: str) -> tuple[int, int]:
    """Chunk and pass of a shard's path. ValueError where it is none: nothing else may be opened as a shard."""
    match = re.fullmatch(r"pass-([0-9]{1,9})/([0-9]{1,9})\.tar", path)
    if match is None or shard_path(int(match[2]), int(match[1])) != path:
        raise ValueError(f"{path!r} is not the path of a shard (pass-PP/CCCCCC.tar)")
    return int(match[2]), int(match[1])


def record_path(chunk: int, pass_index: int) -> str:
    """Path of the commit record of a shard inside its set, posix style."""
    return f"{RECORDS}/pass-{pass_index:02d}/{chunk:06d}.parquet"


def sample_key(chunk: int, pass_index: int, position: int) -> str:
    """Key of the sample of the position-th video of a chunk in a pass; holds no dot, as webdataset needs."""
    return f"{chunk:06d}-{pass_index:02d}-{position:04d}"


def manifest_text(body: Mapping[str, Any]) -> str:
    """What json.dumps(body, indent=1, sort_keys=True) gives, shard by shard: Python's slow encoder is the only one that indents."""
    separators = ",\n   ", ": "
    entries = json.dumps(body["shards"], sort_keys=True, separators=separators)[2:-2]
    entries = entries.replace("},\n   {", "\n  },\n  {\n   ")  # strings have no line breaks in JSON
    rest = json.dumps({**body, "shards": []}, indent=1, sort_keys=True)
    return rest.replace(
        '\n "shards": []', f'\n "shards": [\n  {{\n   {entries}\n  }}\n ]' if entries else '\n "shards": []'
    )
