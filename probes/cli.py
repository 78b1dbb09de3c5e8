"""python -m probes: what the features of a checkpoint are worth, as tables and pictures.

    vos, vos-knn    video object segmentation on a DAVIS directory
    segmentation, segmentation-linear, segmentation-knn    classes of pixels, on pictures with label maps
    all         every probe that has data
    report      the tables and the page again, from stored results
    sweep       every finished run of a sweep, in one table; check-sweep: whether a sweep file can be judged
    visualize   features of pictures and videos of your own as colours

Every task of `tasks/table.py` is a command; its options are the fields that it declares. Progress goes to standard error, the
result to standard output. What a user can get wrong ends in one line and exit status 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

from common.command import PlainError, Suggesting, one_line_errors
from common.device import pick_device
from common.progress import ProgressDisplay
from probes import embedded
from probes.data.images import PAPER_HEIGHT_PX, open_labels
from probes.options import CommaSeparated, Option
from probes.report.build import RUN, rebuild
from probes.report.tables import Section
from probes.run import Request, run_tasks
from probes.sources.flowfeat import open_checkpoint
from probes.sources.request import SourceRequest
from probes.sources.request import options as source_options
from probes.sources.table import usual_names
from probes.sweep.command import sweep_commands
from probes.task import Scalar, Task
from probes.tasks.table import TASKS
from probes.visualize import Strips, draw, find_inputs, is_video

PATH = click.Path(path_type=Path)
one_line = one_line_errors(out_of_memory="use a smaller --height or --segmentation-size, or --device cpu")

MODEL = click.option(
    "--model",
    type=PATH,
    required=True,
    help="Model file (.safetensors, .pth), training checkpoint, or an official name such as dinov2_vits14_yt.",
)
TEACHER = click.option("--teacher", is_flag=True, help="Take the EMA decoder of a training checkpoint.")
DEVICE = click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:N or auto.")
RUN_OPTIONS = (
    MODEL,
    click.option("--out", type=PATH, required=True, help="Directory of the report."),
    click.option(
        "--sources",
        type=CommaSeparated(),
        default=",".join(usual_names()),
        show_default=True,
        help="Feature sources to compare: see docs/sources.md.",
    ),
    *source_options(),
    click.option("--seed", type=int, default=0, show_default=True, help="Draws the random decoder."),
    TEACHER,
    DEVICE,
    click.option("--run", "run_dir", type=PATH, help="Directory of the training: its curves go into the report."),
    click.option("--threads", type=click.IntRange(min=1), help="CPU threads of the network.  [default: torch's]"),
    click.option(
        "--jobs",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Processes that share out videos and pictures; of a data set measured as one, the sources.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the means as JSON instead of a table."),
)


def _task_option(option: Option, *, required: bool) -> Callable[[Any], Any]:
    """One option of a task. Left out, it is None, and the task's own default holds."""
    default = "" if option.default in (None, False, ()) else f"  [default: {option.default}]"
    kind: dict[str, Any] = {"is_flag": True} if option.kind is bool else {"type": option.kind}
    # A default, even None, would satisfy click where the option is required.
    kind |= {"required": True} if required else {"default": None}
    return click.option(option.flag, option.parameter, help=option.help + default, **kind)


def _decorated(command: Callable[..., None], options: Sequence[Callable[[Any], Any]]) -> Callable[..., None]:
    for decorate in reversed(options):
        command = decorate(command)
    return command


def _named(task: type[Task], values: dict[str, Any]) -> dict[str, Any]:
    """The fields of a task that were named on the command line."""
    named = {name: values[option.parameter] for name, option in task.options().items()}
    return {name: value for name, value in named.items() if value is not None}


def _given(task: type[Task], values: dict[str, Any]) -> Task:
    return task(**_named(task, values))


def _request(known: tuple[type[Task], ...], values: dict[str, Any], **about: Scalar) -> Request:
    if values["threads"] is not None:
        torch.set_num_threads(values["threads"])
    taken = {name: values[name] for name in ("model", "out", "seed", "teacher", "device", "jobs")}
    sources = (*values["sources"], *values["own_sources"])
    if values["run_dir"] is not None:
        about[RUN] = str(values["run_dir"])
    return Request(**taken, sources=sources, known=known, about=about, source_request=SourceRequest.of(values))


def _show(section: Section, out: Path, *, as_json: bool) -> None:
    """The means of one task on standard output."""
    task, results = section.task, section.results
    if as_json:
        means: dict[str, dict[str, float | None]] = {source: {} for source in results.sources}
        for source in results.sources:
            for metric in task.main():
                value = section.mean(source, metric.name)
                means[source][metric.name] = None if value is None else metric.shown(value)
        click.echo(json.dumps({"probe": task.name, "means": means, "report": str(out / "index.html")}))
        return
    table = [["source", *(metric.heading for metric in task.main())]]
    for source in results.sources:
        table.append([source, *(metric.text(section.mean(source, metric.name)) for metric in task.main())])
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("   ".join([row[0].ljust(len(first)), *others]))
    click.echo(f"report: {out / 'index.html'}")


def _command_of(task: type[Task], known: tuple[type[Task], ...]) -> click.Command:
    """`python -m probes <task>`."""

    @one_line
    def run(**values: Any) -> None:
        (section,) = run_tasks([_given(task, values)], _request(known, values))
        _show(section, values["out"], as_json=values["as_json"])

    options = [_task_option(option, required=option.data) for option in task.options().values()]
    text = f"{task.title}: {task.name}.csv, report.md and index.html in --out."
    return click.command(task.name, help=text)(_decorated(run, [*options, *RUN_OPTIONS]))


def _all_command(known: tuple[type[Task], ...]) -> click.Command:
    """`python -m probes all`; a flag that several tasks declare goes to each of them."""

    @one_line
    def run(**values: Any) -> None:
        folder, about = values["embedded"], {}
        if folder is None:
            ready = [task for task in (_given(kind, values) for kind in known) if task.has_data()]
        else:
            ready, about = embedded.tasks(known, folder, partial(_named, values=values)), {embedded.ABOUT: str(folder)}
            click.echo(embedded.note(folder), err=True)
        if not ready:
            needed = [option.flag for task in known for option in task.options().values() if option.data]
            choices = " or ".join(f"{flag} DIR" for flag in dict.fromkeys(needed))
            raise ValueError(f"no probe has data: give {choices}, or --embedded DIR for the generator's own")
        for section in run_tasks(ready, _request(known, values, **about)):
            _show(section, values["out"], as_json=values["as_json"])

    flags: dict[str, Option] = {}
    for task in known:
        for option in task.options().values():
            same = flags.setdefault(option.flag, option)
            if same.default != option.default:
                flags[option.flag] = replace(same, default=None)  # no one default is true of all tasks
    options = [_task_option(option, required=False) for option in flags.values()]
    options.append(click.option("--embedded", type=PATH, help=embedded.HELP))
    return click.command("all", help="Run every probe whose data is given.")(_decorated(run, [*options, *RUN_OPTIONS]))


def _report_command(known: tuple[type[Task], ...]) -> click.Command:
    @click.command("report")
    @click.option("--out", type=PATH, required=True, help="Directory of a report.")
    @click.option("--run", "run_dir", type=PATH, help="Directory of the training.  [default: as recorded]")
    @one_line
    def run(out: Path, run_dir: Path | None) -> None:
        """Write the tables and the page anew from the records in --out."""
        sections = rebuild(out, known, run_dir)
        done = [
            f"{s.task.name} {len(s.results.complete())} of {len(s.results.selection)} {s.task.unit.many}"
            for s in sections
        ]
        click.echo(f"report: {out / 'index.html'} ({', '.join(done)})")

    return run


@click.command("visualize")
@click.argument("shown", metavar="IMAGE|VIDEO|DIR", type=PATH)
@MODEL
@click.option("--out", type=PATH, required=True, help="Directory for what is drawn.")
@click.option("--height", "height_px", type=int, default=PAPER_HEIGHT_PX, show_default=True, help="Input height, px.")
@click.option("--joint", is_flag=True, help="Colours of the first file for all: frames of one video.")
@click.option("--labels", type=PATH, help="Label map of the first picture: draws what a linear probe of it finds.")
@TEACHER
@DEVICE
@one_line
def visualize(
    shown: Path, model: Path, out: Path, height_px: int, joint: bool, labels: Path | None, teacher: bool, device: str
) -> None:
    """Input, encoder and FlowFeat side by side: principal components as colours.

    A picture becomes a PNG, a video an mp4 with one colour basis, a directory one of either per file in it.
    """
    files = find_inputs(shown)
    labels_hw = None if labels is None else open_labels(labels)
    checkpoint = open_checkpoint(model, teacher=teacher, device=pick_device(device))
    with ProgressDisplay("visualize", "frames") as display:
        written = draw(Strips(checkpoint, height_px, labels_hw), files, out, joint=joint, display=display)
    videos = sum(map(is_video, written))
    if videos:
        click.echo(f"{videos} videos in {out}")
    if len(written) > videos:
        click.echo(f"{len(written) - videos} pictures in {out}")
    if len(written) < len(files):
        noun = "files" if any(map(is_video, files)) else "pictures"
        raise PlainError(f"{len(files) - len(written)} of {len(files)} {noun} could not be read")


def commands(tasks: Sequence[type[Task]]) -> click.Group:
    """The command line over these tasks."""
    known = tuple(tasks)
    text = "Probes of dense features: python -m probes vos --model FILE --davis DIR --out DIR"
    group = Suggesting(help=text)
    for task in known:
        group.add_command(_command_of(task, known))
    for command in (_all_command(known), _report_command(known), *sweep_commands(known), visualize):
        group.add_command(command)
    return group


main = commands(TASKS)
