"""A refused command leaves nothing behind: the corrected one finds the directory as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import main
from pipeline.extract.cli import extract_command
from shards.reader import ShardSet
from shards.verify import verify
from tests.pipeline.extract.in_process import run_here
from tests.pipeline.extract.small_extraction import digests, make_videos, request

FLAGS: dict[str, list[list[str]]] = {
    "--dataset": [["kinetix"]],
    "--root": [["gone"], [""]],
    "--list": [["gone.txt"], [""]],
    "--out": [[""], [__file__], [__file__ + "/set"], ["/proc/nowhere/set"]],
    "--flow": [["raft-smal"], ["raft"]],  # raft: fails here for want of weights, not of a name
    "--weights": [["w.pth"]],
    "--passes": [["32769"], ["0"], ["many"]],
    "--seed": [["x"]],
    "--offsets": [["0,1"], ["1,1"], ["a"], [""]],
    "--image-size": [["15"], ["5000"], ["24"]],  # 24 is smaller than the flow size
    "--flow-size": [["8"], ["500"], ["65"]],  # 65 is larger than the image
    "--jpeg-quality": [["0"], ["101"]],
    "--chunk-videos": [["0"], ["10001"]],
    "--flow-option": [["preset=best"], ["presets=fast"], ["fast"]],
    "--device": [["cuda"], ["tpu"]],
    "--precision": [["bf16"], ["fp8"]],
    "--workers": [["0"], ["-3"]],
    "--batch": [["0"], ["1000000000"]],
    "--scratch": [[""]],
    "--scratch-gib": [["0"], ["-1"], ["much"], ["inf"], ["nan"]],
    "--deadline": [["0"], ["-1"], ["nan"], ["inf"]],
    "--max-reject-share": [["2"], ["nan"]],
    "--retry-rejected": [["because"]],
    "--part": [["0/2"], ["3"], ["1/2", "--drop-passes"]],
    "--runner": [["slurm"]],
    "--actors": [["2"]],  # without Ray
    "--cuts": [["guess"]],
    "--cut-threshold": [
        ["3"],
        ["x"],
        ["-1", "--cuts", "content"],
        ["nan", "--cuts", "content"],
    ],  # 3: without a detector
    "--max-cuts-per-minute": [["12"], ["-1", "--cuts", "adaptive"], ["inf", "--cuts", "adaptive"]],
    "--noise-floor": [["-1"], ["nan"], ["inf"]],
}
NOT_REFUSABLE = {
    "--keep-neighbours",
    "--keep-confidence",
    "--keep-reverse",
    "--json",
    "--drop-passes",
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"), 2)


def invoke(videos: Path, out: Path, *more: str, command: str = "extract") -> Result:
    base = [command, "--dataset", "folder", "--root", str(videos), "--out", str(out), "--workers", "1", "--passes", "1"]
    return CliRunner().invoke(main, [*base, "--image-size", "64", "--flow-size", "32", *more])


@pytest.mark.parametrize(
    ("flag", "values"), [pytest.param(f, v, id=f"{f}={v[0]}") for f, many in FLAGS.items() for v in many]
)
def test_a_refused_flag_leaves_no_directory(
    videos: Path, tmp_path: Path, flag: str, values: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWFEAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    out = tmp_path / "made" / "set"
    refused = invoke(videos, out, flag, *values)
    assert refused.exit_code in (1, 2) and refused.output.splitlines()[-1].startswith("Error: "), refused.output
    assert isinstance(refused.exception, SystemExit), "one line, no traceback"
    assert not out.parent.exists()


def test_every_flag_that_can_be_refused_is_in_the_list() -> None:
    flags = {option for parameter in extract_command.params for option in parameter.opts}
    assert flags == set(FLAGS) | NOT_REFUSABLE


def test_a_flow_size_that_the_network_cannot_take_is_refused(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    refused = invoke(videos, out, "--flow", "raft-small", "--weights", "random:0")
    assert (
        refused.exit_code == 1 and "flow_size is 32; raft-small needs squares of at least 121 pixels" in refused.output
    )
    assert not out.exists()


def test_messages_name_the_value_and_the_way_out(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    assert "flow_size is 65; give 16..64 pixels" in invoke(videos, out, "--flow-size", "65").output
    assert "image_size is 15; give 16..4096 pixels" in invoke(videos, out, "--image-size", "15").output
    assert "chunk_videos is 0; give 1..10000" in invoke(videos, out, "--chunk-videos", "0").output


def test_plan_refuses_what_extract_refuses_and_writes_nothing(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    assert invoke(videos, out, "--flow-size", "65", command="plan").exit_code == 1
    planned = invoke(videos, out, "--sample", "0", command="plan")  # a measured forecast is kept: test_plan_command.py
    assert planned.exit_code == 0 and "2 videos in 1 chunk, 1 pass: 1 of 1 shard to make" in planned.output
    assert not out.exists()
    for flag in ("--seconds", "--gpu-pairs-per-s", "--train-samples-per-s"):
        refused = invoke(videos, out, flag, "nan", command="plan")
        assert refused.exit_code == 1 and "is nan; give a number" in refused.output, refused.output


def test_a_mistake_that_only_the_videos_show_does_not_bind_the_corrected_command(tmp_path: Path) -> None:
    """Exact flow of videos without scenes cannot be had; that is found out after the plan was written."""
    videos, out = make_videos(tmp_path / "videos", 2), tmp_path / "set"
    for scene in videos.glob("*.scene.json"):
        scene.unlink()
    failed = invoke(videos, out, "--flow", "truth", "--seed", "4")
    assert failed.exit_code == 1 and "exact flow exists only for synthetic videos" in failed.output
    assert invoke(videos, out).exit_code == 0
    assert verify(out, deep=True) == [] and ShardSet(out).manifest.settings.estimator["name"] == "dis"
    run_here(request(videos, tmp_path / "straight", passes=1, content={"chunk_videos": 256}))
    assert digests(out) == digests(tmp_path / "straight")


@pytest.mark.parametrize("damage", ["missing", "cut short"])
@pytest.mark.parametrize("guilty", [0, 2])
def test_a_video_without_its_scene_is_rejected_and_all_others_are_kept(
    tmp_path: Path, guilty: int, damage: str
) -> None:
    videos, out = make_videos(tmp_path / "videos", 3), tmp_path / "set"
    scene = videos / f"synth-{guilty:05d}.scene.json"
    record = scene.read_text()
    if damage == "missing":
        scene.unlink()
    else:
        scene.write_text(record[:50])
    done = invoke(videos, out, "--flow", "truth")
    said = "its scene record is missing" if damage == "missing" else "the scene record cannot be read"
    assert done.exit_code == 0 and f"rejected synth-{guilty:05d}: flow_failed: " in done.output, done.output
    assert said in done.output and "list of 3 videos = 2 ok + flow_failed 1" in done.output
    scene.write_text(record)
    again = invoke(videos, out, "--flow", "truth", "--retry-rejected", "flow_failed")
    assert again.exit_code == 0 and "list of 3 videos = 3 ok" in again.output and verify(out, deep=True) == []
