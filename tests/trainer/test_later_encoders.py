"""DINOv2 with registers and DINOv3: keys, numbers, files and refusals, against their published description."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.model_fixtures import encoder_state, vit_of
from tests.trainer.reference_vit import reference_hooks
from trainer import ENCODERS, EncoderSpec, FlowFeat
from trainer.encoder import FrozenViT
from trainer.encoder_file import read_encoder_file
from trainer.encoder_weights import PUBLISHED, fetch_encoder
from trainer.model_file import export_model

REG, V3 = "tiny_dinov2_reg14", "tiny_dinov3_16"
SIZES = {"s": (384, 12), "b": (768, 12), "l": (1024, 24)}
# rope_embed.periods in the published files: bfloat16 numbers
PERIODS = [1.0, 1.3359375, 1.78125, 2.375, 3.15625, 4.21875, 5.625, 7.5]
PERIODS += [10.0, 13.3125, 17.75, 23.75, 31.625, 42.25, 56.25, 75.0]


def published_shapes(family: str, dim: int, depth: int) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the published files, from the descriptions of their networks."""
    patch = 16 if family == "dinov3" else 14
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, dim),
        "mask_token": (1, dim),
        "patch_embed.proj.weight": (dim, 3, patch, patch),
        "patch_embed.proj.bias": (dim,),
        "norm.weight": (dim,),
        "norm.bias": (dim,),
    }
    if family == "dinov3":
        shapes |= {"storage_tokens": (1, 4, dim), "rope_embed.periods": (16,)}
    else:
        shapes |= {"register_tokens": (1, 4, dim), "pos_embed": (1, 1370, dim)}
    block: dict[str, tuple[int, ...]] = {
        "attn.qkv.weight": (3 * dim, dim),
        "attn.qkv.bias": (3 * dim,),
        "attn.proj.weight": (dim, dim),
        "attn.proj.bias": (dim,),
        "mlp.fc1.weight": (4 * dim, dim),
        "mlp.fc1.bias": (4 * dim,),
        "mlp.fc2.weight": (dim, 4 * dim),
        "mlp.fc2.bias": (dim,),
    }
    block |= {
        name: (dim,) for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma")
    }
    if family == "dinov3":
        block["attn.qkv.bias_mask"] = (3 * dim,)
    return shapes | {f"blocks.{i}.{name}": shape for i in range(depth) for name, shape in block.items()}


def variant_of(family: str, size: str) -> str:
    return f"dinov3_vit{size}16" if family == "dinov3" else f"dinov2_vit{size}14_reg"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", ["dinov2_reg", "dinov3"])
def test_published_files_fit_unchanged(family: str, size: str, tmp_path: Path) -> None:
    dim, depth = SIZES[size]
    variant, shapes = variant_of(family, size), published_shapes(family, dim, depth)
    spec = ENCODERS[variant]
    with torch.device("meta"):
        assert {key: tuple(value.shape) for key, value in FrozenViT(spec).state_dict().items()} == shapes
    assert spec.widths == (dim,) * 4 and spec.heads == dim // 64 and spec.feature_dim == 128
    assert spec.hooks == ((2, 5, 8, 11) if depth == 12 else (5, 11, 17, 23))
    path = tmp_path / "e.pth"  # one number on disk per tensor
    torch.save({key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}, path)
    assert read_encoder_file(path, spec, variant).keys() == shapes.keys()


def random_weights(variant: str, seed: int) -> FlowFeat:
    """Every tensor random and of consequence: no zero bias, no factor of one; the buffers as they are."""
    model = FlowFeat.create(variant, init="random")
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.encoder.named_parameters():
            scale = 0.2 if parameter.ndim == 2 else 0.5
            parameter.copy_(
                scale * torch.randn_like(parameter) + (name.endswith(("norm1.weight", "norm2.weight", "gamma")))
            )
    return model


def check_against_reference(model: FlowFeat, height: int, width: int, atol: float) -> None:
    spec = vit_of(model).spec
    extra = next(iter(spec.rules.extra_tokens))
    images = torch.randn(2, 3, height, width)
    eps = 1e-5 if spec.family == "dinov3" else 1e-6
    hooked, normed = reference_hooks(model.encoder.state_dict(), images, spec.heads, spec.hooks, extra, eps)
    twin = model.double()
    for ours, wanted in zip(vit_of(twin).tokens(images.double()), hooked, strict=True):
        np.testing.assert_allclose(ours.numpy(), wanted, rtol=0, atol=atol * np.abs(wanted).max())
    low = twin(images.double())[0]
    wanted_low = normed[:, 5:].reshape(2, height // spec.patch, width // spec.patch, spec.dim).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(low.numpy(), wanted_low, rtol=0, atol=atol * np.abs(wanted_low).max())


@pytest.mark.parametrize(("tokens_high", "tokens_wide"), [(4, 4), (2, 6), (6, 4), (8, 8)])
def test_dinov3_agrees_with_its_description(tokens_high: int, tokens_wide: int) -> None:
    check_against_reference(random_weights(V3, 1), 16 * tokens_high, 16 * tokens_wide, atol=1e-12)


@pytest.mark.parametrize(("tokens_high", "tokens_wide"), [(2, 2), (4, 8), (10, 4)])
def test_registers_agree_with_their_description(tokens_high: int, tokens_wide: int) -> None:
    check_against_reference(random_weights(REG, 2), 14 * tokens_high, 14 * tokens_wide, atol=1e-6)  # positions: float32


def test_a_published_size_agrees_with_its_description() -> None:
    check_against_reference(random_weights("dinov3_vits16", 3), 32, 64, atol=1e-11)


def test_float32_stays_near_the_description() -> None:
    model = random_weights(V3, 4)
    images = torch.randn(1, 3, 64, 96)
    narrow = model(images)[0]
    torch.testing.assert_close(narrow.double(), model.double()(images.double())[0], rtol=0, atol=1e-3)


def test_random_buffers_are_the_published_ones() -> None:
    encoder = FlowFeat.create(
        EncoderSpec("dinov3", 64, 4, 1, 16, (4, 4), (0, 1, 2, 3), (8,) * 4, 8), init="random"
    ).encoder
    state = encoder.state_dict()
    assert state["rope_embed.periods"].bfloat16().tolist() == PERIODS
    assert state["blocks.2.attn.qkv.bias_mask"].tolist() == [1.0] * 64 + [0.0] * 64 + [1.0] * 64


def test_what_the_file_says_of_periods_and_masks_holds(tmp_path: Path) -> None:
    """The published periods are rounded and the published masks are zero throughout: both are read, not assumed."""
    state = encoder_state(V3)
    state["rope_embed.periods"] = torch.tensor(PERIODS[::4]).bfloat16()
    for number in range(4):
        state[f"blocks.{number}.attn.qkv.bias"] = torch.randn(144)
        state[f"blocks.{number}.attn.qkv.bias_mask"] = torch.zeros(144)
    torch.save(state | {"local_cls_norm.weight": torch.ones(48)}, tmp_path / "e.pth")
    model = FlowFeat.create(V3, init=tmp_path / "e.pth")
    assert vit_of(model).rope_embed.periods.dtype == torch.float32
    check_against_reference(model, 64, 32, atol=1e-12)


def test_angles_stay_exact_beside_half_precision_tokens() -> None:
    encoder = vit_of(FlowFeat.create(V3, init="random").to(torch.bfloat16))
    rotation = encoder.rope_embed(4, 6, 5)
    assert (
        rotation.sin_nh.dtype == torch.float32
        and rotation.turn(torch.ones(1, 3, 29, 16).bfloat16()).dtype == torch.bfloat16
    )
    assert not rotation.sin_nh[:5].any() and rotation.cos_nh[:5].eq(1).all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(FlowFeat.create(V3, init="random")(torch.randn(1, 3, 64, 32))[1]).all()


@pytest.mark.parametrize(("asked", "given"), list(permutations((REG, V3, "tiny_dinov2_14", "tiny_mae16"), 2)))
def test_a_file_of_another_family_is_named(asked: str, given: str, tmp_path: Path) -> None:
    torch.save(encoder_state(given), tmp_path / "e.pth")
    with pytest.raises(ValueError, match=rf"e\.pth is not {asked}: it looks like {given} \(.*\); \d+ "):
        FlowFeat.create(asked, init=tmp_path / "e.pth")


@pytest.mark.parametrize("variant", [REG, V3])
def test_whole_models_travel(variant: str, tmp_path: Path) -> None:
    model = random_weights(variant, 5)
    model.features_with_grad(torch.randn(1, 3, *[model.size_multiple] * 2))[1].sum().backward()
    for name in ("m.pth", "m.safetensors"):
        export_model(model, tmp_path / name)
        loaded = FlowFeat.from_pretrained(tmp_path / name)
        assert loaded.variant == variant and loaded.spec == ENCODERS[variant]
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())
    torch.save(encoder_state(variant), tmp_path / "e.pth")
    with pytest.raises(ValueError, match=r"an encoder file\? Then FlowFeat\.create"):
        FlowFeat.from_pretrained(tmp_path / "e.pth")


def test_weights_given_out_on_request_are_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWFEAT_CACHE", str(tmp_path))
    with pytest.raises(
        OSError, match=r"given out on request: accept the DINOv3 License at https://.*put dinov3_vits16_"
    ):
        fetch_encoder("dinov3_vits16")
    with pytest.raises(FileNotFoundError, match=r"fetch it from https://ai\.meta\.com"):
        read_encoder_file(tmp_path / "none.pth", ENCODERS["dinov3_vits16"], "dinov3_vits16")
    assert PUBLISHED["dinov3_vits16"].sha256 == "08c60483" and PUBLISHED["dinov2_vits14_reg"].sha256 is None
    (tmp_path / PUBLISHED["dinov3_vits16"].url.rsplit("/", 1)[-1]).write_bytes(b"something else")
    with pytest.raises(ValueError, match="not 08c60483"):
        fetch_encoder("dinov3_vits16")


def test_heads_that_cannot_turn_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4 channels, not 6"):
        EncoderSpec("dinov3", 24, 4, 4, 16, (4, 4), (0, 1, 2, 3), (8,) * 4)
