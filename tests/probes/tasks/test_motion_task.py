"""The motion probe: features that hold the moving object explain its flow, features that hold nothing explain none of it."""

from __future__ import annotations

import csv
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

from probes.cli import commands
from probes.data.shard_pairs import open_shards, pairs_by_video, set_digest, spread, views_of
from probes.sources.features import Encoding, Features, Source
from probes.task import Context, Row
from probes.tasks.motion import Motion, readable
from probes.tasks.table import TASKS
from tests.shards.bucket_store import bucket_at
from tests.shards.object_store import storing
from tests.trainer.training_set import flip_image_byte, write_training_set
from trainer import training_set

CPU = torch.device("cpu")


class Pixels:
    """Gives pictures as they are."""

    size_multiple = 8

    def encode(self, images_bhwc: Tensor) -> Encoding:
        images = images_bhwc.movedim(-1, 1).float() / 255
        return Encoding(images, torch.nn.functional.avg_pool2d(images, 8))


@dataclass
class Album:
    """Keeps what is drawn."""

    saved: dict[tuple[str, str], Image.Image] = field(default_factory=dict)

    def save(self, group: str, caption: str, image: Image.Image, source: Source | None = None) -> None:
        self.saved[caption, "" if source is None else source.name] = image

    crop = save

    def clip(self, group: str, caption: str, images: object, source: Source | None = None) -> None:
        raise AssertionError("this probe makes no clips")


def _bright(encoding: Encoding) -> Features:
    """The object is brighter than 120 of 255, the background darker."""
    return Features(encoding.low_bdgf, (encoding.images_bchw.mean(dim=1, keepdim=True) > 0.45).float())


ENCODER = Pixels()
OBJECT = Source("object", ENCODER, _bright)
LOUD = Source("loud", ENCODER, lambda e: Features(e.low_bdgf, 1000 * readable(_bright(e), e.size_hw[0])))
TOKENS = Source("tokens", ENCODER, lambda e: Features(e.low_bdgf))
NOTHING = Source("nothing", ENCODER, lambda e: Features(torch.ones_like(e.low_bdgf)))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_set(tmp_path_factory.mktemp("motion") / "set", samples=6)


def _rows(
    task: Motion, sources: list[Source], seed: int = 0, album: Album | None = None
) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {}
    for unit in task.units():
        context = Context(CPU, seed, album or Album(), lambda steps: None)
        for name, rows in {**unit.evaluate(sources, context), "chance": task.chance(unit, seed)}.items():
            found.setdefault(name, []).extend(dict(row.values) for row in rows)
    return found


def _mean(values: list[dict[str, float]], metric: str) -> float:
    return float(np.mean([one[metric] for one in values if metric in one]))


def test_features_that_hold_the_object_explain_its_flow(shards: Path) -> None:
    album = Album()
    rows = _rows(Motion(root=shards, side_px=64), [OBJECT, LOUD, TOKENS, NOTHING], album=album)
    r2 = {name: _mean(values, "R2") for name, values in rows.items()}
    assert r2["object"] > 0.87 > r2["tokens"] > 0.5
    assert abs(r2["chance"]) < 1e-6 and r2["nothing"] < 0.05
    assert r2["loud"] == pytest.approx(r2["object"], abs=1e-4), "the scale of features plays no part"
    epe = {name: _mean(values, "EPE") for name, values in rows.items()}
    assert epe["object"] < epe["tokens"] < epe["chance"] == pytest.approx(_mean(rows["object"], "EPE_mean"))
    assert _mean(rows["object"], "edges") > 0.68 > _mean(rows["tokens"], "edges") > 2 * _mean(rows["chance"], "edges")
    assert _mean(rows["nothing"], "edges") == 0
    same = [_mean(values, "R2_affine") for values in rows.values()]
    assert same == pytest.approx([same[0]] * len(same)) and 0 < same[0] < 1
    assert set(album.saved) == {("frame", ""), ("flow", "")} | {
        (caption, name) for caption in ("explained", "features") for name in ("object", "loud", "tokens", "nothing")
    }
    explained, flow = (np.asarray(album.saved[key], float) for key in (("explained", "object"), ("flow", "")))
    empty = np.asarray(album.saved["explained", "nothing"], float)
    assert np.abs(explained - flow).mean() < np.abs(empty - flow).mean()


def test_a_stronger_ridge_explains_less(shards: Path) -> None:
    weak, strong = (
        _mean(_rows(Motion(root=shards, side_px=64, alpha=a), [OBJECT])["object"], "R2") for a in (0.01, 10.0)
    )
    assert weak > strong + 0.3


def test_crops_follow_the_seed_and_sizes_the_encoder(shards: Path) -> None:
    task = Motion(root=shards, side_px=71, most_videos=2)
    first, again, other = (_rows(task, [TOKENS], seed) for seed in (0, 0, 1))
    assert first == again and first != other and len(first["tokens"]) == 2
    with pytest.raises(ValueError, match="--motion-size 7 is too small: tokens takes multiples of 8"):
        _rows(Motion(root=shards, side_px=7), [TOKENS])


def test_pairs_are_those_that_are_stored_evenly(shards: Path) -> None:
    opened = open_shards(shards)
    pairs = pairs_by_video(opened, 2)
    assert len(pairs) == 6 and all(len(several) == 2 for several in pairs.values())
    assert all(pair.neighbour in opened.trainable(pair.sample) for several in pairs.values() for pair in several)
    assert list(spread(10, 3)) == [0, 4, 9] and list(spread(2, 5)) == [0, 1]
    views = views_of(opened, pairs["v1"][0], 48, 0, CPU)
    assert views.images1_bhwc.shape == (1, 48, 48, 3) and views.images1_bhwc.dtype == torch.uint8
    assert views.u2_b2hw.shape == (1, 2, 48, 48) and views.px_b211.shape == (1, 2, 1, 1)


def test_the_readable_map_is_the_dense_one() -> None:
    low, high = torch.rand(1, 3, 4, 4), torch.rand(1, 2, 16, 16)
    assert readable(Features(low, high), 16) is high
    assert readable(Features(low), 16).shape == (1, 3, 16, 16)


def test_a_model_of_that_very_set_is_pointed_out(shards: Path, caplog: pytest.LogCaptureFixture) -> None:
    digest = set_digest(open_shards(shards))
    seen, unseen = replace(OBJECT, name="seen", trained_on=digest), replace(OBJECT, name="unseen", trained_on="0" * 64)
    unit = Motion(root=shards, side_px=64, most_videos=1).units()[0]
    with caplog.at_level(logging.WARNING):
        rows: dict[str, list[Row]] = unit.evaluate([seen, unseen], Context(CPU, 0, Album(), lambda steps: None))
    assert rows["seen"][0].part == "all pairs, seen in training" and rows["unseen"][0].part == "all pairs"
    assert "seen was trained on the very set" in caplog.text and "unseen was" not in caplog.text


def test_what_is_no_set_or_is_damaged_is_named(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(ValueError, match="expected a shard set"):
        Motion(root=tmp_path / "none").units()
    with pytest.raises(ValueError, match="manifest"):
        Motion(root=tmp_path).units()
    with pytest.raises(ValueError, match="alpha 0 must be above 0"):
        Motion(root=shards, alpha=0)
    damaged = write_training_set(tmp_path / "set", samples=2)
    flip_image_byte(damaged, 0)
    with pytest.raises(ValueError, match="is damaged"):
        _rows(Motion(root=damaged, side_px=64), [TOKENS])


def test_by_command_with_a_network(checkpoint: Path, shards: Path, tmp_path: Path, invoke: Callable[..., str]) -> None:
    invoke(
        "motion",
        "--shards",
        shards,
        "--model",
        checkpoint,
        "--out",
        tmp_path,
        "--motion-size",
        48,
        "--motion-videos",
        2,
    )
    rows = list(csv.DictReader((tmp_path / "motion.csv").open()))
    assert {row["source"] for row in rows} >= {"encoder", "random_decoder", "flowfeat"} and float(rows[0]["EPE"]) > 0
    page = (tmp_path / "index.html").read_text()
    assert "Motion in the features" in page and "explained: encoder + FlowFeat" in page
    assert training_set(checkpoint) is None


def test_a_set_at_an_address_gives_the_figures_of_the_folder(shards: Path, tmp_path: Path) -> None:
    """By S3 and by a web server, which cannot be listed."""
    pytest.importorskip("s3fs", reason="the extra `remote` is not installed")
    local = _rows(Motion(root=shards, side_px=64, most_videos=2), [TOKENS])
    with pytest.MonkeyPatch.context() as environment, bucket_at(tmp_path / "bucket", environment) as store:
        shutil.copytree(shards, store.root / "set")
        assert _rows(Motion(root="s3://bucket/set", side_px=64, most_videos=2), [TOKENS]) == local
        with pytest.raises(ValueError, match=r"no shard set at s3://bucket/none: there is no manifest\.json"):
            Motion(root="s3://bucket/none").units()
    with storing(shards) as store:
        assert _rows(Motion(root=store.url, side_px=64, most_videos=2), [TOKENS]) == local


def test_an_address_by_command_is_not_taken_for_a_folder(
    checkpoint: Path, shards: Path, tmp_path: Path, invoke: Callable[..., str]
) -> None:
    pytest.importorskip("fsspec", reason="the extra `remote` is not installed")
    address = f"file://{shards}/"
    sizes = ("--motion-size", 48, "--motion-videos", 1, "--motion-pairs", 1)
    invoke("motion", "--shards", address, "--model", checkpoint, "--out", tmp_path, *sizes)
    assert f"file://{shards}" in (tmp_path / "index.html").read_text()


@pytest.fixture
def invoke() -> Callable[..., str]:
    def run(*arguments: object) -> str:
        result = CliRunner().invoke(commands(TASKS), [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    return run
