"""The embedded default: without a data set every probe runs on the generator's own data, and says so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from common.clip import frames_in
from pipeline.synth import generate, write_stills
from probes import embedded
from probes.cli import commands
from probes.report import records
from probes.tasks.table import TASKS
from probes.tasks.vos import LinearVos
from tests.browser import PHONE_PX, looked_at, needs_chromium
from tests.module_graph import ROOT
from tests.test_makefile import commands as make


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(commands(TASKS), [str(argument) for argument in arguments])


SMALL = (
    "--height", 48, "--iterations", 3, "--segmentation-size", 48, "--segmentation-iterations", 2, "--depth-iterations", 2,
    "--views", 1, "--points", 9, "--motion-size", 48, "--motion-pairs", 1, "--efficiency-budget", 0.05, "--sources", "encoder,flowfeat",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("generated")
    generate(out, 0, 1, 3, frames=5, size=(64, 96))
    write_stills(out, 4, 3, size=(64, 96))
    extract = ["extract", "--dataset", "davis", "--root", out / "davis", "--out", out / "shards", "--flow", "truth"]
    small = ["--passes", 1, "--image-size", 64, "--flow-size", 32, "--workers", 1]
    command = [sys.executable, "-m", "pipeline", *map(str, [*extract, *small])]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def ran(folder: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Result]]:
    out = tmp_path_factory.mktemp("embedded")
    yield out, invoke("all", "--embedded", folder, "--model", checkpoint, "--out", out, *SMALL)


def test_every_probe_has_its_settings_there() -> None:
    assert [task.name for task in TASKS if task.embedded is None] == []
    for task in TASKS:
        assert set(task.embedded or {}) <= set(task.options()), task.name


def test_every_table_is_filled_and_says_on_what(ran: tuple[Path, Result], folder: Path) -> None:
    out, result = ran
    assert result.exit_code == 0, result.output
    assert "the generator's own data" in result.stderr
    page, markdown = (out / "index.html").read_text(), (out / "report.md").read_text()
    for task in TASKS:
        assert f'<section id="{task.name}">' in page
        lines = (out / f"{task.name}.csv").read_text().splitlines()
        assert {line.split(",")[0] for line in lines[1:]} >= {"encoder", "flowfeat"}, task.name
        run = records.read(out).last_run(task.name)
        assert run is not None and run.about[embedded.ABOUT] == str(folder)
    assert "generator&#x27;s own data" in page and "the generator's own data" in markdown
    normals = [line for line in (out / "results.csv").read_text().splitlines() if ",normal_mean," in line]
    assert len(normals) == 3, "the relief's camera is found, for chance too"


@needs_chromium
def test_the_page_of_all_probes_opens_on_a_phone(ran: tuple[Path, Result]) -> None:
    found = looked_at(ran[0] / "index.html")
    assert found["width"] <= PHONE_PX and found["right"] <= PHONE_PX and found["narrowest"] >= 100
    assert found["seen"] == found["pictures"] > 50
    clips = list(ran[0].rglob("*.mp4"))
    assert found["clips"] == len(clips) >= 2 * 2 * 2 and found["plays"] == 1
    assert all(frames_in(clip) == 3 for clip in clips), "all frames but the first and the last"
    assert found["outside"] == 0


def test_what_is_named_wins(
    ran: tuple[Path, Result], folder: Path, checkpoint: Path, davis: Path, tmp_path: Path
) -> None:
    own = embedded.tasks(TASKS, folder, lambda kind: {"root": davis} if kind is LinearVos else {})
    task = next(one for one in own if isinstance(one, LinearVos))
    assert task.root == davis and task.height_px == 480, "data of your own: the paper's settings"
    named = embedded.tasks(TASKS, folder, lambda kind: {"height_px": 96} if kind.name == "vos" else {})
    assert named[0].settings()["height"] == 96 and named[1].settings()["height"] == 160


def test_a_folder_that_lacks_something_says_how_to_make_it(checkpoint: Path, tmp_path: Path) -> None:
    generate(tmp_path / "d", 0, 1, 3, frames=3, size=(64, 96))
    result = invoke("all", "--embedded", tmp_path / "d", "--model", checkpoint, "--out", tmp_path / "out")
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert (
        result.exit_code == 1 and "no segmentation/" in line and "pipeline synth --out" in line and "--stills" in line
    )


def test_nothing_is_measured_twice(ran: tuple[Path, Result], folder: Path, checkpoint: Path) -> None:
    out, first = ran
    before = len((out / records.FILE).read_bytes().splitlines())
    again = invoke("all", "--embedded", folder, "--model", checkpoint, "--out", out, *SMALL)
    assert again.stdout == first.stdout
    assert again.stderr.count("are already measured") == len(TASKS)
    after = len((out / records.FILE).read_bytes().splitlines())
    assert after - before == len(TASKS), "a line per probe that it was asked for, none that it was measured"


def test_make_takes_it_where_no_data_is_named() -> None:
    alone = make("probe-all")
    assert "pipeline synth --out data/demo-0" in alone and "--embedded data/demo-0" in alone
    assert "--model runs/demo/flowfeat.safetensors" in alone and "--davis" not in alone.split("probes all")[1]
    assert "--model runs/x/flowfeat.safetensors" in make("probe-all", "RUN=runs/x")
    for named in (("RUN=r", "DAVIS=d"), ("RUN=r", "PROBE=--depth d --height 96")):
        lines = make("probe-all", *named)
        assert "--embedded" not in lines and "synth" not in lines and "--model r/flowfeat" in lines
    assert "--davis d" in make("probe-all", "RUN=r", "DAVIS=d")
