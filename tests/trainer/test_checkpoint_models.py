"""Model files: every layout they come in, the variant their shapes fit, and the two forms they are exported in."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests.trainer.model_fixtures import DATA, OFFICIAL, TINY, encoder_state, random_state, vit_of
from trainer import ENCODERS, EncoderSpec, FlowFeat
from trainer.model_file import export_model, read_model_file

VARIANT = "tiny_dinov2_14"


def same_tensors(model: FlowFeat, tensors: dict[str, torch.Tensor]) -> bool:
    found = model.state_dict()
    return found.keys() == tensors.keys() and all(torch.equal(found[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize("variant", TINY.values())
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_an_exported_model_comes_back(variant: str, suffix: str, tmp_path: Path) -> None:
    model = FlowFeat.create(variant, init="random", seed=5)
    path = tmp_path / f"m{suffix}"
    export_model(model, path, {"steps": 10})
    loaded = FlowFeat.from_pretrained(path)
    assert loaded.variant == variant and loaded.spec == model.spec and same_tensors(loaded, dict(model.state_dict()))
    images = torch.randn(1, 3, model.size_multiple, 2 * model.size_multiple)
    assert torch.equal(loaded(images)[1], model(images)[1])


@pytest.mark.parametrize("layout", ["flat", "nested", "module", "nested_module", "checkpoint"])
def test_every_layout_is_read(layout: str, tmp_path: Path) -> None:
    tensors = random_state(VARIANT)
    prefixed = {f"module.{key}": value for key, value in tensors.items()}
    decoder = {key.removeprefix("decoder."): value for key, value in tensors.items() if key.startswith("decoder.")}
    extras = {f"decoder_ema.online_model.{key}": value for key, value in decoder.items()}
    extras |= {f"decoder_ema.ema_model.{key}": value + 1 for key, value in decoder.items()}
    extras |= {
        name: torch.zeros(2) for name in ("decoder_ema.initted", "bases", "layer_norm.weight", "mlp_head_err.0.weight")
    }
    payload: dict[str, object] = {
        "flat": tensors,
        "nested": {"model": tensors},
        "module": prefixed,
        "nested_module": {"model": prefixed},
        "checkpoint": {"model": {**tensors, **extras}, "optim": {"lr": 1e-4}},
    }[layout]  # type: ignore[assignment]
    path = tmp_path / "m.pth"
    torch.save(payload, path)
    assert same_tensors(FlowFeat.from_pretrained(path), tensors)
    if layout == "checkpoint":
        teacher = FlowFeat.from_pretrained(path, teacher=True).state_dict()
        assert all(torch.equal(teacher[f"decoder.{key}"], value + 1) for key, value in decoder.items())
        assert torch.equal(teacher["encoder.cls_token"], tensors["encoder.cls_token"])
    else:
        with pytest.raises(ValueError, match="no EMA decoder"):
            FlowFeat.from_pretrained(path, teacher=True)


@pytest.mark.parametrize("variant", OFFICIAL)
def test_official_variants_are_told_apart_by_their_shapes(variant: str, tmp_path: Path) -> None:
    shapes = json.loads((DATA / f"keys_{variant}.json").read_text())
    path = tmp_path / "m.pth"
    torch.save(
        {key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}, path
    )  # one number on disk per tensor
    found = read_model_file(path)
    assert found.variant == variant and found.spec == ENCODERS[variant]


def test_a_mae_model_may_carry_another_grid(tmp_path: Path) -> None:
    spec = replace(ENCODERS["tiny_mae16"], grid=(8, 8))
    model = FlowFeat.create(spec, init="random")
    torch.save(model.state_dict(), tmp_path / "m.pth")
    loaded = FlowFeat.from_pretrained(tmp_path / "m.pth")
    assert loaded.variant == "tiny_mae16" and vit_of(loaded).spec.grid == (8, 8)
    images = torch.randn(1, 3, 64, 96)
    assert torch.equal(loaded(images)[0], model(images)[0])


def test_a_spec_of_ones_own_survives_in_safetensors_only(tmp_path: Path) -> None:
    spec = EncoderSpec("mae", 24, 6, 2, 4, (4, 6), (1, 2, 4, 5), (8, 8, 8, 8), feature_dim=8)
    model = FlowFeat.create(spec, init="random")
    for suffix in (".safetensors", ".pth"):
        export_model(model, tmp_path / f"m{suffix}")
    assert FlowFeat.from_pretrained(tmp_path / "m.safetensors").spec == spec
    with pytest.raises(ValueError, match=r"fits no registered variant: DINO- or MAE-like, dim 24, depth 6, patch 4"):
        FlowFeat.from_pretrained(tmp_path / "m.pth")


def test_a_narrower_decoder_is_recognised(tmp_path: Path) -> None:
    torch.save(FlowFeat.create("tiny_dino8", init="random", feature_dim=24).state_dict(), tmp_path / "m.pth")
    assert FlowFeat.from_pretrained(tmp_path / "m.pth").feature_dim == 24


def test_half_precision_files_load_as_float32(tmp_path: Path) -> None:
    torch.save({key: value.half() for key, value in random_state(VARIANT).items()}, tmp_path / "m.pth")
    assert all(p.dtype == torch.float32 for p in FlowFeat.from_pretrained(tmp_path / "m.pth").parameters())


def test_missing_unexpected_and_misshapen_keys_are_named(tmp_path: Path) -> None:
    tensors = random_state(VARIANT)
    del tensors["decoder.scratch.refinenet4.resConfUnit1.conv1.bias"]
    tensors["decoder.extra"] = torch.zeros(1)
    tensors["encoder.norm.bias"] = torch.zeros(7)
    torch.save(tensors, tmp_path / "m.pth")
    with pytest.raises(ValueError) as caught:
        FlowFeat.from_pretrained(tmp_path / "m.pth")
    for part in (
        "m.pth does not fit tiny_dinov2_14",
        "1 missing (decoder.scratch.refinenet4.resConfUnit1.conv1.bias)",
        "1 unexpected (decoder.extra)",
        "1 of another shape (encoder.norm.bias is [7], not [48])",
    ):
        assert part in str(caught.value)
    with pytest.raises(ValueError, match="does not fit dino_vits16"):
        FlowFeat.from_pretrained(tmp_path / "m.pth", variant="dino_vits16")


def test_an_encoder_file_is_not_mistaken_for_a_model(tmp_path: Path) -> None:
    torch.save(encoder_state("tiny_dino8"), tmp_path / "e.pth")
    with pytest.raises(ValueError, match=r"no encoder\.\* keys .* FlowFeat\.create\(variant, init=path\)"):
        FlowFeat.from_pretrained(tmp_path / "e.pth")


def test_safetensors_say_what_they_are(tmp_path: Path) -> None:
    export_model(
        FlowFeat.create("tiny_mae16", init="random", seed=3), tmp_path / "m.safetensors", {"steps": 10, "data": "x"}
    )
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata["variant"] == "tiny_mae16" and metadata["format"] == "pt" and metadata["flowfeat_format"] == "1"
    assert json.loads(metadata["provenance"]) == {"steps": 10, "data": "x"}
    assert metadata["encoder_source"] == "random:3" and metadata["encoder_licence"] == "none (random weights)"
    assert FlowFeat.from_pretrained(tmp_path / "m.safetensors").encoder_source == "random:3"


def test_the_licence_of_mae_weights_travels_with_the_export(tmp_path: Path) -> None:
    model = FlowFeat.create("tiny_mae16", init="random")
    model.encoder_source = "mae_pretrain_vit_base.pth sha256:0"
    export_model(model, tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        assert file.metadata()["encoder_licence"] == "CC-BY-NC-4.0"


def test_equal_models_give_equal_bytes(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom trainer import FlowFeat\nfrom trainer.model_file import export_model\n"
        "export_model(FlowFeat.create('tiny_dino8', init='random'), Path(sys.argv[1]), {'b': 1, 'a': 'é'})\n"
    )
    for suffix in (".safetensors", ".pth"):
        first = tmp_path / "first" / f"m{suffix}"
        export_model(FlowFeat.create("tiny_dino8", init="random"), first, {"a": "é", "b": 1})
        other = tmp_path / "other" / f"m{suffix}"
        subprocess.run([sys.executable, "-c", code, str(other)], check=True, cwd=Path(__file__).parents[2])
        assert first.read_bytes() == other.read_bytes(), suffix


def test_damage_to_an_exported_model_is_noticed(tmp_path: Path) -> None:
    for suffix in (".safetensors", ".pth"):
        path = tmp_path / f"m{suffix}"
        export_model(FlowFeat.create("tiny_dino8", init="random"), path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match="damaged"):
            FlowFeat.from_pretrained(path)
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 4
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match="damaged"):
            FlowFeat.from_pretrained(path)


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"name it \.safetensors or \.pth"):
        export_model(FlowFeat.create("tiny_dino8", init="random"), tmp_path / "m.bin")
