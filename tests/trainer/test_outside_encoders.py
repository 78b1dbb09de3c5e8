"""A user's own module as the encoder: what it must be, how it travels, and that its code runs only where a user says so."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open

from tests.trainer.outside_fixtures import conv_encoder
from tests.trainer.runs import final_state, run
from trainer import FlowFeat
from trainer.cli import main
from trainer.encoder_protocol import FrozenEncoder
from trainer.encoder_reference import ALLOWED, build_outside
from trainer.encoder_table import spec_of
from trainer.model_file import export_model
from trainer.outside_encoder import OutsideEncoder, OutsideSpec

__all__ = ["conv_encoder"]
PIXELS = torch.rand(2, 3, 32, 48)


def test_a_module_becomes_an_encoder_under_the_official_decoder(conv_encoder: str) -> None:
    model = FlowFeat.create(conv_encoder, init="random", seed=3, feature_dim=16)
    assert model.spec == OutsideSpec(conv_encoder, 12, 8, (12,) * 4, 16, "MIT") and model.variant == conv_encoder
    low, high = model(PIXELS)
    assert low.shape == (2, 12, 4, 6) and high.shape == (2, 16, 32, 48) and not high.requires_grad
    assert torch.equal(low, model.encode(PIXELS).maps_bdhw[3] / 2)
    same_width = replace(spec_of("tiny_dino8"), dim=12, heads=1, widths=(12,) * 4)
    official = FlowFeat.create(same_width, init="random", seed=3).decoder.state_dict()
    ours = model.decoder.state_dict()
    assert ours.keys() == official.keys() and all(torch.equal(ours[key], official[key]) for key in ours)
    model.train()
    assert torch.equal(model(PIXELS)[1], high), "a frozen encoder's dropout stands still"
    assert not any(p.requires_grad for p in model.encoder.parameters())
    model.features_with_grad(PIXELS)[1].sum().backward()
    assert model.extract(PIXELS[0, :, :21, :30]).high.shape == (16, 21, 30)


def test_images_come_normalised_as_the_module_says(conv_encoder: str) -> None:
    model = FlowFeat.create(conv_encoder, init="random")
    assert isinstance(model.encoder, OutsideEncoder)
    image = torch.randint(0, 256, (1, 16, 16, 3), dtype=torch.uint8)
    model(FlowFeat.normalise(image))
    wanted = (image.permute(0, 3, 1, 2) / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.5, 0.25, 0.2]
    ).view(3, 1, 1)
    torch.testing.assert_close(model.encoder.module.seen, wanted, rtol=0, atol=2e-6)


def test_random_weights_follow_the_seed_and_leave_the_global_stream_alone(conv_encoder: str) -> None:
    before = torch.get_rng_state()
    first, again, other = (FlowFeat.create(conv_encoder, init="random", seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[key], again[key]) for key in first)
    key = "encoder.module.stem.weight"
    assert not torch.equal(first[key], other[key])
    trained = FlowFeat.create(conv_encoder, init="pretrained")
    assert trained.state_dict()["encoder.module.stem.bias"].eq(3).all()
    assert trained.encoder_source.startswith("conv_encoder:make sha256:") and trained.encoder_licence == "MIT"


def test_weights_from_a_file(conv_encoder: str, tmp_path: Path) -> None:
    tensors = build_outside(conv_encoder, seed=9).module.state_dict()
    torch.save(tensors, tmp_path / "w.pth")
    model = FlowFeat.create(conv_encoder, init=tmp_path / "w.pth")
    assert torch.equal(model.state_dict()["encoder.module.stem.weight"], tensors["stem.weight"])
    assert model.encoder_source.startswith("w.pth sha256:")
    torch.save({**tensors, "stem.bias": tensors["stem.bias"] * torch.nan}, tmp_path / "nan.pth")
    with pytest.raises(ValueError, match=r"nan\.pth holds NaN or infinity, first in stem\.bias"):
        FlowFeat.create(conv_encoder, init=tmp_path / "nan.pth")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth does not fit conv_encoder:make: 10 missing .*1 unexpected"):
        FlowFeat.create(conv_encoder, init=tmp_path / "other.pth")


def test_a_model_file_alone_never_runs_code(conv_encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = FlowFeat.create(conv_encoder, init="random", seed=4, feature_dim=16)
    export_model(model, tmp_path / "m.safetensors")
    torch.save({"model": model.state_dict(), "variant": conv_encoder}, tmp_path / "checkpoint.pth")
    torch.save(model.state_dict(), tmp_path / "flat.pth")
    for name in ("m.safetensors", "checkpoint.pth"):
        del sys.modules["conv_encoder"]
        for allowed in ("", "other:make", "conv_encoder"):
            monkeypatch.setenv(ALLOWED, allowed)
            with pytest.raises(
                ValueError, match=rf"{name} stands on the encoder conv_encoder:make, whose code .*variant="
            ):
                FlowFeat.from_pretrained(tmp_path / name)
        assert "conv_encoder" not in sys.modules
        named = FlowFeat.from_pretrained(tmp_path / name, variant=conv_encoder)
        monkeypatch.setenv(ALLOWED, f"other:make, {conv_encoder}")
        for loaded in (named, FlowFeat.from_pretrained(tmp_path / name)):
            assert loaded.variant == conv_encoder and torch.equal(loaded(PIXELS)[1], model(PIXELS)[1])
    assert torch.equal(
        FlowFeat.from_pretrained(tmp_path / "flat.pth", variant=conv_encoder)(PIXELS)[1], model(PIXELS)[1]
    )
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["spec"])["reference"] == conv_encoder and metadata["variant"] == conv_encoder


def test_the_recorded_reference_cannot_be_smuggled_in_as_a_spec(conv_encoder: str, tmp_path: Path) -> None:
    model = FlowFeat.create(conv_encoder, init="random")
    model.variant = "custom"
    export_model(model, tmp_path / "m.safetensors")
    del sys.modules["conv_encoder"]
    with pytest.raises(ValueError, match="the metadata's spec cannot be read"):
        FlowFeat.from_pretrained(tmp_path / "m.safetensors")
    assert "conv_encoder" not in sys.modules


def test_a_run_trains_resumes_and_exports_on_it(conv_encoder: str, shards: Path, tmp_path: Path) -> None:
    settings = (f"encoder.variant={conv_encoder}", "encoder.init=pretrained", "train.batch_size=2")
    out = tmp_path / "run"
    assert run(shards, out, *settings, "train.steps=1").step == 1
    first = final_state(out)
    assert run(shards, out, *settings, "train.steps=2", resume=True).step == 2
    after = final_state(out)
    encoder = [key for key in first["model"] if key.startswith("encoder.")]
    assert len(encoder) == 10 and all(torch.equal(first["model"][key], after["model"][key]) for key in encoder)
    assert after["variant"] == conv_encoder and after["encoder_source"] == first["encoder_source"]
    exported = tmp_path / "m.safetensors"
    done = CliRunner().invoke(main, ["export", "--run", str(out), "--out", str(exported)])
    assert done.exit_code == 0, done.output
    model = FlowFeat.from_pretrained(exported, variant=conv_encoder)
    assert model.encoder_source.startswith("conv_encoder:make sha256:")
    assert torch.equal(model.state_dict()["encoder.module.stem.bias"], torch.full((12,), 3.0))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (
            "conv_encodr:make",
            r"conv_encodr cannot be imported \(No module named 'conv_encodr'\); is it on PYTHONPATH\?",
        ),
        ("conv_encoder:mak", "conv_encoder has no mak; did you mean make"),
        ("conv_encoder:", "neither timm:NAME nor package.module:factory"),
        (":make", "neither timm:NAME nor package.module:factory"),
        ("conv_encoder:no_factory", "no_factory is a int, not a function"),
        ("conv_encoder:a_list", "made a list, not a torch.nn.Module"),
        ("conv_encoder:flat", r"std = \(0.5, 0.0, 0.5\) must be positive"),
        ("conv_encoder:bare", "mean = None must be three numbers"),
        ("conv_encoder:named", "patch = '8' must be a positive whole number"),
    ],
)
def test_what_is_no_encoder_is_named(conv_encoder: str, reference: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"encoder .*{message}"):
        FlowFeat.create(reference, init="random")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("wide", r"gave low as \[2, 12, 4, 6\]; for images of 32x48 .* patch 8 and width 13 promise \[2, 13, 4, 6\]"),
        ("three", "gave 3 maps, but the decoder takes four"),
        ("single", r"must give \(low, \(four maps\)\), not \[2, 3, 32, 48\]"),
    ],
)
def test_other_shapes_than_promised_are_named(conv_encoder: str, factory: str, message: str) -> None:
    model = FlowFeat.create(f"conv_encoder:{factory}", init="random")
    with pytest.raises(ValueError, match=f"encoder conv_encoder:{factory} {message}"):
        model(PIXELS)


def test_our_own_vit_keeps_the_same_promise(conv_encoder: str) -> None:
    ours = FlowFeat.create("tiny_dinov3_16", init="random").encoder
    for encoder in (ours, build_outside(conv_encoder)):
        promised: FrozenEncoder = encoder
        low, maps = promised(PIXELS)
        assert [tuple(one.shape) for one in (low, *maps)] == [
            (2, promised.width, 32 // promised.patch, 48 // promised.patch)
        ] * 5
        assert len(promised.mean) == len(promised.std) == 3
