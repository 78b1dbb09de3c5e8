"""bench/gpu.py: the parts that there are, their options, the files and the table, and two parts for real on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import click
import pytest
import torch

from bench import flow as bench_flow
from bench.gpu import install
from bench.gpu_data import link_clips
from bench.gpu_learning import settings
from bench.gpu_parts import Place, all_parts, chosen_parts
from bench.gpu_run import Outcome, Row
from bench.gpu_table import table, write_outcomes
from bench.gpu_tests import OnlyCuda
from pipeline.video.datasets import Video
from trainer.config import load_config

ROOT = Path(__file__).resolve().parents[2]


def place(tmp_path: Path, *, small: bool) -> Place:
    (tmp_path / "data" / "shards").mkdir(parents=True)
    (tmp_path / "data" / "clips").mkdir()
    return Place("cuda", small, tmp_path, tmp_path / "out", videos=tmp_path, davis=tmp_path, workers=4)


@pytest.mark.parametrize("small", [True, False])
def test_every_part_is_a_script_that_knows_its_options(tmp_path: Path, small: bool) -> None:
    """The large sizes run nowhere but on a GPU: at least their command lines are read here."""
    parts = all_parts(place(tmp_path, small=small))
    for part in parts:
        script, *arguments = part.command[1:]
        arguments = [word.replace("{seconds}", "60") for word in arguments]
        assert Path(script).is_file(), part
        if Path(script).stem == "flow":
            assert bench_flow.command_line().parse_args(arguments).device == "cuda"
            continue
        command: click.Command = import_module(f"bench.{Path(script).stem}").main
        read = command.make_context(part.name, arguments).params
        assert read["device" if part.name != "data" else "videos"] is not None
        if part.name == "break-even":
            config = load_config(
                None if small else ROOT / read["config_file"], [*read["overrides"], "train.device=cuda"]
            )
            assert config.encoder.init == "random" and config.train.batch_size == (2 if small else 128)
    names = [part.name for part in parts]
    assert len(set(names)) == len(names) and names[-1] == "learning"
    assert sum(part.reserve_s for part in parts) < 9 * 60


def test_the_learning_run_is_the_papers_on_cuda(tmp_path: Path) -> None:
    config = settings(tmp_path, torch.device("cuda"), None, 3.0, 8, False)
    assert (config.encoder.variant, config.views.image_size, config.train.batch_size) == ("dinov2_vits14", 224, 128)
    assert (config.train.precision, config.train.max_minutes, config.encoder.init) == ("bf16", 3.0, "random")


def test_chosen_parts_come_with_what_they_need(tmp_path: Path) -> None:
    parts = all_parts(place(tmp_path, small=False))
    assert [part.name for part in chosen_parts(parts, ("step", "memory"))] == ["data", "memory", "step"]
    assert chosen_parts(parts, ()) == parts
    with pytest.raises(ValueError, match="no part is called 'speed': known are data, precision"):
        chosen_parts(parts, ("speed",))


def test_table_and_files(tmp_path: Path) -> None:
    epoch = Row("break_even", "raft_break_even_epoch", float("inf"), "epochs", "of one pair per video", "GPU")
    other = Row("flow", "raft 224 fp32", 12.25, "pairs/s", "", "GPU")
    outcomes = [
        Outcome("flow", "failed", "out of memory", 3.0, 60.0, (other,)),
        Outcome("break-even", "ok", "", 5.0, 70.0, (epoch,)),
    ]
    text = table(outcomes, {"commit": "abc"})
    assert "flow  3 s of 60  FAILED: out of memory\n" in text and "12.25 pairs/s" in text
    assert text.endswith(
        "raft_break_even_epoch  inf epochs  of one pair per video\n\n1 of 2 parts ended well; flow failed\n"
    )
    write_outcomes(tmp_path, outcomes, {"commit": "abc"})
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["parts"][1]["rows"][0]["value"] is None and summary["parts"][0]["reason"] == "out of memory"
    assert (tmp_path / "table.txt").read_text() == text
    assert (tmp_path / "rows.csv").read_text().splitlines()[1:3] == [
        "flow,gpu,seconds,3.0,s,failed: out of memory,",
        "flow,flow,raft 224 fp32,12.25,pairs/s,,GPU",
    ]


def test_clips_of_one_name_are_all_there(tmp_path: Path) -> None:
    videos = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "clip.mp4").write_text(folder)
        videos.append(Video(folder, tmp_path / folder / "clip.mp4", "file"))
    assert link_clips(videos, tmp_path / "clips", rounds=3) == 6
    assert sorted(link.read_text() for link in (tmp_path / "clips").iterdir()) == ["a"] * 3 + ["b"] * 3


def test_wheels_are_installed_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(click.ClickException, match=r"holds no \.whl file"):
        install(tmp_path, tmp_path / "site")
    with zipfile.ZipFile(tmp_path / "tiny_wheel-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_wheel.py", "ANSWER = 42\n")
        wheel.writestr("tiny_wheel-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-wheel\nVersion: 1.0\n")
        wheel.writestr(
            "tiny_wheel-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tiny_wheel-1.0.dist-info/RECORD", "")
    install(tmp_path, tmp_path / "site")
    assert import_module("tiny_wheel").ANSWER == 42
    (tmp_path / "broken-1.0-py3-none-any.whl").write_bytes(b"no archive")
    with pytest.raises(click.ClickException, match="wheels: "):
        install(tmp_path, tmp_path / "site")


def test_only_tests_that_need_cuda_are_run(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "cuda = pytest.mark.skipif(False, reason='needs a CUDA device: for speed')\n"
        "def test_plain(): raise AssertionError\n"
        "@pytest.mark.skipif(False, reason='needs a moon')\n"
        "def test_other(): raise AssertionError\n"
        "@cuda\ndef test_one(): pass\n"
        "@cuda\ndef test_two(): raise AssertionError\n"
        "@pytest.mark.skipif(True, reason='needs a CUDA device')\ndef test_three(): pass\n"
    )
    plugin = OnlyCuda()
    where = ["--rootdir", str(tmp_path), "-c", os.devnull, "-p", "no:cacheprovider", "-q"]
    assert pytest.main([*where, str(tmp_path)], plugins=[plugin]) == pytest.ExitCode.TESTS_FAILED
    assert plugin.counts == {"passed": 1, "failed": 1, "skipped": 1}


def test_two_parts_on_a_cpu(tmp_path: Path) -> None:
    """Data from nothing; flow that really runs out of memory (of address space) is halved and stays the same."""
    command = [
        sys.executable,
        str(ROOT / "bench" / "gpu.py"),
        "--out",
        str(tmp_path / "out"),
        "--device",
        "cpu",
        "--small",
    ]
    ended = subprocess.run(
        [*command, "--part", "data", "--part", "memory"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    log = (tmp_path / "out" / "log.txt").read_text()
    assert ended.returncode == 0, ended.stdout + ended.stderr + log
    assert ended.stdout.endswith("2 of 2 parts ended well\n")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    found = {row["figure"]: row["value"] for part in summary["parts"] for row in part["rows"]}
    assert found["samples_to_train_on"] == 4 and found["clips_for_the_engine"] == 2
    assert found["raft-small_halvings"] >= 1 and found["raft-small_halved_difference"] < 1e-3
