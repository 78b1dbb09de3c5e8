"""FlowFeat.extract: pictures of every kind and size, and the plain call as the judge."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from trainer import Extracted, FlowFeat

VARIANTS = ("tiny_dino8", "tiny_dinov2_14", "tiny_mae16")


@pytest.fixture(scope="module")
def model() -> FlowFeat:
    return FlowFeat.create("tiny_dinov2_14", init="random")


def pixels(height: int, width: int, count: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def plain(model: FlowFeat, images_bhwc: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = model(FlowFeat.normalise(torch.from_numpy(images_bhwc)))
    return low, high


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("fit", ["resize", "pad"])
def test_equals_the_plain_call_where_both_apply(variant: str, fit: Any) -> None:
    model = FlowFeat.create(variant, init="random")
    images = pixels(2 * model.size_multiple, 3 * model.size_multiple, 2)
    low, high = plain(model, images[:1])
    as_torch = torch.from_numpy(images[0])
    kinds: list[Any] = [Image.fromarray(images[0]), images[0], as_torch, as_torch.permute(2, 0, 1)]
    for kind in kinds:
        found = model.extract(kind, fit=fit)
        assert torch.equal(found.low, low[0]) and torch.equal(found.high, high[0])
    ready = FlowFeat.normalise(torch.from_numpy(images))
    batch_low, batch_high = plain(model, images)
    for batch in (images, torch.from_numpy(images), ready):
        found = model.extract(batch, fit=fit, normalised=batch is ready)
        assert torch.equal(found.low, batch_low) and torch.equal(found.high, batch_high)
    assert not found.high.requires_grad


def test_floats_from_0_to_1_are_the_same_picture(model: FlowFeat) -> None:
    image = pixels(56, 84)[0]
    low, high = plain(model, image[None])
    unit = image.astype(np.float32) / 255
    before = unit.copy()
    for kind in (unit, torch.from_numpy(unit).permute(2, 0, 1)):
        found = model.extract(kind)
        assert torch.equal(found.low, low[0]) and torch.equal(found.high, high[0])
    assert np.array_equal(unit, before)
    double = model.extract(unit.astype(np.float64))
    assert torch.equal(double.high, high[0])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 90), (41, 57), (56, 71), (100, 28)])
def test_any_size_comes_back_in_its_own_pixels(model: FlowFeat, height: int, width: int) -> None:
    image = pixels(height, width)[0]
    for fit in ("resize", "pad"):
        found = model.extract(image, fit=fit)
        assert found.high.shape == (16, height, width) and found.high.isfinite().all()
    assert found.low.shape[1:] == (-(-height // 14), -(-width // 14))


def test_padding_repeats_the_border_and_is_cut_off_again(model: FlowFeat) -> None:
    image = pixels(41, 57)[0]
    padded = np.pad(image, ((0, 15), (0, 27), (0, 0)), mode="edge")
    low, high = plain(model, padded[None])
    found = model.extract(image, fit="pad")
    assert torch.equal(found.high, high[0, :, :41, :57]) and torch.equal(found.low, low[0, :, :3, :5])


def test_resizing_goes_to_the_nearest_multiples_and_back(model: FlowFeat) -> None:
    image = pixels(41, 71)[0]  # nearest multiples of 28: 28 and 84
    normal = FlowFeat.normalise(torch.from_numpy(image)[None])
    resized = F.interpolate(normal, size=(28, 84), mode="bilinear", align_corners=False, antialias=True)
    low, high = model(resized)
    back = F.interpolate(high, size=(41, 71), mode="bilinear", align_corners=False)
    found = model.extract(image)
    assert torch.equal(found.low, low[0]) and torch.equal(found.high, back[0])


def test_a_list_may_mix_kinds_and_sizes(model: FlowFeat) -> None:
    small, large = pixels(30, 40)[0], pixels(56, 84)[0]
    found = model.extract([small, Image.fromarray(large)])
    assert isinstance(found, list) and [type(one) for one in found] == [Extracted, Extracted]
    assert torch.equal(found[0].high, model.extract(small).high)
    assert torch.equal(found[1].high, model.extract(large).high)
    assert model.extract([]) == []


def test_points_are_x_then_y_with_pixel_centres_at_whole_numbers(model: FlowFeat) -> None:
    image = pixels(41, 57)[0]
    points = [(0, 0), (56, 40), (7, 3), (7.5, 3), (7, 3.25), (-0.5, 40.5), (10.25, 20.5)]
    found = model.extract(image, points=points)
    high, at = found.high, found.at_points
    assert at is not None and at.shape == (7, 16)
    for row, (x, y) in enumerate(((0, 0), (56, 40), (7, 3))):
        assert torch.equal(at[row], high[:, y, x])
    assert torch.allclose(at[3], (high[:, 3, 7] + high[:, 3, 8]) / 2)
    assert torch.allclose(at[4], 0.75 * high[:, 3, 7] + 0.25 * high[:, 4, 7])
    assert torch.equal(at[5], high[:, 40, 0])  # the outer half of a border pixel
    block = torch.tensor([[0.375, 0.125], [0.375, 0.125]])
    assert torch.allclose(at[6], (high[:, 20:22, 10:12] * block).sum(dim=(1, 2)), atol=1e-6)
    batch = model.extract(np.stack([image, image]), points=np.array(points))
    assert batch.at_points is not None and batch.at_points.shape == (2, 7, 16)
    assert model.extract(image).at_points is None


def test_the_models_own_type_and_device_are_used(model: FlowFeat) -> None:
    double = FlowFeat.create("tiny_dinov2_14", init="random").double()
    image = pixels(30, 40)[0]
    found = double.extract(image)
    assert found.high.dtype == torch.float64
    assert torch.allclose(found.high.float(), model.extract(image).high, atol=1e-4)


def test_pil_modes_and_orientation(model: FlowFeat) -> None:
    image = pixels(28, 56)[0]
    turned = Image.fromarray(image)
    turned.getexif()[0x0112] = 6  # to be turned by a quarter, clockwise
    assert torch.equal(model.extract(turned).high, model.extract(np.rot90(image, -1)).high)
    grey = Image.fromarray(image).convert("L")
    assert torch.equal(model.extract(grey).high, model.extract(np.stack([np.array(grey)] * 3, axis=-1)).high)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ("photo.jpg", "not str"),
        (np.zeros((5, 5, 4), np.uint8), "3 color channels"),
        (np.zeros((5, 5), np.uint8), r"not \[5, 5\]"),
        (np.zeros((0, 5, 3), np.uint8), r"not \[0, 5, 3\]"),
        (np.zeros((5, 5, 3), np.int64), "uint8 or floating point"),
        (np.full((5, 5, 3), 255.0), "divide by 255, or pass normalised=True"),
        (np.full((5, 5, 3), np.nan), "0 to 1"),
        (Image.new("I;16", (5, 5)), "convert it to RGB first"),
    ],
)
def test_what_is_no_picture_is_refused(model: FlowFeat, picture: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.extract(picture)


def test_three_pixels_high_and_wide_is_color_last_in_numpy_and_first_in_torch(model: FlowFeat) -> None:
    narrow = pixels(3, 3)[0]
    found = model.extract(narrow).high
    assert torch.equal(model.extract(Image.fromarray(narrow)).high, found)
    assert torch.equal(model.extract(torch.from_numpy(narrow).permute(2, 0, 1)).high, found)
    assert not torch.equal(model.extract(torch.from_numpy(narrow)).high, found)


@pytest.mark.parametrize("point", [(-0.6, 3), (3, -0.6), (55.6, 3), (3, 27.6), (float("nan"), 3)])
def test_a_point_outside_is_refused(model: FlowFeat, point: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="1 points are outside the picture of 56x28"):
        model.extract(pixels(28, 56)[0], points=[(0, 0), point])


def test_odd_points_and_settings_are_refused(model: FlowFeat) -> None:
    image = pixels(28, 56)[0]
    with pytest.raises(ValueError, match=r"points are \[N, 2\]"):
        model.extract(image, points=[1.0, 2.0])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="fit is"):
        model.extract(image, fit="crop")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="normalised=True is for floats"):
        model.extract(image, normalised=True)
