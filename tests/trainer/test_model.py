"""FlowFeat's interface: keys, sizes, initialisation, gradients and position embeddings."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.trainer.model_fixtures import OFFICIAL, TINY, vit_of
from trainer import ENCODERS, FlowFeat
from trainer.encoder import FrozenViT
from trainer.encoder_table import EncoderSpec, spec_of


@pytest.mark.parametrize("variant", OFFICIAL)
def test_state_dict_is_exactly_the_official_one(variant: str, data_dir: Path) -> None:
    with torch.device("meta"):
        model = FlowFeat(ENCODERS[variant], variant)
    wanted = json.loads((data_dir / f"keys_{variant}.json").read_text())
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == wanted


def test_decoder_sizes_match_the_published_counts() -> None:
    counted = {}
    for variant in ("dino_vits16", "dinov2_vitb14", "dinov2_vitl14", "mae_vitb16", "mae_vitl16"):
        with torch.device("meta"):
            counted[variant] = sum(p.numel() for p in FlowFeat(ENCODERS[variant]).decoder.parameters())
    assert counted == {
        "dino_vits16": 9_311_488,
        "dinov2_vitb14": 25_681_792,
        "dinov2_vitl14": 42_002_048,
        "mae_vitb16": 11_043_904,
        "mae_vitl16": 20_339_840,
    }


@pytest.mark.parametrize("variant", TINY.values())
def test_outputs_have_the_promised_shapes_and_no_gradient(variant: str) -> None:
    model = FlowFeat.create(variant, init="random")
    side = model.size_multiple
    low, high = model(torch.randn(2, 3, 2 * side, 3 * side))
    assert low.shape == (2, model.encoder_dim, 4, 6) and high.shape == (2, model.feature_dim, 2 * side, 3 * side)
    assert not low.requires_grad and not high.requires_grad
    assert (model.patch_size, model.variant, side) == (model.spec.patch, variant, 2 * model.spec.patch)


def test_training_features_reach_the_decoder_only() -> None:
    model = FlowFeat.create("tiny_dinov2_14", init="random")
    images = torch.randn(1, 3, 56, 84, requires_grad=True)
    low, high = model.features_with_grad(images)
    assert not low.requires_grad
    torch.testing.assert_close(high.detach(), model(images)[1])
    high.square().sum().mul(torch.tensor(0.5)).backward()
    assert images.grad is None and all(p.grad is None and not p.requires_grad for p in model.encoder.parameters())
    without = {name for name, p in model.decoder.named_parameters() if p.grad is None}
    assert without and all(name.startswith("scratch.refinenet4.resConfUnit1.") for name in without), without


def test_decoder_gradients_agree_with_finite_differences() -> None:
    """The in-place rectifiers must not corrupt the backward pass."""
    torch.manual_seed(0)
    model = FlowFeat.create("tiny_mae16", init="random", feature_dim=4).double()
    maps = model.encode(torch.randn(1, 3, 32, 32, dtype=torch.float64)).maps_bdhw
    mixture = torch.randn(1, 4, 32, 32, dtype=torch.float64)
    score = (model.decode(maps, (32, 32)) * mixture).sum()
    score.backward()
    for name in (
        "act_postprocess1.post.0.weight",
        "scratch.refinenet2.resConfUnit1.conv1.bias",
        "scratch.layer4_rn.weight",
    ):
        parameter = model.decoder.get_parameter(name)
        assert parameter.grad is not None
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            values = []
            for step in (1e-6, -2e-6):
                parameter.add_(step * direction)
                values.append(float((model.decode(maps, (32, 32)) * mixture).sum()))
        slope = (values[0] - values[1]) / 2e-6
        assert slope == pytest.approx(float((parameter.grad * direction).sum()), rel=1e-4, abs=1e-6), name


def test_the_size_rule_names_the_size_and_the_way_out() -> None:
    model = FlowFeat.create("tiny_mae16", init="random")
    with pytest.raises(ValueError, match=r"224x336 .*multiples of 32 .*nearest: 224x320 or 224x352"):
        model(torch.zeros(1, 3, 224, 336))
    with pytest.raises(ValueError, match=r"nearest: 32x32 or 32x32"):
        model(torch.zeros(1, 3, 1, 1))
    with pytest.raises(ValueError, match=r"\[B, 3, H, W\]"):
        model(torch.zeros(3, 64, 64))
    with pytest.raises(ValueError, match="normalised floats"):
        model(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_normalise_is_the_imagenet_rule() -> None:
    images = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 1, 1, 3).expand(1, 2, 4, 3)
    normalised = FlowFeat.normalise(images)
    assert normalised.shape == (1, 3, 2, 4) and normalised.dtype == torch.float32 and normalised.is_contiguous()
    wanted = [(0 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert normalised[0, :, 0, 0].tolist() == pytest.approx(wanted, abs=1e-6)
    with pytest.raises(ValueError, match="uint8"):
        FlowFeat.normalise(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"a torch tensor, not a numpy\.ndarray.*torch\.from_numpy"):
        FlowFeat.normalise(images.numpy())  # type: ignore[arg-type]


def test_random_weights_follow_the_seed_and_leave_the_global_stream_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (FlowFeat.create("tiny_dino8", init="random", seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["encoder.pos_embed"], other["encoder.pos_embed"])
    assert not torch.equal(first["decoder.scratch.output_conv0.weight"], other["decoder.scratch.output_conv0.weight"])


def test_random_initialisation_has_the_conventional_spread() -> None:
    state = FlowFeat.create("demo_vit8", init="random").state_dict()
    assert float(state["encoder.blocks.1.mlp.fc1.weight"].std()) == pytest.approx(0.02, rel=0.02)
    assert float(state["encoder.patch_embed.proj.weight"].std()) == pytest.approx((3 * 192) ** -0.5, rel=0.02)
    assert float(state["decoder.scratch.output_conv0.weight"].std()) == pytest.approx((3 * 64 * 9) ** -0.5, rel=0.02)
    assert float(state["decoder.act_postprocess1.post.1.weight"].abs().max()) <= (48 * 16) ** -0.5
    assert all(torch.isfinite(value).all() for value in state.values())


def test_a_random_encoder_tells_images_apart() -> None:
    model = FlowFeat.create("demo_vit8", init="random")
    torch.manual_seed(0)
    a, b = model(torch.randn(2, 3, 64, 64))[0].flatten(1)
    assert float(torch.corrcoef(torch.stack((a, b)))[0, 1]) < 0.5


def test_mae_positions_are_the_fixed_table() -> None:
    table = FrozenViT(spec_of("tiny_mae16"))
    table.initialise(torch.Generator())
    position = table.pos_embed[0]
    assert not position[0].any()
    column, row = (
        2,
        3,
    )  # token (3, 2) of a 4 x 4 grid: the first half of the channels codes the column, sine before cosine
    token = position[1 + 4 * row + column]
    omega = 10000.0 ** (-torch.arange(12) / 12)
    wanted = torch.cat([f(x * omega) for x in (column, row) for f in (torch.sin, torch.cos)])
    torch.testing.assert_close(token, wanted, atol=1e-6, rtol=0)


def test_native_grid_is_used_as_stored_and_others_are_resized() -> None:
    vit = vit_of(FlowFeat.create("tiny_dino8", init="random"))
    assert vit.position_for(6, 6) is vit.pos_embed
    resized = vit.position_for(4, 8)
    assert resized.shape == (1, 1 + 4 * 8, 48) and torch.equal(resized[:, 0], vit.pos_embed[:, 0])
    assert set(vit.state_dict()) == {name for name, _ in vit.named_parameters()}


def test_positions_follow_their_weights() -> None:
    model = FlowFeat.create("tiny_dino8", init="random", seed=1)
    other = FlowFeat.create("tiny_dino8", init="random", seed=2)
    images = torch.randn(1, 3, 32, 64)
    old, wanted = model(images)[0], other(images)[0]
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(images)[0], old)
        twin.load_state_dict(other.state_dict())
        assert torch.equal(twin(images)[0], wanted)
    with torch.no_grad():
        vit_of(model).pos_embed.copy_(vit_of(other).pos_embed)
    torch.testing.assert_close(vit_of(model).position_for(4, 8), vit_of(other).position_for(4, 8), rtol=0, atol=0)
    assert vit_of(model.double()).position_for(4, 8).dtype == torch.float64
    with torch.inference_mode():
        inside = other(images)[0].clone()
    assert torch.equal(inside, wanted)
    other.features_with_grad(images)[1].sum().backward()  # what inference mode saw does not stop training


def test_half_precision_positions_are_resized_in_float32() -> None:
    vit = vit_of(FlowFeat.create("tiny_dino8", init="random"))
    exact = vit.to(torch.bfloat16).float().position_for(4, 8)
    assert torch.equal(vit.to(torch.bfloat16).position_for(4, 8), exact.to(torch.bfloat16))


def test_bad_specs_and_names_are_refused() -> None:
    with pytest.raises(ValueError, match="did you mean dinov2_vits14"):
        FlowFeat.create("dinov2_vit_s14", init="random")
    good = spec_of("tiny_dino8")
    for change, message in (
        ({"hooks": (0, 1, 2, 4)}, "past the last block"),
        ({"hooks": (0, 2, 1, 3)}, "rising"),
        ({"heads": 5}, "multiple"),
        ({"family": "clip"}, "unknown"),
        ({"grid": (4, 8)}, "square"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(good, **change)


def test_a_spec_of_ones_own_builds() -> None:
    spec = EncoderSpec("mae", 24, 6, 2, 4, (4, 6), (1, 2, 4, 5), (8, 8, 8, 8), feature_dim=8)
    low, high = FlowFeat.create(spec, init="random")(torch.randn(1, 3, 16, 24))
    assert low.shape == (1, 24, 4, 6) and high.shape == (1, 8, 16, 24)


def test_importing_the_package_is_cheap() -> None:
    """`import trainer` must not load torch: command lines answer --help at once."""
    code = "import sys, trainer; assert 'torch' not in sys.modules; trainer.FlowFeat; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
