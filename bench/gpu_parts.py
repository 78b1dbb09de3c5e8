"""What `bench/gpu.py` runs: every check and bench of the project that wants a GPU, in order, with its budget in seconds.

The first group are checks whose time does not matter; they run side by side while the clips become shards on the CPU. Then come the
timed benches, one at a time, and at the end a training run on real clips with all the time that is left, up to five minutes.
`small` makes every part small enough for one CPU core: it shows that all of them run, and its figures mean nothing.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from bench.gpu_run import SECONDS, Part

HERE = Path(__file__).parent

CHECKS = "checks"
SMALL_TIMES = 4
"""Budgets of small parts are so many times as long: a CPU may be slow, and busy."""


@dataclass(frozen=True)
class Place:
    """Where everything runs. videos, davis: real data, or None for synthetic. out: what is kept; scratch: what is not."""

    device: str
    small: bool
    scratch: Path
    out: Path
    videos: Path | None = None
    davis: Path | None = None
    encoder: Path | None = None
    workers: int = 1

    @property
    def clips(self) -> Path:
        """The videos, linked several times under different names: enough for a chunk of the engine."""
        return self.scratch / "data" / "clips"

    @property
    def shards(self) -> Path:
        return self.scratch / "data" / "shards"


def all_parts(place: Place) -> list[Part]:
    """In the order in which they run: checks, timed benches from the most to the least wanted, the long run."""
    parts = [*_checks(place), *_benches(place), _learning(place)]
    return [replace(part, budget_s=SMALL_TIMES * part.budget_s) for part in parts] if place.small else parts


def chosen_parts(parts: list[Part], names: tuple[str, ...]) -> list[Part]:
    """Those named and what they need, in order; all of them if none is named. ValueError for an unknown name."""
    known = {part.name: part for part in parts}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no part is called {unknown[0]!r}: known are {', '.join(known)}")
    if not names:
        return parts
    wanted = set(names) | {needed for name in names for needed in known[name].needs}
    return [part for part in parts if part.name in wanted]


def _script(name: str, *arguments: str | Path) -> tuple[str, ...]:
    return (sys.executable, str(HERE / name), *map(str, arguments))


def _checks(place: Place) -> list[Part]:
    small = ("--small",) if place.small else ()
    data: list[str | Path] = ["--out", place.scratch / "data", "--workers", str(place.workers), *small]
    if place.videos:
        data += ["--videos", place.videos]
    if place.davis:
        data += ["--davis", place.davis]
    where = ("--device", place.device, *small)
    return [
        Part("data", _script("gpu_data.py", *data), 90, group=CHECKS),
        Part("precision", _script("gpu_precision.py", *where), 80, group=CHECKS),
        Part("memory", _script("gpu_memory.py", *where), 80, group=CHECKS),
        Part("tests", _script("gpu_tests.py", "--device", place.device), 90, group=CHECKS),
    ]


def _benches(place: Place) -> list[Part]:
    words = _small_words() if place.small else _paper_words(place.workers)
    given = {
        "step": ("train_step.py", "--shards", place.shards),
        "flow": ("flow.py", "--record"),
        "extraction": ("extraction.py", "--videos", place.clips, "--weights", "random:0"),
        "break-even": ("break_even.py", "--videos", place.clips),
        "compiled": ("train_step.py", "--compile"),
        "precisions": ("train_step.py",),
    }
    budgets = {"step": 70, "flow": 75, "extraction": 120, "break-even": 90, "compiled": 130, "precisions": 60}
    reading = {"step", "extraction", "break-even"}
    return [
        Part(
            name,
            _script(str(script), *arguments, "--device", place.device, *words[name].split()),
            budgets[name],
            needs=("data",) if name in reading else (),
        )
        for name, (script, *arguments) in given.items()
    ]


def _paper_words(workers: int) -> dict[str, str]:
    """The paper's sizes. Few steps where fp32 takes half a second each."""
    loading = min(8, workers)
    return {
        "step": f"--precision bf16 --steps 20 --warmup 5 --workers {loading}",
        "flow": "--networks sea-raft-m raft-small raft --sides 224 --batches 16 128 --repeats 2 --only throughput "
        "--precisions fp32 tf32 bf16",
        "extraction": f"--flow sea-raft-m --precision bf16 --passes 4 --workers {workers} --alone-seconds 3",
        "break-even": "--config configs/ytvos.toml --flow sea-raft-m --precision bf16 --count 64 --steps 3 "
        f"encoder.init=random data.workers={workers}",
        "precisions": "--precision fp32 --precision tf32 --precision bf16 --steps 5 --warmup 2",
        "compiled": "--precision bf16 --steps 15 --warmup 5",
    }


def _small_words() -> dict[str, str]:
    """One CPU core, seconds."""
    step = "--variant tiny_dino8 --size 32 --batch 4 --workers 1 --threads 1 --precision fp32 --steps 1 --warmup 1"
    return {
        "step": step,
        "flow": "--networks raft-small --sides 128 --batches 4 --precisions fp32 --repeats 1 --only throughput",
        "extraction": "--flow raft-small --passes 1 --workers 1 --alone-seconds 0.5",
        "break-even": "--flow raft-small --count 2 --steps 1 encoder.variant=tiny_dino8 encoder.init=random "
        "views.image_size=32 train.batch_size=2 train.threads=1 data.workers=0",
        "precisions": step,
        "compiled": step,
    }


def _learning(place: Place) -> Part:
    arguments: list[str | Path] = ["--data", place.scratch / "data", "--out", place.out, "--device", place.device]
    arguments += ["--workers", str(min(8, place.workers)), "--seconds", SECONDS]
    if place.encoder:
        arguments += ["--encoder", place.encoder]
    if place.small:
        arguments += ["--small"]
    least = 20.0 if place.small else 180.0
    return Part("learning", _script("gpu_learning.py", *arguments), 300, needs=("data",), reserve_s=least)
