"""Tiles: equal to the plain call where both apply, a blend that is whole, and memory that is what the formula says."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from bench.flow_peak_memory import peak_bytes
from tests.trainer.outside_fixtures import conv_encoder
from trainer import FlowFeat
from trainer.cli import main
from trainer.extract_features import Fit
from trainer.model import EncoderDecoder
from trainer.model_file import export_model
from trainer.tiling import Tiles, call_bytes, choose_tiles, extraction_bytes, parse_bytes, starts, tiled

__all__ = ["conv_encoder"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> FlowFeat:
    return FlowFeat.create("tiny_dino8", init="random").eval()


def picture(h: int, w: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)


@pytest.mark.parametrize("variant", ["tiny_dino8", "tiny_dinov2_14", "tiny_dinov3_16"])
@pytest.mark.parametrize("fit", ["resize", "pad"])
def test_a_tile_that_covers_everything_is_the_plain_call(variant: str, fit: Any) -> None:
    model = FlowFeat.create(variant, init="random")
    step = model.size_multiple
    image = picture(2 * step - 3, 3 * step + 1)
    plain = model.extract(image, fit=fit)
    givens: tuple[dict[str, Any], ...] = (
        {"tile": 4 * step},
        {"tile": 64 * step},
        {"memory": "1GiB"},
        {"tile": 4 * step, "memory": 10**9},
    )
    for given in givens:
        found = model.extract(image, fit=fit, **given)
        assert torch.equal(found.high, plain.high) and torch.equal(found.low, plain.low)


def test_the_tiled_path_itself_equals_the_plain_call_for_one_tile(model: FlowFeat) -> None:
    images = torch.randn(2, 3, 32, 64)
    low, high = tiled(model, images, Tiles(64, 16))
    plain_low, plain_high = model(images)
    assert torch.equal(low, plain_low) and torch.equal(high, plain_high)


def test_where_one_tile_lies_alone_it_is_that_tiles_own_call(model: FlowFeat) -> None:
    images = torch.randn(1, 3, 48, 112)
    low, high = tiled(model, images, Tiles(48, 16))  # begin at 0, 32, 64; overlaps 32..48 and 64..80
    for x, inner in ((0, slice(0, 32)), (32, slice(48, 64)), (64, slice(80, 112))):
        one_low, one_high = model(images[..., x : x + 48])
        here = slice(inner.start - x, inner.stop - x)
        assert torch.equal(high[..., inner], one_high[..., here])
        assert torch.equal(low[..., inner.start // 8 : inner.stop // 8], one_low[..., here.start // 8 : here.stop // 8])
    first, second = model(images[..., :48])[1][..., 32:48], model(images[..., 32:80])[1][..., :16]
    share = (torch.arange(16) + 0.5) / 16
    torch.testing.assert_close(high[..., 32:48], first * (1 - share) + second * share, rtol=0, atol=1e-5)


class Constant(EncoderDecoder):
    """Both maps are one everywhere, so a blend of them shows the sum of its weights."""

    def features_with_grad(self, images_bchw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        b, _, h, w = images_bchw.shape
        return torch.ones(b, self.encoder_dim, h // 8, w // 8), torch.ones(b, self.feature_dim, h, w)


@pytest.mark.parametrize(
    ("h", "w", "side", "overlap"),
    [(96, 160, 48, 16), (112, 80, 48, 0), (64, 144, 80, 64), (16, 272, 32, 16), (80, 80, 48, 32)],
)
def test_weights_add_up_to_one_and_every_pixel_is_covered(h: int, w: int, side: int, overlap: int) -> None:
    with torch.device("meta"):
        model = Constant(FlowFeat.create("tiny_dino8", init="random").spec)
    low, high = tiled(model, torch.zeros(1, 3, h, w), Tiles(side, overlap))
    for blended in (low, high):
        torch.testing.assert_close(blended, torch.ones_like(blended), rtol=0, atol=1e-6)
    for length in (h, w):
        begin = starts(length, Tiles(side, overlap))
        assert begin[0] == 0 and begin[-1] == max(0, length - side) and all(one % 16 == 0 for one in begin)
        assert all(0 < second - first <= side - overlap for first, second in pairwise(begin))


def test_overlapping_tiles_stay_near_the_plain_call(model: FlowFeat) -> None:
    """The encoder sees less around each patch; a blend is nearer than tiles side by side. bench/tiling.py has real sizes."""
    image = torch.from_numpy(picture(192, 256)).permute(2, 0, 1)
    plain = model.extract(image).high
    apart, blended = (model.extract(image, tile=96, overlap=overlap).high for overlap in (0, 48))
    scale = plain.square().mean().sqrt()
    errors = [float((one - plain).square().mean().sqrt() / scale) for one in (apart, blended)]
    assert 0 < errors[1] < errors[0] < 0.5, errors


@pytest.mark.parametrize("variant", ["tiny_dino8", "tiny_dinov2_14", "tiny_dinov3_16", "tiny_mae16", "demo_vit16"])
def test_the_memory_formula_bounds_what_a_call_takes(variant: str) -> None:
    """Counted storage by storage, without the operators' own workspaces; weights are in the count but not in the formula."""
    model = FlowFeat.create(variant, init="random").eval()
    weights = sum(p.numel() * 4 for p in model.parameters())
    b, h, w = shape = (2, 12 * model.size_multiple, 10 * model.size_multiple)
    images = torch.randn(b, 3, h, w)
    counted, stated = peak_bytes(lambda: model(images), CPU), call_bytes(model, shape)
    assert counted - weights <= stated <= 1.5 * counted, (counted, stated)


def test_the_memory_of_a_tiled_call_is_as_stated(model: FlowFeat) -> None:
    weights = sum(p.numel() * 4 for p in model.parameters())
    images = torch.randn(1, 3, 320, 480)
    tiles = Tiles(112, 32)
    counted = peak_bytes(lambda: tiled(model, images, tiles), CPU)
    stated = extraction_bytes(model, (1, 320, 480), tiles)
    counted -= images.numel() * 4  # a tile is a view of it
    assert counted - weights <= stated <= 1.3 * counted, (counted, stated)
    assert counted < 0.6 * peak_bytes(lambda: model(images), CPU)
    assert extraction_bytes(model, (1, 320, 480), None) == call_bytes(model, (1, 320, 480))


def test_memory_chooses_the_largest_tile_that_fits(model: FlowFeat) -> None:
    shape = (1, 320, 480)
    whole = extraction_bytes(model, shape, None)

    def chosen(memory: int | str, **more: Any) -> Tiles | None:
        return choose_tiles(model, shape, **{"tile": None, "overlap": None, "resized": False, **more}, memory=memory)

    assert chosen(whole) is None
    found = chosen(whole // 2)
    assert found is not None and found.side_px % 16 == 0 and found.overlap_px == -(-found.side_px // 64) * 16
    larger = Tiles(found.side_px + 16, found.overlap_px)
    assert extraction_bytes(model, shape, found) <= whole // 2 < extraction_bytes(model, shape, larger)
    with pytest.raises(ValueError, match=r"320x480 pixels .*take at least .*MiB in tiles of 64, but memory = 1MB"):
        chosen("1MB")
    with pytest.raises(ValueError, match=r"tile = 256 takes .*but memory = 12MB: use a smaller tile"):
        chosen("12MB", tile=256)
    assert chosen(10**9, tile=128, overlap=20) == Tiles(128, 32)
    small = Tiles(64, 16)
    assert extraction_bytes(model, shape, small, resized=True) > extraction_bytes(model, shape, small)


def test_odd_tiles_overlaps_and_amounts_are_refused(model: FlowFeat) -> None:
    image = picture(64, 64)
    for tile, near in ((40, "32 or 48"), (5, "16")):
        with pytest.raises(ValueError, match=rf"tile = {tile} must be a multiple of 16 .*such as {near}$"):
            model.extract(image, tile=tile)
    with pytest.raises(ValueError, match="overlap = -1"):
        model.extract(image, tile=32, overlap=-1)
    assert [parse_bytes(text) for text in (7, "500MB", "1.5 gib", "2KiB")] == [7, 500_000_000, 3 << 29, 2048]
    for wrong in ("4 parsecs", "-1", 0, "", "GiB"):
        with pytest.raises(ValueError, match="is no amount"):
            parse_bytes(wrong)


def test_points_batches_and_odd_sizes_go_through_tiles(model: FlowFeat) -> None:
    images = np.stack([picture(75, 131), picture(75, 131, 1)])
    fits: tuple[Fit, ...] = ("resize", "pad")
    for fit in fits:
        found = model.extract(images, tile=48, points=[(0, 0), (130, 74)], fit=fit)
        assert found.at_points is not None
        assert found.high.shape == (2, 16, 75, 131) and found.high.isfinite().all()
        assert torch.equal(found.at_points[:, 1], found.high[:, :, 74, 130])
        one = model.extract(images[1], tile=48, fit=fit)
        torch.testing.assert_close(found.high[1], one.high, rtol=0, atol=1e-4)


def test_a_user_encoder_is_tiled_as_well(conv_encoder: str) -> None:
    model = FlowFeat.create(conv_encoder, init="random", feature_dim=8)
    assert model.extract(picture(96, 64), tile=48).high.shape == (8, 96, 64)


def test_the_command_tiles_and_refuses_in_one_line(model: FlowFeat, tmp_path: Path) -> None:
    Image.fromarray(picture(96, 128)).save(tmp_path / "a.png")
    export_model(model, tmp_path / "m.safetensors")

    def invoke(*arguments: str) -> Any:
        given = ["--model", str(tmp_path / "m.safetensors"), "--out", str(tmp_path / "out"), "--size", "96"]
        return CliRunner().invoke(main, ["features", *given, *arguments, str(tmp_path / "a.png")])

    assert invoke("--tile", "48").exit_code == 0
    expected = model.extract(np.array(Image.open(tmp_path / "a.png")), tile=48).high
    assert np.array_equal(np.load(tmp_path / "out/a.npy"), expected.half().numpy())
    for arguments, message in (
        (("--tile", "40"), "tile = 40 must be a multiple of 16"),
        (("--memory", "much"), "is no amount"),
        (("--memory", "1MB"), "take at least"),
    ):
        done = invoke(*arguments)
        assert done.exit_code == 1 and message in done.output, done.output
