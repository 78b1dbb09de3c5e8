"""python -m pipeline plan: what an extraction would take, measured on a few of its videos before anything of it runs.

Options become the same checked request as those of `extract`. Lines, or JSON, go to stdout; with --out the forecast is kept in the log
folder of the set, and `extract` puts what came beside it.
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click

from common.command import tell
from common.cores import usable_processors
from common.place import PLACE
from common.printable import printable
from common.progress import ProgressDisplay
from pipeline.extract.cli import plain_errors, request_options
from pipeline.extract.forecast import Forecast, Machine, Measured, Work, forecast, wall_time
from pipeline.extract.forecast_beside import Kept, beside, keep
from pipeline.extract.forecast_sample import measure
from pipeline.extract.forecast_text import forecast_lines, told
from pipeline.extract.local import LocalRunner
from pipeline.extract.places import Places
from pipeline.extract.plan import ChunkPlan
from pipeline.extract.run import ExtractionRequest
from pipeline.extract.runner import Runner
from shards import schema
from shards.counting import counted

NO_SET = Path(os.devnull) / "no-set"
"""What takes the place of a set when none is named: a path at which none can be, nor be made."""

_out_option = click.option(
    "--out",
    default=NO_SET,
    show_default="none",
    type=PLACE,
    help="Directory or address of the shard set: what has landed there counts, and the forecast is kept in its .log.",
)


@click.command()
@click.option(
    "--sample",
    default=16,
    type=click.IntRange(min=0),
    help="Videos to measure; 0: say what there is to do, and no more.",
)
@click.option("--seconds", default=60.0, type=click.FloatRange(1, 3600), help="About how long measuring may take.")
@click.option("--gpus", default=0, type=click.IntRange(min=0), help="Also say what so many GPUs would take.")
@click.option(
    "--gpu-pairs-per-s",
    type=click.FloatRange(min=0, min_open=True),
    help="Flow that one such GPU is taken to compute; default: as measured, where flow ran on one.",
)
@click.option("--cores", type=click.IntRange(min=1), help="Cores beside those GPUs; default: those of this machine.")
@click.option(
    "--train-samples-per-s",
    type=click.FloatRange(min=0, min_open=True),
    help="Of training from shards, as your GPU does it; default: unknown, which is said.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@plain_errors
@partial(request_options, out_option=_out_option)
def plan(
    request: ExtractionRequest,
    runner: Runner,
    places: Places,
    sample: int,
    seconds: float,
    gpus: int,
    gpu_pairs_per_s: float | None,
    cores: int | None,
    train_samples_per_s: float | None,
    as_json: bool,
) -> None:
    """Say what `extract` with the same options would do and take; nothing of it is begun.

    A few videos, drawn at random, are decoded, put through flow, encoded and thrown away. Of a finished set: its forecast beside what came.
    """
    if sample and not isinstance(runner, LocalRunner):
        raise ValueError(
            "plan measures this machine and no cluster: leave --runner out and say --gpus N for N of its GPUs, or give --sample 0"
        )
    for name, value in (
        ("seconds", seconds),
        ("gpu_pairs_per_s", gpu_pairs_per_s),
        ("train_samples_per_s", train_samples_per_s),
    ):
        if value is not None and not math.isfinite(value):  # which click's ranges let through
            raise ValueError(f"{name} is {value}; give a number")
    asked = _Asked(sample, seconds, gpus, gpu_pairs_per_s, cores, train_samples_per_s)
    with places.opened(runner, writing=False):
        made = request.plan()
        todo = sum(len(passes) for passes in made.missing(request.out).values())
        body = _what_there_is(made, todo)
        if not as_json:
            _say_what_there_is(made, todo)
        if todo == 0:
            answer = _beside_what_came(request.out, places)
        elif sample and isinstance(runner, LocalRunner):
            answer = _measured(request, made, runner, places, asked)
        else:
            answer = _Answer(json.dumps(body["settings"], indent=2, sort_keys=True).splitlines(), {})
    if as_json:
        tell(json.dumps({**body, **answer.body}))
        return
    for line in answer.lines:
        tell(line)


@dataclass(frozen=True)
class _Asked:
    """Of a forecast. gpus: 0 where it is for this machine alone; None: as measured, as here, or unknown."""

    sample: int
    seconds: float
    gpus: int
    gpu_pairs_per_s: float | None
    cores: int | None
    train_samples_per_s: float | None


class _Answer(NamedTuple):
    """The same for people and for JSON."""

    lines: list[str]
    body: dict[str, Any]


def _say_what_there_is(made: ChunkPlan, todo: int) -> None:
    if made.remark:
        tell(printable(made.remark), err=True)
    shards = made.chunks * made.passes
    tell(
        f"{counted(len(made.current), 'video')} in {counted(made.chunks, 'chunk')}, {counted(made.passes, 'pass')}: "
        f"{todo} of {counted(shards, 'shard')} to make"
    )


def _beside_what_came(out: Path, places: Places) -> _Answer:
    """Of a set with nothing left to do."""
    there = (out / schema.MANIFEST).is_file()  # else a run was killed before it wrote one
    compared = beside(out, schema.read_manifest(out)) if there else None
    if compared is None:
        return _Answer([f"nothing left to do; {places.out_name} has no forecast"], {})
    return _Answer(compared.lines(), {"beside": asdict(compared)})


def _measured(
    request: ExtractionRequest, made: ChunkPlan, runner: LocalRunner, places: Places, asked: _Asked
) -> _Answer:
    """From a sample of the videos; kept where there is a set."""
    machine = Machine(usable_processors(), runner.workers, len(runner.devices))
    with ProgressDisplay("plan", "videos of the sample") as display:
        tell = partial(_tell, display)
        measured = measure(request, made, videos=asked.sample, seconds=asked.seconds, local=places.local, tell=tell)
    said = _forecast(request, made, measured)
    cores, workers = asked.cores or machine.cores, max(runner.workers, asked.cores or 1)
    elsewhere = Machine(cores, workers, asked.gpus) if asked.gpus else None
    load = os.getloadavg()[0]
    result = told(measured, said, machine, elsewhere, asked.gpu_pairs_per_s, asked.train_samples_per_s, load)
    lines = forecast_lines(result)
    if request.out != NO_SET:
        kept = keep(request.out, _kept(made, said, machine, len(measured.videos)))
        lines.append(f"kept in {places.named(str(kept))}; extract puts what comes beside it")
    return _Answer(lines, {"forecast": asdict(result)})


def _tell(display: ProgressDisplay, done: int, total: int) -> None:
    if display.total is None:
        display.begin(total)
    display.update(done)


def _what_there_is(made: ChunkPlan, todo: int) -> dict[str, Any]:
    return {
        "videos": len(made.current),
        "chunks": made.chunks,
        "passes": made.passes,
        "shards_to_make": todo,
        "remark": made.remark,
        "settings": made.settings.to_json(),
    }


def _forecast(request: ExtractionRequest, made: ChunkPlan, measured: Measured) -> Forecast:
    missing = made.missing(request.out)
    left = sum(len(made.chunk(chunk)) * len(passes) for chunk, passes in missing.items())
    whole = len(made.current) * made.passes
    return forecast(measured, Work(len(made.current), made.passes, len(made.settings.offsets), left / whole))


def _kept(made: ChunkPlan, said: Forecast, machine: Machine, sampled: int) -> Kept:
    return Kept(
        made=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        settings=made.settings,
        passes=made.passes,
        videos=len(made.current),
        sampled=sampled,
        rejected=said.rejected,
        pairs=said.stored,
        seconds=wall_time(said.stages, machine).seconds,
        bytes=said.bytes,
    )
