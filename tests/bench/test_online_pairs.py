"""Training with flow inside the loop: the very pairs that extraction stores, replacements, and a run that probes can take."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from bench.online_pairs import OnlineBatch, OnlinePairs
from bench.online_trainer import main
from common.command import PlainError
from pipeline.extract.encode import encode_image
from pipeline.flow.dis import DisFlow
from pipeline.video.datasets import Video, list_videos
from pipeline.window import Window, WindowFlow
from shards.reader import ShardSet, decode_image
from tests.pipeline.extract.small_extraction import make_videos, request, run
from trainer import FlowFeat
from trainer.order import SampleOrder
from trainer.sweep.run_state import read_state

PASSES = 2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(videos, their shard set)."""
    root = tmp_path_factory.mktemp("online")
    videos = make_videos(root / "videos", 3)
    run(request(videos, root / "set", passes=PASSES))
    return videos, root / "set"


@pytest.fixture
def few(made: tuple[Path, Path]) -> Iterator[OnlinePairs]:
    videos, shards = made
    with pairs_of(list_videos("folder", videos), shards) as pairs:
        yield pairs


def pairs_of(videos: Sequence[Video], shards: Path, workers: int = 2, batch_size: int = 2) -> OnlinePairs:
    settings = ShardSet(shards).manifest.settings
    order = SampleOrder(np.ones((len(videos), len(settings.offsets)), bool), seed=3)
    cpu = torch.device("cpu")
    return OnlinePairs(videos, settings, DisFlow(), order, batch_size=batch_size, device=cpu, workers=workers)


def batches(pairs: OnlinePairs, count: int) -> list[OnlineBatch]:
    return list(islice(pairs.batches(), count))


def test_epoch_n_sees_the_pairs_that_extraction_stores_as_pass_n(few: OnlinePairs, made: tuple[Path, Path]) -> None:
    shards = ShardSet(made[1])
    rows = {
        (video, int(taken)): row for row, (video, taken) in enumerate(zip(shards.video, shards.pass_index, strict=True))
    }
    seen = batches(few, len(few.videos) * PASSES // 2)
    for batch in seen:
        visits = few.order.visits(batch.positions)
        for place, position in enumerate(batch.positions):
            video = few.videos[visits.sample[place]].id
            stored = shards.read(rows[video, int(position) // len(few.videos)], int(visits.neighbour[place]))
            assert batch.pixels.flow_b2hw is not None and batch.pixels.quantum_px is not None
            assert np.array_equal(batch.pixels.flow_b2hw[place].numpy(), stored.flow_chw)
            assert float(batch.pixels.quantum_px[place]) == stored.quantum_px
            kept = encode_image(batch.pixels.images_bhwc[place].numpy(), shards.manifest.settings.jpeg_quality)
            assert np.array_equal(decode_image(kept, 64), stored.image_hwc)
    assert few.replaced == 0 and few.wait_s > 0 and few.flow_s > 0


def test_batches_do_not_depend_on_the_decoding_processes(few: OnlinePairs, made: tuple[Path, Path]) -> None:
    with pairs_of(few.videos, made[1], workers=0) as alone:
        for one, other in zip(batches(alone, 2), batches(few, 2), strict=True):
            assert torch.equal(one.pixels.images_bhwc, other.pixels.images_bhwc)


def test_a_video_that_yields_nothing_is_replaced(few: OnlinePairs, made: tuple[Path, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with pairs_of([*few.videos, replace(few.videos[0], id="broken", path=broken)], made[1]) as some:
        for batch in batches(some, 4):  # two epochs of four
            assert batch.pixels.quantum_px is not None and bool((batch.pixels.quantum_px > 0).all())
    assert some.replaced >= 2
    with pairs_of([replace(few.videos[0], path=broken)], made[1]) as none, pytest.raises(PlainError, match="in a row"):
        batches(none, 1)


def test_flow_that_extraction_would_not_train_on_is_not_trained_on(
    few: OnlinePairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first window has still flow, the second NaN, the third leaves the format's range; the fourth is good."""
    made: list[Window] = []
    bad = {1: 0.0, 2: np.nan, 3: 1e5}

    def estimate(windows: Sequence[Window]) -> list[WindowFlow]:
        flows = []
        for window in windows:
            made.append(window)
            noise = np.random.default_rng(len(made)).normal(0, 1, (1, 2, 32, 32)).astype(np.float32)
            flows.append(WindowFlow(noise * np.float32(bad.get(len(made), 1.0))))
        return flows

    monkeypatch.setattr(few.estimator, "estimate", estimate)
    batches(few, 1)
    assert few.replaced == 3 and len(made) == 5


CONFIG = """
[encoder]
variant = "tiny_dino8"
init = "random"
[views]
image_size = 32
[train]
batch_size = 2
steps = 3
threads = 1
device = "cpu"
[log]
every = 2
"""


def test_a_run_that_probes_and_sweeps_take_for_any_other(made: tuple[Path, Path], tmp_path: Path) -> None:
    videos, shards = made
    config = tmp_path / "seed-0.toml"
    config.write_text(CONFIG + f'[data]\nshards = "{shards}"\noffsets = [1]\n')
    given = ["--config", str(config), "--videos", str(videos)]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.output
    state = read_state(tmp_path / "seed-0")
    assert (state.step, state.stopped) == (3, "steps") and state.loss is not None
    FlowFeat.from_pretrained(tmp_path / "seed-0" / "flowfeat.safetensors")
    lines = [json.loads(line) for line in (tmp_path / "seed-0" / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "step", "step", "stop"] and lines[0]["flow"] == "dis"
    again = CliRunner().invoke(main, given)
    assert again.exit_code == 1 and "holds a finished run" in again.output
    strangers = CliRunner().invoke(main, [*given, "--out", str(tmp_path / "other"), "data.offsets=[7]"])
    assert strangers.exit_code == 1 and "data.offsets = [7]" in strangers.output
