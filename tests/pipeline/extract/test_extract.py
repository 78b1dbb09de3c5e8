"""The extraction engine from videos to a finished set."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from common.command import PlainError
from pipeline.extract import stages
from pipeline.extract.encode import encode_pair
from pipeline.extract.local import LocalRunner
from pipeline.extract.plan import PlanError, make_plan
from pipeline.extract.runner import ChunkJob
from pipeline.extract.stages import extract_chunk
from pipeline.flow.dis import DisFlow
from pipeline.flow.truth import load_scene
from pipeline.video.datasets import list_videos
from pipeline.video.decoder import Decoder
from pipeline.window import Window, WindowFlow
from shards import schema
from shards.codec import decode_flow
from shards.reader import ShardSet
from shards.schema import Settings
from shards.verify import verify
from tests.pipeline.extract.in_process import run_here
from tests.pipeline.extract.small_extraction import SMALL, digests, make_videos, request, run


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"), 5)


@pytest.fixture(scope="module")
def whole(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sets") / "whole"
    run(request(videos, out))
    return out


def test_a_set_from_real_video_files(whole: Path) -> None:
    data = ShardSet(whole)
    assert len(data) == 10 and data.manifest.complete and verify(whole, deep=True) == []
    assert set(data.video) == {f"synth-{i:05d}" for i in range(5)}
    sample = data.read(0, data.trainable(0)[0])
    assert sample.image_hwc.shape == (64, 64, 3) and sample.flow_chw.shape == (2, 32, 32)


def test_each_shard_holds_one_anchor_of_each_video_and_passes_differ(whole: Path) -> None:
    data = ShardSet(whole)
    per_shard: dict[tuple[str, int], list[str]] = {}
    anchors: dict[str, set[int]] = {}
    for key, video, frame in zip(data.keys, data.video, data.frame, strict=True):
        chunk, pass_index, _ = key.split("-")
        per_shard.setdefault((chunk, int(pass_index)), []).append(video)
        anchors.setdefault(video, set()).add(int(frame))
    assert all(len(set(names)) == len(names) for names in per_shard.values()) and len(per_shard) == 6
    assert all(len(frames) == 2 for frames in anchors.values())


def test_a_rerun_adds_nothing(videos: Path, whole: Path) -> None:
    before = digests(whole)
    run(request(videos, whole))
    assert digests(whole) == before


def test_workers_and_batches_do_not_shape_the_set(videos: Path, whole: Path, tmp_path: Path) -> None:
    run(request(videos, tmp_path / "other", batch=1), workers=2)
    assert digests(tmp_path / "other") == digests(whole)


def test_more_passes_extend_to_the_bytes_of_one_run(videos: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "grown"
    run(request(videos, out, passes=1))
    shards = {name: digest for name, digest in digests(out).items() if name.endswith(".tar")}
    run(request(videos, out, passes=2))
    grown = digests(out)
    assert grown == digests(whole) and shards.items() <= grown.items()


def test_fewer_passes_leave_the_set_alone(videos: Path, whole: Path) -> None:
    before = digests(whole)
    assert run(request(videos, whole, passes=1)).passes == 2
    assert digests(whole) == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"content": {"seed": 1}}, "seed: 0 in the set, 1 asked for"),
        ({"content": {"jpeg_quality": 80}}, "jpeg_quality: 90 in the set, 80 asked for"),
        ({"content": {"offsets": (-1, 1)}}, "offsets"),
        ({"flow": "truth"}, "estimator.name: 'dis' in the set, 'truth' asked for"),
    ],
)
def test_other_settings_are_refused_by_name(videos: Path, whole: Path, change: dict[str, Any], named: str) -> None:
    before = digests(whole)
    with pytest.raises(PlanError, match="made with other settings") as caught:
        run(request(videos, whole, **change))
    assert named in str(caught.value)
    assert digests(whole) == before


def test_new_videos_become_new_chunks(videos: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(videos.glob("*.mp4"))[1:4]:
        shutil.copy(path, few)
    out = tmp_path / "set"
    run(request(few, out))
    before = {n: d for n, d in digests(out).items() if n.endswith(".tar")}
    shutil.copy(videos / "synth-00000.mp4", few)  # sorts before all others
    run(request(few, out))
    after = digests(out)
    assert before.items() <= after.items()
    rows = pq.read_table(out / schema.VIDEOS).to_pylist()
    assert [(r["video"], r["chunk"]) for r in rows] == [
        ("synth-00001", 0),
        ("synth-00002", 0),
        ("synth-00003", 1),
        ("synth-00000", 2),
    ]


def test_vanished_videos_matter_only_while_their_chunk_is_unfinished(videos: Path, whole: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    shutil.copytree(videos, few)
    (few / "synth-00004.mp4").unlink()
    assert run(request(few, whole)).counts["videos"] == 5
    with pytest.raises(PlanError, match="1 video of the set is not under"):
        make_plan(whole, list_videos("folder", few), few, ShardSet(whole).manifest.settings, 3)


def test_bad_videos_are_rejected_with_a_reason_and_the_rest_goes_on(videos: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(videos, mixed)
    (mixed / "a_empty.mp4").touch()
    (mixed / "b_text.mp4").write_text("<html><body>404 not found</body></html>")
    whole_video = (mixed / "synth-00000.mp4").read_bytes()
    (mixed / "c_cut.mp4").write_bytes(whole_video[: len(whole_video) // 2])
    make_videos(tmp_path / "short", 1)
    out = tmp_path / "set"
    manifest = run(request(mixed, out), workers=2)
    assert manifest.counts["ok"] == 5 and sum(manifest.counts["rejected"].values()) == 3
    rows = {r["video"]: r for r in pq.read_table(out / schema.VIDEOS).to_pylist()}
    assert rows["a_empty"]["reason"] == "empty_file" and rows["b_text"]["reason"] == "not_a_video"
    assert rows["c_cut"]["status"] == schema.REJECTED and rows["c_cut"]["anchors"] == 0
    assert str(tmp_path) not in rows["c_cut"]["detail"], "a set must not depend on where the videos lie"
    assert verify(out, deep=True) == []


def test_truth_flow_survives_the_shards_to_half_a_quantum(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "truth"
    run(request(videos, out, dataset="synthetic", flow="truth", content={"image_size": 128, "flow_size": 64}))
    data = ShardSet(out)
    checked = 0
    for i in range(len(data)):
        scene = load_scene(videos / f"{data.video[i]}.mp4")
        for k in data.trainable(i):
            neighbour = data.json(i)["neighbours"][schema.offset_label(data.offsets[k])]["frame"]
            truth = scene.flow_on_square(int(data.frame[i]), neighbour, 128, 64)
            flow = decode_flow(data.flow_bytes(i, k))
            assert np.abs(flow.values_chw * flow.quantum_px - truth).max() <= flow.quantum_px / 2
            checked += 1
    assert checked == 40


def test_dis_is_close_to_the_truth_on_synthetic_video(tmp_path: Path) -> None:
    """Mean end-point error of DIS at 224 px below half a pixel: the generator's motion is what its pictures show."""
    videos = tmp_path / "videos"
    from pipeline.synth import write_videos

    write_videos(videos, 3, 5, frames=12)
    sizes = {"image_size": 448, "flow_size": 224}
    run(request(videos, tmp_path / "dis", passes=1, content=sizes))
    run(request(videos, tmp_path / "truth", passes=1, flow="truth", content=sizes))
    dis, truth = ShardSet(tmp_path / "dis"), ShardSet(tmp_path / "truth")
    errors = []
    for i in range(len(dis)):
        for k in range(4):
            a, b = decode_flow(dis.flow_bytes(i, k)), decode_flow(truth.flow_bytes(i, k))
            errors.append(np.hypot(*(a.values_chw * a.quantum_px - b.values_chw * b.quantum_px)).mean())
    assert float(np.mean(errors)) < 0.5


class Broken:
    """An estimator whose flow is NaN for one neighbour and absurd for another."""

    name = "broken"

    def estimate(self, windows: list[Window]) -> list[WindowFlow]:
        flows = []
        for window in windows:
            side = window.anchor_hwc.shape[0]
            flow = np.random.default_rng(window.anchor_index).normal(size=(4, 2, side, side)).astype(np.float32)
            flow[0, 1, 3, 3] = np.nan
            flow[1, 0] += 5000
            flow[2, 1] *= 1e-4
            flows.append(WindowFlow(flow, np.full((4, side, side), 0.25, np.float32)))
        return flows


def job(videos: Path, out: Path, settings: Settings) -> ChunkJob:
    plan = make_plan(out, list_videos("folder", videos), videos, settings, 1)
    return ChunkJob(out, settings, 0, (0,), tuple(plan.chunk(0)), batch=4, deadline_s=60.0)


def test_flow_that_cannot_be_trained_on_is_counted_and_never_stored(videos: Path, tmp_path: Path) -> None:
    from shards.writer import finalize

    settings = Settings(dataset="folder", estimator={"name": "broken"}, keep_confidence=True, **SMALL)
    work = job(videos, tmp_path, settings)
    with Decoder() as decoder:
        extract_chunk(work, decoder, Broken(), lambda report: None)  # type: ignore[arg-type]
    finalize(tmp_path, settings, 1, 1, [v.row() for v in work.videos])
    data = ShardSet(tmp_path)
    assert data.manifest.counts["pairs"] == {"stored": 2, "still": 2, "non_finite": 2, "out_of_range": 2}
    assert data.trainable(0) == (3,)
    assert [data.status(0, k) for k in range(4)] == ["non_finite", "out_of_range", "still", "stored"]
    index = pq.read_table(tmp_path / schema.INDEX).to_pylist()
    assert [m["name"] for m in index[0]["optional_members"]] == ["p1.conf.jpg", "p2.conf.jpg"]
    assert index[0]["confidence"][3] == 0.25


def test_neighbour_frames_are_kept_on_request(videos: Path, tmp_path: Path) -> None:
    run(request(videos, tmp_path / "set", passes=1, content={"keep_neighbours": True}))
    index = pq.read_table(tmp_path / "set" / schema.INDEX).to_pylist()
    assert [m["name"] for m in index[0]["optional_members"]] == ["m1.jpg", "m2.jpg", "p1.jpg", "p2.jpg"]
    assert verify(tmp_path / "set", deep=True) == []


def test_encode_pair_statistics() -> None:
    flow = np.random.default_rng(0).normal([[[2.0]], [[-1.0]]], 0.5, (2, 32, 32)).astype(np.float32)
    data, row = encode_pair(flow, None, 0.02)
    assert data is not None and row.status == schema.STORED and row.confidence is None
    assert row.mean_dx_px == pytest.approx(flow[0].mean(), abs=1e-6)
    assert row.std_dy_px == pytest.approx(flow[1].std(), abs=1e-6)
    assert row.max_px == pytest.approx(np.hypot(*flow).max(), abs=1e-5)
    assert row.quantum_exponent is not None and 2.0**row.quantum_exponent == decode_flow(data).quantum_px


def test_a_full_disk_loses_only_the_chunk_at_hand(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(dataset="folder", estimator={"name": "dis"}, **SMALL)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stages.ChunkWriter, "add", full)
    with Decoder() as decoder, pytest.raises(OSError, match="No space left"):
        extract_chunk(job(videos, tmp_path, settings), decoder, DisFlow(), lambda report: None)
    assert not list(tmp_path.rglob("*.tar")) and not list(tmp_path.rglob("*.parquet"))


def test_only_one_extraction_writes_a_set(videos: Path, tmp_path: Path) -> None:
    wanted = request(videos, tmp_path / "set")

    def second(event: object) -> None:
        if not refused:
            refused.append(event)
            said = r"an extraction is already at work in .*set \(a run, process \d+ on .*\)"
            with pytest.raises(PlainError, match=said):
                run_here(wanted)

    refused: list[object] = []
    run_here(wanted, on_event=second)
    assert refused


@pytest.mark.parametrize(
    "change", [{"passes": 0}, {"passes": 32769}, {"batch": 0}, {"deadline_s": 0.0}, {"deadline_s": float("nan")}]
)
def test_senseless_requests(videos: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        request(videos, tmp_path, **change)
    with pytest.raises(ValueError, match="must be"):
        LocalRunner(0, request(videos, tmp_path).estimator)
