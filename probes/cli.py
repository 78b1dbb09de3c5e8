"""python -m probes: what the features of a checkpoint are worth, as tables and pictures.

    vos         linear probe for video object segmentation on a DAVIS directory
    all         every probe that has data
    report      the tables and the page again, from stored results
    visualize   features of pictures of your own as colours

Progress goes to standard error, the result to standard output. What a user can get wrong ends in one line and exit status 1.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click
import torch

from probes.data import davis as layouts
from probes.heads import linear
from probes.report import build as report
from probes.report import tables
from probes.report.progress import watching
from probes.report.store import Results, differing
from probes.sources.flowfeat import SOURCES, check_names
from probes.sweep.command import sweep_command
from probes.tasks import vos
from trainer import FlowFeat

EXISTING = click.Path(path_type=Path)


class Suggesting(click.Group):
    """Names the nearest command for an unknown one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            near = get_close_matches(args[0], self.commands, n=1)
            hint = f", did you mean {near[0]!r}?" if near else f" (known: {', '.join(self.commands)})"
            ctx.fail(f"no command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turns what users can cause (bad files, values, memory) into click's one line and exit status 1."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (ValueError, OSError) as error:
            raise click.ClickException(str(error)) from error
        except torch.OutOfMemoryError as error:
            raise click.ClickException(f"out of GPU memory, use a smaller --height or --device cpu: {error}") from error

    return wrapped


@click.group(cls=Suggesting, help="Probes of dense features: python -m probes vos --model FILE --davis DIR --out DIR")
def main() -> None:
    pass


main.add_command(sweep_command)


@dataclass(frozen=True)
class Request:
    """One run of the probes, as asked for on the command line."""

    model: Path
    davis: Path | None
    out: Path
    resolution: str | None
    year: int | None
    list_file: Path | None
    sequences: tuple[str, ...]
    sources: tuple[str, ...]
    settings: vos.Settings
    device: str
    teacher: bool


def _split(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


PROBE_OPTIONS = (
    click.option(
        "--model", type=EXISTING, required=True, help="Checkpoint: .safetensors, .pth or a training snapshot."
    ),
    click.option("--out", type=EXISTING, required=True, help="Directory of the report."),
    click.option(
        "--height", "height_px", type=int, default=vos.PAPER_HEIGHT_PX, show_default=True, help="Input height, px."
    ),
    click.option("--sequences", help="Only these, with commas between them."),
    click.option("--list", "list_file", type=EXISTING, help="File that names the sequences, one a line."),
    click.option("--resolution", help="Folder under JPEGImages.  [default: 480p, or the only one]"),
    click.option("--year", type=click.Choice(["2016", "2017"]), help="ImageSets list; 2016 makes one object of all."),
    click.option("--sources", default=",".join(SOURCES), show_default=True, help="Feature sources to compare."),
    click.option(
        "--iterations", type=int, default=linear.ITERATIONS, show_default=True, help="Steps of the linear probe."
    ),
    click.option(
        "--standardise", is_flag=True, help="Give feature channels mean 0 and variance 1 first (not the paper's)."
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Draws the random decoder."),
    click.option("--teacher", is_flag=True, help="Take the EMA decoder of a training snapshot."),
    click.option("--device", default="auto", show_default=True, help="cpu, cuda or auto."),
    click.option("--threads", type=click.IntRange(min=1), help="CPU threads of the network.  [default: torch's]"),
    click.option("--json", "as_json", is_flag=True, help="Print the means as JSON instead of a table."),
)


def probe_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(PROBE_OPTIONS):
        command = option(command)
    return command


def _request(davis: Path | None, **given: Any) -> Request:
    if given["threads"] is not None:
        torch.set_num_threads(given["threads"])
    settings = vos.Settings(given["height_px"], given["iterations"], given["standardise"], given["seed"])
    return Request(
        model=given["model"],
        davis=davis,
        out=given["out"],
        resolution=given["resolution"],
        year=None if given["year"] is None else int(given["year"]),
        list_file=given["list_file"],
        sequences=_split(given["sequences"]),
        sources=tuple(check_names(_split(given["sources"]))),
        settings=settings,
        device=given["device"],
        teacher=given["teacher"],
    )


def device_of(name: str) -> torch.device:
    """`auto` takes CUDA when there is one. Raises ValueError for a device this machine doesn't have."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name != "cpu" and not name.startswith("cuda"):
        raise ValueError(f"unknown device {name!r}: cpu, cuda, cuda:N or auto")
    if name != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} was asked for, but torch finds no CUDA device: use --device cpu")
    index = name.removeprefix("cuda").removeprefix(":") or "0"
    if name != "cpu" and not (index.isdigit() and int(index) < torch.cuda.device_count()):
        raise ValueError(f"no device {name!r}: this machine has {torch.cuda.device_count()}, cuda:0 and up")
    return torch.device(name)


def load_model(path: Path, *, teacher: bool = False) -> tuple[FlowFeat, str]:
    """(model, sha256 of its file). Raises ValueError or OSError saying what is wrong with the file."""
    if not path.is_file():
        raise ValueError(
            f"no model file {path}: train one with `python -m trainer train`, or name another with --model"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FlowFeat.from_pretrained(path, teacher=teacher), digest


def _results(request: Request, model: FlowFeat, digest: str, names: list[str], note: Callable[[str], None]) -> Results:
    """Stored results when they were made with the same settings, else fresh ones; with this run's selection."""
    settings = {
        "model": request.model.name,
        "model_sha256": digest,
        "decoder": "teacher" if request.teacher else "student",
        "variant": model.variant,
        "patch": model.patch_size,
        "height": request.settings.height_px,
        "iterations": request.settings.iterations,
        "learning_rate": linear.LEARNING_RATE,
        "weight_decay": linear.WEIGHT_DECAY,
        "standardise": request.settings.standardise,
        "seed": request.settings.seed,
        "objects": "merged" if request.year == 2016 else "separate",
    }
    path = request.out / report.RESULTS_FILE
    results = Results(settings)
    if path.is_file():
        stored = Results.load(path)
        changes = differing(stored.settings, settings)
        if changes:
            note(f"starting afresh, {path} was measured with other settings: {changes}")
        else:
            results = stored
    results.selection, results.sources = names, list(request.sources)
    return results


def run_vos(request: Request) -> dict[str, Any]:
    """Probe, write the report, and return the means: {"source": {"J": ..., "F": ..., "JF": ...}} in per cent."""
    if request.davis is None:
        raise ValueError("video object segmentation needs --davis DIR")
    device = device_of(request.device)
    sequences = layouts.open_davis(
        request.davis,
        resolution=request.resolution,
        year=request.year,
        list_file=request.list_file,
        sequences=request.sequences,
    )
    model, digest = load_model(request.model, teacher=request.teacher)
    with watching() as watcher:
        results = _results(request, model, digest, [sequence.name for sequence in sequences], watcher.note)
        results.about = {"data": str(request.davis), "device": device.type, "torch": torch.__version__}
        # Saved before the first minutes are spent: a directory that can't be written to is found out now.
        results.save(request.out / report.RESULTS_FILE)
        vos.run(model, sequences, results, request.out, request.settings, device, watcher)
    results.save(request.out / report.RESULTS_FILE)
    report.rebuild(request.out)
    rows = (tables.summarise_source(results, source) for source in results.sources)
    return {row.source: {"J": row.J, "F": row.F, "JF": row.JF} for row in rows}


@dataclass(frozen=True)
class Probe:
    """A probe as `all` sees it: what data it needs, and what it does."""

    option: str
    has_data: Callable[[Request], bool]
    run: Callable[[Request], dict[str, Any]]


PROBES: dict[str, Probe] = {"vos": Probe("--davis", lambda request: request.davis is not None, run_vos)}
"""Every probe by name. New ones only register here."""


def _show(probe: str, means: dict[str, Any], out: Path, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"probe": probe, "means": means, "report": str(out / "index.html")}))
        return
    width = max(len("source"), *(len(source) for source in means))
    click.echo(f"{'source':<{width}}      J      F    J&F")
    for source, row in means.items():
        click.echo(f"{source:<{width}} {row['J']:6.1f} {row['F']:6.1f} {row['JF']:6.1f}")
    click.echo(f"report: {out / 'index.html'}")


@main.command("vos")
@click.option("--davis", type=EXISTING, required=True, help="Directory with JPEGImages/ and Annotations/.")
@probe_options
@one_line_errors
def vos_command(davis: Path, as_json: bool, **given: Any) -> None:
    """Linear probe for video object segmentation: vos.csv, report.md and index.html in --out."""
    request = _request(davis, **given)
    _show("vos", run_vos(request), request.out, as_json)


@main.command("all")
@click.option("--davis", type=EXISTING, help="Data of the segmentation probe: JPEGImages/ and Annotations/.")
@probe_options
@one_line_errors
def all_command(davis: Path | None, as_json: bool, **given: Any) -> None:
    """Run every probe whose data is given."""
    request = _request(davis, **given)
    ready = {name: probe for name, probe in PROBES.items() if probe.has_data(request)}
    if not ready:
        raise ValueError(f"no probe has data: give {' or '.join(probe.option for probe in PROBES.values())} DIR")
    for name, probe in ready.items():
        _show(name, probe.run(request), request.out, as_json)


@main.command("report")
@click.option("--out", type=EXISTING, required=True, help="Directory of a report.")
@one_line_errors
def report_command(out: Path) -> None:
    """Write the tables and the page anew from the results stored in --out."""
    results = report.rebuild(out)
    click.echo(f"report: {out / 'index.html'} ({len(results.complete())} of {len(results.selection)} sequences)")


@main.command("visualize")
@click.argument("pictures", type=EXISTING)
@click.option("--model", type=EXISTING, required=True, help="Checkpoint: .safetensors, .pth or a training snapshot.")
@click.option("--out", type=EXISTING, required=True, help="Directory for the pictures.")
@click.option(
    "--height", "height_px", type=int, default=vos.PAPER_HEIGHT_PX, show_default=True, help="Input height, px."
)
@click.option("--joint", is_flag=True, help="Colours of the first picture for all: frames of one video.")
@click.option("--teacher", is_flag=True, help="Take the EMA decoder of a training snapshot.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or auto.")
@one_line_errors
def visualize_command(
    pictures: Path, model: Path, out: Path, height_px: int, joint: bool, teacher: bool, device: str
) -> None:
    """Principal components of the features of one picture, or of every picture in a directory, as colours."""
    from probes.visualize import draw

    network, _ = load_model(model, teacher=teacher)
    written = draw(network.to(device_of(device)).eval(), pictures, out, height_px=height_px, joint=joint)
    click.echo(f"{len(written)} pictures in {out}")
