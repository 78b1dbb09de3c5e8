"""The commands as a user types them, on a miniature DAVIS directory with a miniature model."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from probes.cli import main
from tests.probes.small_davis import write_sequence

SOURCES = ["encoder", "random_decoder", "flowfeat"]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def probe(checkpoint: Path, davis: Path, out: Path, *more: object) -> Result:
    return invoke(
        "vos", "--model", checkpoint, "--davis", davis, "--out", out, "--height", 64, "--iterations", 40, *more
    )


@pytest.fixture(scope="module")
def finished(checkpoint: Path, davis: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("report")
    return out, probe(checkpoint, davis, out)


def test_vos_writes_the_whole_report(finished: tuple[Path, Result]) -> None:
    out, result = finished
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader((out / "vos.csv").open()))
    assert [row["source"] for row in rows if row["sequence"] == "mean"] == [*SOURCES, "chance"]
    assert len(rows) == 4 * (4 + 1)
    page = (out / "index.html").read_text()
    addresses = re.findall(r'src="([^"]+)"', page)
    assert len(addresses) == 2 * 2 * 2 * (2 + 2 * 3) + 2 * 2 * 3, (
        "two sequences, two frames, whole and a crop: frame and truth, mask and features per source; two clips per source"
    )
    assert "<i>" not in page
    from urllib.parse import unquote

    assert all((out / unquote(address)).stat().st_size > 300 for address in addresses)
    assert "| encoder + FlowFeat |" in (out / "report.md").read_text()
    assert "flowfeat" in result.stdout
    assert "2/2" in result.stderr


def test_a_second_run_measures_nothing_anew(
    finished: tuple[Path, Result], checkpoint: Path, davis: Path, tmp_path: Path
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(finished[0], out)
    again = probe(checkpoint, davis, out, "--json")
    assert "2 of 2 sequences are already measured" in again.stderr
    assert "1/" not in again.stderr
    assert (out / "vos.csv").read_bytes() == (finished[0] / "vos.csv").read_bytes()
    means = json.loads(again.stdout)["means"]
    assert list(means) == SOURCES
    other = probe(checkpoint, davis, out, "--seed", 1, "--sequences", "boxes")
    assert "starting afresh" in other.stderr
    assert "seed 0 -> 1" in other.stderr
    assert "drift" not in (out / "vos.csv").read_text()


def test_a_run_in_two_parts_equals_one_run(
    finished: tuple[Path, Result], checkpoint: Path, davis: Path, tmp_path: Path
) -> None:
    probe(checkpoint, davis, tmp_path, "--sequences", "boxes", "--sources", "flowfeat")
    probe(checkpoint, davis, tmp_path, "--sources", "encoder,flowfeat")
    probe(checkpoint, davis, tmp_path)
    assert (tmp_path / "vos.csv").read_bytes() == (finished[0] / "vos.csv").read_bytes()


def test_changed_data_is_measured_again(checkpoint: Path, tmp_path: Path) -> None:
    write_sequence(tmp_path / "davis", "boxes", frames=4)
    probe(checkpoint, tmp_path / "davis", tmp_path / "out", "--sources", "encoder")
    before = (tmp_path / "out" / "vos.csv").read_text()
    write_sequence(tmp_path / "davis", "boxes", frames=5, seed=8)
    result = probe(checkpoint, tmp_path / "davis", tmp_path / "out", "--sources", "encoder")
    assert "already" not in result.stderr
    assert (tmp_path / "out" / "vos.csv").read_text() != before


def test_results_of_an_earlier_version_are_measured_anew(checkpoint: Path, davis: Path, tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text('{"format": 1, "probe": "vos"}\n')
    result = probe(checkpoint, davis, tmp_path, "--sources", "encoder", "--sequences", "boxes")
    assert result.exit_code == 0, result.output
    assert "1 lines of" in result.stderr and "another version" in result.stderr


def test_report_rebuilds_what_was_lost(finished: tuple[Path, Result], tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(finished[0], out)
    for name in ("vos.csv", "index.html", "report.md"):
        (out / name).unlink()
    assert invoke("report", "--out", out).exit_code == 0
    for name in ("vos.csv", "index.html", "report.md"):
        assert (out / name).read_bytes() == (finished[0] / name).read_bytes()


def test_all_runs_what_has_data(checkpoint: Path, davis: Path, tmp_path: Path) -> None:
    given = ("--model", checkpoint, "--out", tmp_path, "--height", 64, "--iterations", 5, "--sources", "encoder")
    result = invoke("all", "--davis", davis, "--sequences", "boxes", *given)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "vos.csv").is_file()
    nothing = invoke("all", *given)
    assert nothing.exit_code == 1
    assert "no probe has data: give --davis DIR" in nothing.output


def test_visualize(checkpoint: Path, davis: Path, tmp_path: Path) -> None:
    folder = davis / "JPEGImages" / "480p" / "boxes"
    result = invoke("visualize", "--model", checkpoint, folder, "--out", tmp_path, "--height", 64, "--joint")
    assert result.exit_code == 0, result.output
    assert len(list(tmp_path.glob("*_features.png"))) == 6


def _one_clear_line(result: Result, words: str) -> None:
    assert result.exit_code != 0
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error:")]
    assert len(errors) == 1, result.stderr
    assert re.search(words, errors[0]), errors[0]
    assert "Traceback" not in result.output


def test_what_users_get_wrong(checkpoint: Path, davis: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _one_clear_line(probe(tmp_path / "none.safetensors", davis, out), "no model file .*none.safetensors")
    _one_clear_line(probe(checkpoint, tmp_path, out), "not a DAVIS directory")
    _one_clear_line(probe(checkpoint, davis, out, "--sequences", "nope"), "'nope'")
    _one_clear_line(probe(checkpoint, davis, out, "--sources", "encodr"), "did you mean encoder")
    _one_clear_line(probe(checkpoint, davis, out, "--height", 7), "height 7 is too small")
    _one_clear_line(probe(checkpoint, davis, out, "--device", "tpu"), "no device is called 'tpu'")
    _one_clear_line(probe(checkpoint, davis, out, "--list", tmp_path / "no.txt"), "no.txt")
    _one_clear_line(invoke("report", "--out", tmp_path), "no results in")
    _one_clear_line(
        invoke("visualize", "--model", checkpoint, tmp_path / "x.jpg", "--out", out), "no picture, video or directory"
    )
    _one_clear_line(invoke("voss"), "did you mean vos")
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"not a checkpoint at all")
    _one_clear_line(probe(garbage, davis, out), "garbage.safetensors")


def test_a_bad_frame_keeps_what_was_measured_before(checkpoint: Path, tmp_path: Path) -> None:
    root = tmp_path / "davis"
    for name in ("a", "b"):
        write_sequence(root, name, frames=4)
    frame = root / "JPEGImages" / "480p" / "b" / "00002.jpg"
    whole = frame.read_bytes()
    frame.write_bytes(whole[:700])
    _one_clear_line(
        probe(checkpoint, root, tmp_path / "out", "--sources", "encoder"), r"cannot decode the frame .*b/00002\.jpg"
    )
    frame.write_bytes(whole)
    result = probe(checkpoint, root, tmp_path / "out", "--sources", "encoder")
    assert result.exit_code == 0
    assert "1 of 2 sequences are already measured" in result.stderr


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "probes", "--help"], capture_output=True, text=True, check=True)
    for command in ("vos", "all", "report", "visualize"):
        assert command in done.stdout
