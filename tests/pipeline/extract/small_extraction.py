"""What the extraction tests share: small clips, a request, digests of a set."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pipeline.extract.local import LocalRunner
from pipeline.extract.run import ExtractionRequest, extract, stated
from pipeline.flow.estimator import EstimatorOptions, choose
from pipeline.synth import write_videos
from shards.schema import Manifest, Settings

SMALL: dict[str, Any] = {"image_size": 64, "flow_size": 32, "chunk_videos": 2}


def make_videos(out: Path, count: int, seed: int = 0) -> Path:
    """`count` synthetic clips of 12 frames at 64x96, with their scene files."""
    write_videos(out, count, seed, frames=12, size=(64, 96))
    return out


def request(
    videos: Path, out: Path, *, dataset: str = "folder", flow: str = "dis", passes: int = 2, **changes: Any
) -> ExtractionRequest:
    """A small extraction. changes: of the settings by `content`, of the estimator's options by `options`, else of the request."""
    content = {**SMALL, **changes.pop("content", {})}
    options = EstimatorOptions(**changes.pop("options", {}))
    estimator = choose(flow, options, image_size=content["image_size"])
    settings = Settings(dataset=dataset, estimator=stated(estimator), **content)
    return ExtractionRequest(videos, out, settings, estimator, passes=passes, **{"deadline_s": 60.0, **changes})


def run(wanted: ExtractionRequest, workers: int = 1) -> Manifest:
    """In worker processes, without a word."""
    runner = LocalRunner(workers, wanted.estimator)
    return extract(wanted, runner, lambda event, tally: None, lambda plan, tally: None)


def digests(root: Path) -> dict[str, str]:
    """SHA-256 by path of everything in a set that is the set (names with a dot are the writer's own)."""
    files = [p for p in sorted(root.rglob("*")) if p.is_file()]
    named = {p.relative_to(root): p for p in files}
    return {
        n.as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for n, p in named.items()
        if not any(x.startswith(".") for x in n.parts)
    }
