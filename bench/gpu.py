"""Every GPU check and bench of the project in one call of at most nine minutes; the table comes last. See docs/gpu.md.

    python bench/gpu.py --out OUT [--wheels DIR] [--videos DIR] [--davis DIR]
    python bench/gpu.py --out OUT --device cpu --small                   # all parts, small, without a GPU

Needs the repository, torch, numpy, pyarrow, click, rich, safetensors and opencv. What else the parts import is installed from --wheels,
offline, into a directory that is removed at the end. Each part is a process of its own with a budget (`gpu_parts.py`, `gpu_run.py`);
one that fails or takes too long is a row that says so, and the rest go on. OUT gets rows.csv, summary.json, table.txt and log.txt.
Ends with status 1 if a part did not end well.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.gpu_parts import Place, all_parts, chosen_parts
from bench.gpu_run import Outcome, Part, run_parts
from bench.gpu_table import table, write_outcomes
from bench.record import commit

ROOT = Path(__file__).resolve().parents[1]
NEEDED = {
    "torch": "torch", "numpy": "numpy", "pyarrow": "pyarrow", "click": "click", "rich": "rich",
    "safetensors": "safetensors", "cv2": "opencv-python-headless", "zstandard": "zstandard", "simplejpeg": "simplejpeg",
    "webdataset": "webdataset", "braceexpand": "braceexpand", "yaml": "pyyaml", "decord": "decord2", "PIL": "pillow",
    "psutil": "psutil", "pytest": "pytest",
}  # fmt: skip
"""What is imported → the package that has it."""

PATH = click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True)


def install(wheels: Path, target: Path) -> None:
    """All wheels of a directory, offline and without their dependencies. ClickException with pip's last line if it fails."""
    files = sorted(map(str, wheels.glob("*.whl")))
    if not files:
        raise click.ClickException(f"{wheels} holds no .whl file")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-compile",
        "--no-cache-dir",
    ]
    ended = subprocess.run([*pip, "--target", str(target), *files], capture_output=True, text=True)
    if ended.returncode:
        raise click.ClickException(f"wheels: {(ended.stderr.strip().splitlines() or ['pip failed'])[-1]}")
    sys.path.insert(1, str(target))


def missing() -> list[str]:
    """Packages that parts need and that are not here."""
    return [package for module, package in NEEDED.items() if find_spec(module) is None]


def facts_of(place: Place) -> dict[str, str]:
    """Of the machine and the call. The GPU is named in the rows: asking torch here would take time and memory on it."""
    lacking = missing()
    try:
        torch_version = version("torch")
    except PackageNotFoundError:
        torch_version = "absent"
    return {
        "commit": os.environ["BENCH_COMMIT"],
        "software": f"Python {sys.version.split()[0]}, torch {torch_version}, {os.cpu_count()} cores",
        "device": place.device + (", small sizes" if place.small else ""),
        "clips": "given" if place.videos else "synthetic",
        "masks": "given" if place.davis else "synthetic",
        "encoder": "given" if place.encoder else "random weights",
        **({"missing packages": ", ".join(lacking)} if lacking else {}),
    }


def measure(place: Place, parts: list[Part], deadline_s: float, site: Path) -> tuple[list[Outcome], dict[str, str]]:
    """Run the parts; the files in OUT are rewritten after each. Returns outcomes and facts."""
    facts, so_far = facts_of(place), list[Outcome]()
    paths = [str(site), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]

    def ended(outcome: Outcome) -> None:
        so_far.append(outcome)
        write_outcomes(place.out, so_far, facts)
        click.echo(f"{outcome.part}: {outcome.status} after {outcome.seconds:.0f} s {outcome.reason}".rstrip())

    outcomes = run_parts(
        parts,
        deadline_s=deadline_s,
        scratch=place.scratch,
        log=place.out / "log.txt",
        environment={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        ended=ended,
    )
    write_outcomes(place.out, outcomes, facts)
    return outcomes, facts


@click.command(context_settings={"show_default": True})
@click.option("--out", type=click.Path(path_type=Path, resolve_path=True), required=True, help="Rows, table, log.")
@click.option("--wheels", type=PATH, help="Directory of wheels to install first, offline, for this call.")
@click.option("--videos", type=PATH, help="Folder of real clips.  [default: synthetic ones]")
@click.option("--davis", type=PATH, help="DAVIS directory.  [default: synthetic sequences]")
@click.option(
    "--encoder", type=click.Path(path_type=Path, exists=True, resolve_path=True), help="Published DINOv2-S14 file."
)
@click.option("--device", default="cuda")
@click.option("--small", is_flag=True, help="Every part so small that a CPU core runs it; the figures mean nothing.")
@click.option("--minutes", default=9.0, type=click.FloatRange(min=0.05), help="For everything.")
@click.option("--part", "names", multiple=True, help="Only this part and what it needs; repeatable.")
def main(
    out: Path,
    wheels: Path | None,
    videos: Path | None,
    davis: Path | None,
    encoder: Path | None,
    device: str,
    small: bool,
    minutes: float,
    names: tuple[str, ...],
) -> None:
    """Run all parts, print the table."""
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    for stale in ("log.txt", "rows.csv", "summary.json", "table.txt"):
        (out / stale).unlink(missing_ok=True)
    os.environ["BENCH_COMMIT"] = commit()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # parts and scratch go as after Ctrl-C
    scratch = Path(tempfile.mkdtemp(prefix="flowfeat-gpu-"))
    try:
        site = scratch / "site"
        if wheels:
            install(wheels, site)
        workers = 1 if small else max(1, (os.cpu_count() or 2) - 2)
        place = Place(device, small, scratch, out, videos, davis, encoder, workers)
        try:
            parts = chosen_parts(all_parts(place), names)
        except ValueError as error:
            raise click.ClickException(str(error)) from error
        outcomes, facts = measure(place, parts, 60 * minutes - (time.monotonic() - began) - 1, site)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    click.echo("\n" + table(outcomes, facts), nl=False)
    if any(outcome.status != "ok" for outcome in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
