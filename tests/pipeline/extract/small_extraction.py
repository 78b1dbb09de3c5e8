"""What the extraction tests share: small clips, a request, digests of a set."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pipeline.extract.run import Request, extract
from pipeline.synth import write_videos
from shards.schema import Manifest

SMALL: dict[str, Any] = {"image_size": 64, "flow_size": 32, "chunk_videos": 2}


def make_videos(out: Path, count: int, seed: int = 0) -> Path:
    """`count` synthetic clips of 12 frames at 64x96, with their scene files."""
    write_videos(out, count, seed, frames=12, size=(64, 96))
    return out


def request(videos: Path, out: Path, **changes: Any) -> Request:
    content = {**SMALL, **changes.pop("content", {})}
    base: dict[str, Any] = {"dataset": "folder", "root": videos, "out": out, "flow": "dis", "passes": 2}
    return Request(**{**base, "content": content, "deadline_s": 60.0, **changes})


def run(wanted: Request) -> Manifest:
    return extract(wanted, lambda event, tally: None, lambda plan, tally: None)


def digests(root: Path) -> dict[str, str]:
    """SHA-256 by path of everything in a set that is the set (names with a dot are the writer's own)."""
    files = [p for p in sorted(root.rglob("*")) if p.is_file()]
    named = {p.relative_to(root): p for p in files}
    return {
        n.as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for n, p in named.items()
        if not any(x.startswith(".") for x in n.parts)
    }
