"""Extraction between folders against extraction between buckets, in one run: what listing, fetching and uploading cost, and what they hide.

    python bench/buckets.py --videos DIR --list FILE --record

The bucket is a local folder behind a file system of fsspec whose every request takes so many seconds, and its bytes as long as at
BYTES_PER_S: once as in the machine's own region, once as from another continent.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import fsspec
from fsspec.implementations.local import LocalFileSystem

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.record import record
from pipeline.extract.local import LocalRunner
from pipeline.extract.places import Places
from pipeline.extract.run import ExtractionRequest, extract, stated
from pipeline.flow.estimator import EstimatorOptions, choose
from shards.schema import Settings

LATENCIES_S = {"near": 0.005, "far": 0.05}
BYTES_PER_S = 100 << 20


class FarFileSystem(LocalFileSystem):
    """A folder at the end of a long wire. requests: how many there were, each of latency_s."""

    protocol = "far"
    requests = 0
    latency_s = 0.0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("far://")))

    def _wire(self, size: int = 0) -> None:
        type(self).requests += 1
        time.sleep(type(self).latency_s + size / BYTES_PER_S)

    def find(self, path: str, **options: Any) -> Any:
        self._wire()
        return super().find(path, **options)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> Any:
        data = super().cat_file(path, start, end, **options)
        self._wire(len(data))
        return data

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        self._wire(os.path.getsize(lpath))
        super().put_file(lpath, rpath, **options)

    def pipe_file(self, path: str, value: bytes, **options: Any) -> None:
        self._wire(len(value))
        super().pipe_file(path, value, **options)


fsspec.register_implementation("far", FarFileSystem)


def seconds(root: Path | str, out: Path | str, listed: Path, scratch: Path, passes: int, workers: int) -> float:
    """Wall time of an extraction with DIS, its processes' start included."""
    estimator = choose("dis", EstimatorOptions(), image_size=448)
    settings = Settings(dataset="list", estimator=stated(estimator), chunk_videos=8)
    places = Places(root, out, scratch)
    request = ExtractionRequest(places.root, places.out, settings, estimator, listed, passes)
    runner = LocalRunner(workers, estimator, (), places.remote)
    began = time.perf_counter()
    with places.opened(runner, writing=True) as landing:
        manifest = extract(request, landing, lambda event, tally: None, lambda plan, tally: None)
    took = time.perf_counter() - began
    print(f"{out}: {took:.1f} s, {manifest.counts['samples']} samples, {len(manifest.shards)} shards", flush=True)
    return took


@click.command()
@click.option("--videos", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--list", "listed", type=click.Path(exists=True, path_type=Path), required=True, help="Which of them.")
@click.option("--passes", default=4, show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--record", "recorded", is_flag=True, help="Append rows to results.csv.")
def main(videos: Path, listed: Path, passes: int, workers: int, recorded: bool) -> None:
    with tempfile.TemporaryDirectory() as home:
        scratch = Path(home) / "scratch"
        local = seconds(videos, Path(home) / "local", listed, scratch, passes, workers)
        shards = len(list((Path(home) / "local").glob("pass-*/*.tar")))
        for name, FarFileSystem.latency_s in LATENCIES_S.items():
            FarFileSystem.requests = 0
            took = seconds(f"far://{videos.resolve()}", f"far://{home}/{name}", listed, scratch, passes, workers)
            wire = f"{FarFileSystem.requests} requests of {FarFileSystem.latency_s} s at {BYTES_PER_S >> 20} MiB/s"
            note = f"{took:.1f} against {local:.1f} s, {passes} passes, {shards} shards; {wire}"
            if recorded:
                record("buckets", f"seconds_{name}_over_folder", took / local, "", note)
            else:
                print(f"{name}: {took / local:.2f} times the seconds of folders; {note}")


if __name__ == "__main__":
    main()
