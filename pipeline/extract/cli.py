"""python -m pipeline extract | verify, and the options that `plan` shares: they become one checked request; what happens becomes lines
and exit codes.

Everything that can be refused is refused while the request is built, before anything is written: the corrected command
finds the directory as it was.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any

import click

from common.command import one_line_errors
from common.cores import usable_processors
from common.place import PLACE
from common.progress import ProgressDisplay
from pipeline.extract import progress
from pipeline.extract.accounts import Accounts, accounts_at_end
from pipeline.extract.forecast_beside import Beside, beside
from pipeline.extract.part_summary import summarise_part
from pipeline.extract.parts import Part
from pipeline.extract.places import OUT_OPTION, PLACE_OPTIONS, Places, places_of
from pipeline.extract.plan import ChunkPlan, Continuing
from pipeline.extract.run import ExtractionRequest, Tally, extract_part, stated
from pipeline.extract.runner import Runner
from pipeline.extract.sharing_options import SHARING_OPTIONS, choice_for, runner_for
from pipeline.extract.termination import terminated_like_interrupted
from pipeline.flow.estimator import EstimatorOptions
from pipeline.flow.options import named_values
from pipeline.video.datasets import DATASETS
from shards import schema
from shards.counting import counted, plural
from shards.cut_settings import CUT_THRESHOLDS
from shards.schema import Manifest, Settings
from shards.verify import verify as verify_set

REJECTED_TOO_MANY = 3
DAMAGED = 4
INTERRUPTED = 130

plain_errors = one_line_errors(out_of_memory="use a smaller --batch or fewer --workers")


def _offsets(_: click.Context, __: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted(int(part) for part in text.split(",")))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of whole numbers such as -2,-1,1,2") from None


_REQUEST_OPTIONS = (
    click.option("--dataset", required=True, type=click.Choice(DATASETS), help="Layout of the videos."),
    *PLACE_OPTIONS,
    click.option("--flow", default="dis", help="Flow estimator."),
    click.option("--weights", help="Weights of the flow network: a file, or random:SEED."),
    click.option("--passes", default=8, help="Anchors per video; one paper epoch each."),
    click.option("--seed", default=0, help="Seed of the anchors."),
    click.option("--offsets", default="-2,-1,1,2", callback=_offsets, help="Neighbours, in nominal frames."),
    click.option("--image-size", default=448, help="Side of the stored image, pixels."),
    click.option("--flow-size", default=224, help="Side of the square that flow is computed on, pixels."),
    click.option("--jpeg-quality", default=90),
    click.option("--chunk-videos", default=256, help="Videos per chunk and shard."),
    click.option(
        "--cuts",
        type=click.Choice(["none", *CUT_THRESHOLDS]),
        default="none",
        help="Take no window across a shot cut.",
    ),
    click.option("--cut-threshold", default=0.0, help="Of the detector of cuts; 0: its own."),
    click.option("--max-cuts-per-minute", default=0.0, help="Reject videos with more shot cuts; 0: never."),
    click.option(
        "--noise-floor", default=schema.NOISE_FLOOR_PX, help="Flow that varies less is recorded as still, pixels."
    ),
    click.option("--keep-neighbours", is_flag=True, help="Also store the neighbour frames."),
    click.option("--keep-confidence", is_flag=True, help="Also compute and store the confidence of the flow."),
    click.option("--keep-reverse", is_flag=True, help="Also compute and store the flow from neighbour to anchor."),
    click.option(
        "--flow-option", "flow_options", multiple=True, metavar="NAME=VALUE", help="An option of the estimator."
    ),
    click.option(
        "--device", default="cpu", help="Where the flow network runs: cpu, cuda (every visible GPU), cuda:0,cuda:1."
    ),
    click.option("--precision", default="fp32", help="fp32, tf32, bf16 or fp16."),
    *SHARING_OPTIONS,
    click.option("--batch", type=int, help="Windows per call of the estimator; default: as it likes."),
    click.option("--deadline", "deadline_s", default=120.0, help="Seconds that decoding one video may take."),
    click.option(
        "--retry-rejected",
        "retry",
        multiple=True,
        metavar="REASON",
        help="Try videos rejected for this reason again; may be repeated.",
    ),
    click.option(
        "--drop-passes", is_flag=True, help="Take passes beyond --passes back, deleting what was made of them."
    ),
)


def request_options(
    command: Callable[..., None], out_option: Callable[..., Callable[..., None]] = OUT_OPTION
) -> Callable[..., None]:
    """The options of `extract`; the command receives `request`, `runner` and `places`, checked, nothing started."""

    @wraps(command)
    def wrapped(
        dataset: str,
        flow: str,
        weights: str | None,
        passes: int,
        seed: int,
        offsets: tuple[int, ...],
        image_size: int,
        flow_size: int,
        jpeg_quality: int,
        chunk_videos: int,
        cuts: str,
        cut_threshold: float,
        max_cuts_per_minute: float,
        noise_floor: float,
        keep_neighbours: bool,
        keep_confidence: bool,
        keep_reverse: bool,
        flow_options: tuple[str, ...],
        device: str,
        precision: str,
        part: Part,
        where: str,
        actors: int | None,
        workers: int | None,
        batch: int | None,
        deadline_s: float,
        retry: tuple[str, ...],
        drop_passes: bool,
        **rest: Any,
    ) -> None:
        kept = (keep_confidence, keep_reverse)
        options = EstimatorOptions(weights, device, precision, named_values(flow_options), *kept)
        estimator = choice_for(where, flow, options, device, image_size)
        settings = Settings(
            dataset=dataset,
            estimator=stated(estimator),
            seed=seed,
            offsets=offsets,
            image_size=image_size,
            flow_size=flow_size,
            jpeg_quality=jpeg_quality,
            chunk_videos=chunk_videos,
            keep_neighbours=keep_neighbours,
            keep_confidence=keep_confidence,
            keep_reverse=keep_reverse,
            noise_floor_px=noise_floor,
            cut_detector="" if cuts == "none" else cuts,
            cut_threshold=cut_threshold,
            most_cuts_per_minute=max_cuts_per_minute,
        )
        continuing = Continuing(frozenset(retry), drop_passes)
        places = places_of(rest, flow)
        request = ExtractionRequest(
            places.root, places.out, settings, estimator, places.list_file, passes, batch, deadline_s, continuing, part
        )
        runner = runner_for(where, estimator, device, workers, actors, places.remote)
        command(request=request, runner=runner, places=places, **rest)

    for option in reversed((out_option, *_REQUEST_OPTIONS)):
        wrapped = option(wrapped)
    return wrapped


@click.command("extract")
@click.option(
    "--max-reject-share",
    default=0.5,
    type=click.FloatRange(0, 1),
    help="Fail (exit 3) when more of the videos are rejected.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON at the end.")
@plain_errors
@request_options
def extract_command(
    request: ExtractionRequest, runner: Runner, places: Places, max_reject_share: float, as_json: bool
) -> None:
    """Compute flow over a video set and write a shard set. Rerun the same command to continue; more --passes extend."""
    if math.isnan(max_reject_share):  # which click's range lets through
        raise ValueError("max_reject_share is nan; give 0..1")
    plans: list[ChunkPlan] = []

    def planned(plan: ChunkPlan, tally: Tally) -> None:
        plans.append(plan)
        progress.planned(display, plan, tally)

    with ProgressDisplay("extract", "videos") as display, terminated_like_interrupted():
        try:
            with places.opened(runner, writing=True, part=request.part) as landing:
                ended = extract_part(
                    request,
                    landing,
                    lambda event, tally: progress.happened(display, places.told(event), tally),
                    planned,
                )
                of_list = accounts_at_end(request.out, plans[-1], request.part, ended.manifest)
                compared = beside(request.out, ended.manifest) if ended.manifest is not None else None
            ended = places.at_end(ended)
        except KeyboardInterrupt:
            display.say("interrupted: chunks that have landed are safe; run the same command again to continue")
            sys.exit(INTERRUPTED)
    manifest = ended.manifest
    if manifest is None or not request.part.whole:
        fine = summarise_part(places.out_name, plans[-1], request.part, ended, of_list, max_reject_share, as_json)
        sys.exit(0 if fine else REJECTED_TOO_MANY)
    summarise(manifest, places.out_name, as_json, of_list, compared)
    rejected = sum(manifest.counts["rejected"].values())
    if rejected > max_reject_share * manifest.counts["videos"] or manifest.counts["samples"] == 0:
        of_all = counted(manifest.counts["videos"], "video was", "videos were")
        click.echo(f"Error: {rejected} of {of_all} rejected; see {schema.VIDEOS} in {places.out_name}", err=True)
        sys.exit(REJECTED_TOO_MANY)


def summarise(
    manifest: Manifest,
    out: Path | str,
    as_json: bool,
    of_list: Accounts | None = None,
    compared: Beside | None = None,
) -> None:
    """Print what a set holds, what became of a run's list, and how that compares with the forecast."""
    counts = dict(manifest.counts)
    size = sum(s.bytes for s in manifest.shards)
    if as_json:
        more = {"of_list": asdict(of_list)} if of_list else {}
        more |= {"forecast": asdict(compared)} if compared else {}
        body = {**counts, "bytes": size, "shards": len(manifest.shards), "complete": manifest.complete, **more}
        click.echo(json.dumps(body, sort_keys=True))
        return
    if of_list:
        said = [f"{of_list.ok} ok", *(f"{reason} {n}" for reason, n in of_list.rejected.items())]
        said += [f"{of_list.pending} pending"] if of_list.pending else []
        gone = f"; {of_list.gone} of the set {plural(of_list.gone, 'is', 'are')} not in it" if of_list.gone else ""
        click.echo(f"list of {counted(of_list.listed, 'video')} = {' + '.join(said)}{gone}")
    rejected = ", ".join(f"{reason} {n}" for reason, n in sorted(counts["rejected"].items())) or "none"
    by_status = ((status, counts["pairs"].get(status)) for status in schema.PAIR_STATUS)
    pairs = ", ".join(f"{status} {n}" for status, n in by_status if n) or "none"
    across = f", {counted(counts['across_cuts'], 'anchor')} across cuts" if counts.get("across_cuts") else ""
    click.echo(f"{out}: {counts['ok']} of {counted(counts['videos'], 'video')}, rejected: {rejected}{across}")
    shards = counted(len(manifest.shards), "shard")
    click.echo(f"{counted(counts['samples'], 'sample')}, pairs: {pairs}; {shards}, {size / 2**20:.1f} MiB")
    for line in compared.lines() if compared else ():
        click.echo(line)


@click.command()
@click.argument("shard_set", type=PLACE)
@click.option("--deep", is_flag=True, help="Also decode every member and check its statistics.")
@click.option("--jobs", type=click.IntRange(1), help="Processes for --deep.  [default: processors]")
@click.option("--json", "as_json", is_flag=True)
@plain_errors
def verify(shard_set: Path | str, deep: bool, jobs: int | None, as_json: bool) -> None:
    """Check every byte of a set against its manifest. Exits 4 and names what is damaged."""
    with ProgressDisplay("verify", "shards") as display:

        def checked(done: int, total: int) -> None:
            if done == 1:
                display.status = "" if display.total is None else "decoding samples"
                display.begin(total)
            display.update(done)

        problems = verify_set(shard_set, deep=deep, jobs=jobs or usable_processors(), progress=checked)
    if as_json:
        click.echo(json.dumps([p.__dict__ for p in problems]))
    else:
        for problem in problems:
            click.echo(str(problem), err=True)
        click.echo(f"{shard_set}: {counted(len(problems), 'problem') if problems else 'intact'}")
    if problems:
        sys.exit(DAMAGED)
