"""timm's ViTs as encoders, against a stand-in for timm with the functions that are used."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.outside_fixtures import FakeViT, fake_timm
from trainer import FlowFeat
from trainer.model_file import export_model
from trainer.outside_encoder import OutsideEncoder

__all__ = ["fake_timm"]
NAME = "timm:vit_fake_patch8"


def test_four_blocks_at_every_quarter_without_prefix_tokens(fake_timm: list[dict[str, Any]]) -> None:
    model = FlowFeat.create(NAME, init="random", seed=2)
    assert fake_timm == [{"name": "vit_fake_patch8", "pretrained": False, "dynamic_img_size": True}]
    assert isinstance(model.encoder, OutsideEncoder) and isinstance(model.encoder.module.model, FakeViT)
    vit = model.encoder.module.model
    seen: list[torch.Tensor] = []
    for number in (1, 3, 5, 7):
        vit.blocks[number].register_forward_hook(lambda module, given, tokens: seen.append(tokens))
    images = torch.rand(2, 3, 16, 48)  # as the model takes them: mean and deviation 0.5
    imagenet = (images * 0.5 + 0.5 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    encoded = model.encode(imagenet)
    assert len(seen) == 4
    for tokens, found in zip(seen, encoded.maps_bdhw, strict=True):
        assert torch.equal(found, tokens[:, 2:].unflatten(1, (2, 6)).permute(0, 3, 1, 2))
    assert torch.equal(encoded.low_bdhw, vit.norm(seen[3])[:, 2:].unflatten(1, (2, 6)).permute(0, 3, 1, 2))
    seen.clear()
    vit.forward_intermediates(images, [7])
    directly = seen[3][:, 2:].unflatten(1, (2, 6)).permute(0, 3, 1, 2)
    torch.testing.assert_close(directly, encoded.maps_bdhw[3], rtol=0, atol=1e-4)
    low, high = model(imagenet)
    assert low.shape == (2, 24, 2, 6) and high.shape == (2, 128, 16, 48) and model.size_multiple == 16


def test_published_weights_tell_their_licence(
    fake_timm: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model = FlowFeat.create(NAME, init="pretrained")
    assert fake_timm[-1]["pretrained"] and "timm:vit_fake_patch8: licence mit" in caplog.text
    assert model.encoder_licence == "mit" and model.encoder_source.startswith(f"{NAME} sha256:")


def test_files_as_timm_publishes_them_and_models_that_travel(fake_timm: list[dict[str, Any]], tmp_path: Path) -> None:
    """A published file has a classifier, which is left out; timm's names need no permission."""
    published = FakeViT(10).state_dict()
    assert "head.weight" in published
    torch.save(published, tmp_path / "timm.pth")
    model = FlowFeat.create(NAME, init=tmp_path / "timm.pth")
    assert torch.equal(model.state_dict()["encoder.module.model.prefix"], published["prefix"])
    export_model(model, tmp_path / "m.safetensors")
    loaded = FlowFeat.from_pretrained(tmp_path / "m.safetensors")
    images = torch.rand(1, 3, 32, 32)
    assert loaded.variant == NAME and torch.equal(loaded(images)[1], model(images)[1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_fake_patch9", "timm has no model 'vit_fake_patch9'; did you mean vit_fake_patch8"),
        ("resnet_fake", "resnet_fake does not take images of any size .*choose a plain ViT"),
        ("swin_fake", r"swin_fake is no plain ViT \(it has no blocks\)"),
        ("vit_oblong", "patches of 8x4"),
        ("vit_short", "3 blocks"),
    ],
)
def test_what_is_no_plain_vit_is_refused(fake_timm: list[dict[str, Any]], name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FlowFeat.create(f"timm:{name}", init="random")


def test_missing_weights_and_a_missing_timm_are_one_line(
    fake_timm: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="timm could not make vit_short: No pretrained weights exist"):
        FlowFeat.create("timm:vit_short", init="pretrained")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"needs the package timm .*pip install 'flowfeat-shards\[timm\]'"):
        FlowFeat.create(NAME, init="random")
