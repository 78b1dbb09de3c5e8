"""ONNX files: any size agrees with the plain call, positions above all; what the file says of itself; what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner

from tests.trainer.outside_fixtures import FakeViT, conv_encoder, fake_timm
from trainer import ENCODERS, FlowFeat, onnx_export
from trainer.cli import main
from trainer.encoder import FrozenViT
from trainer.families import FAMILIES
from trainer.model_file import export_model
from trainer.onnx_export import TOLERANCE, export_onnx
from trainer.onnx_positions import ResizableViT

pytest.importorskip("onnx", reason="the extra onnx is not installed")
runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
__all__ = ["conv_encoder", "fake_timm"]
VARIANTS = ("tiny_dino8", "tiny_dinov2_14", "tiny_dinov2_reg14", "tiny_dinov3_16", "tiny_mae16")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def strong_positions(variant: str) -> FlowFeat:
    """Random weights whose positions weigh as much as the picture, so that a wrong one shows."""
    model = FlowFeat.create(variant, init="random", seed=1).eval()
    if isinstance(model.encoder, FrozenViT) and not model.encoder.spec.rules.rotary:
        with torch.no_grad():
            model.encoder.pos_embed.normal_(0, 1, generator=torch.Generator().manual_seed(2))
    return model


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_family_agrees_at_sizes_other_than_the_traced_one(variant: str, tmp_path: Path) -> None:
    model = strong_positions(variant)
    path = tmp_path / "m.onnx"
    found = export_onnx(model, path, name="tiny", licence="none")
    assert len(found) >= 3 and all(one.relative < 1e-5 for one in found)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    step = model.size_multiple
    for batch, rows, columns in ((1, 1, 1), (2, 3, 4), (4, 2, 7), (1, 6, 6)):
        images = torch.randn(batch, 3, rows * step, columns * step)
        low, high = (torch.from_numpy(one) for one in session.run(None, {"images": images.numpy()}))
        wanted_low, wanted_high = model(images)
        torch.testing.assert_close(low, wanted_low, rtol=0, atol=TOLERANCE / 10 * float(wanted_low.abs().max()))
        torch.testing.assert_close(high, wanted_high, rtol=0, atol=TOLERANCE / 10 * float(wanted_high.abs().max()))
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    assert [one.shape for one in session.get_outputs()] == [
        ["batch", 48, "rows", "columns"],
        ["batch", 16, "height", "width"],
    ]


@pytest.mark.parametrize("variant", ["tiny_dino8", "tiny_dinov2_14", "tiny_dinov2_reg14", "tiny_mae16"])
def test_positions_by_matrices_are_the_familys_own(variant: str) -> None:
    """Smaller, larger, the stored grid, and grids that fit it along one side only."""
    vit = strong_positions(variant).encoder
    assert isinstance(vit, FrozenViT)
    twin = ResizableViT(vit.spec)
    twin.load_state_dict(vit.state_dict())
    rows, columns = vit.spec.grid
    for grid in ((rows, columns), (rows, 3), (2, columns), (1, 1), (2, 4), (9, 16), (rows + 1, columns - 1)):
        torch.testing.assert_close(twin.position_for(*grid), vit.position_for(*grid), rtol=0, atol=2e-5)
    torch.testing.assert_close(twin.position_for(rows, columns), vit.pos_embed, rtol=0, atol=0)


def test_the_command_writes_what_a_user_must_know(tmp_path: Path) -> None:
    import onnx

    model = FlowFeat.create("tiny_mae16", init="random")
    export_model(model, tmp_path / "mine.safetensors")
    done = CliRunner().invoke(
        main, ["export-onnx", str(tmp_path / "mine.safetensors"), "--out", str(tmp_path / "m.onnx")]
    )
    assert done.exit_code == 0, done.output
    assert "checked at 4 sizes, tolerance 0.0001; sides in multiples of 32" in done.output
    held = {entry.key: entry.value for entry in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert held["name"] == "mine" and held["encoder"] == "tiny_mae16" and held["encoder_source"] == "random:0"
    assert held["licence"] == "none (random weights)" and (held["patch"], held["size_multiple"]) == ("16", "32")
    assert json.loads(held["mean"]) == [0.485, 0.456, 0.406] and json.loads(held["std"]) == [0.229, 0.224, 0.225]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "mine.safetensors"]

    for arguments, message in (
        (["dinov2_vits14_y", "--out", str(tmp_path / "n.onnx")], "did you mean dinov2_vits14_yt"),
        (["mine.safetensors", "--out", str(tmp_path / "n.pb")], "name it .onnx"),
    ):
        refused = CliRunner().invoke(main, ["export-onnx", *arguments])
        assert refused.exit_code == 1 and message in refused.output


def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions of the traced grid for every size: what a plain trace would have given."""
    monkeypatch.setattr(
        ResizableViT, "position_for", lambda vit, gh, gw: F.pad(vit.pos_embed[:, :25], (0, 0, 0, gh * gw - 24))
    )
    with pytest.raises(
        ValueError, match=r"ONNX Runtime differs by .*at most 0\.0001\) for images of \[1, 3, \d+, \d+\]"
    ):
        export_onnx(strong_positions("tiny_dino8"), tmp_path / "m.onnx", name="tiny", licence="none")
    assert list(tmp_path.iterdir()) == []


def test_other_devices_rules_and_missing_packages_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(ValueError, match=r"not on cpu in torch\.bfloat16: model\.cpu\(\)\.float\(\)"):
        export_onnx(FlowFeat.create("tiny_dino8", init="random").bfloat16(), path, name="x", licence="x")
    toy = replace(FAMILIES["dino"], name="toy", title="Toy", resize=lambda table, grid: F.interpolate(table, size=grid))
    monkeypatch.setitem(FAMILIES, "toy", toy)
    with pytest.raises(ValueError, match="position rule of Toy encoders cannot be exported"):
        export_onnx(
            FlowFeat.create(replace(ENCODERS["tiny_dino8"], family="toy"), init="random"), path, name="x", licence="x"
        )
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"needs the packages onnx and onnxruntime .*flowfeat-shards\[onnx\]"):
        export_onnx(FlowFeat.create("tiny_dino8", init="random"), path, name="x", licence="x")
    assert list(tmp_path.iterdir()) == []


def test_a_module_that_is_not_ours_is_exported_and_checked_too(conv_encoder: str, tmp_path: Path) -> None:
    model = FlowFeat.create(conv_encoder, init="random", feature_dim=16).eval()
    found = export_onnx(model, tmp_path / "m.onnx", name="mine", licence="MIT")
    assert len(found) == 3 and all(one.relative < 1e-5 for one in found)


def test_one_that_cannot_take_other_sizes_is_refused(
    fake_timm: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FlowFeat.create("timm:vit_fake_patch8", init="random", feature_dim=16).eval()
    honest = onnx_export.checked_sizes(model)
    assert export_onnx(model, tmp_path / "m.onnx", name="x", licence="x")
    vit = model.encoder.get_submodule("module.model")
    assert isinstance(vit, FakeViT)
    ask = vit.forward_intermediates
    monkeypatch.setattr(vit, "forward_intermediates", lambda x, **given: ask(x + float(x.shape[-1]), **given))
    with pytest.raises(ValueError, match="cannot be exported"):
        export_onnx(model, tmp_path / "n.onnx", name="x", licence="x")
    assert honest and not (tmp_path / "n.onnx").exists()
