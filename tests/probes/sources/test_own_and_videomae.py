"""A user's own module as a source, and VideoMAE: a tiny model of random weights where transformers is installed, a stand-in always."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from probes.sources.adapter import Call, as_source
from probes.sources.features import Features, Source, features_of
from probes.sources.flowfeat import Checkpoint
from probes.sources.table import check_names, create_sources
from probes.sources.videomae import VideoMaeTokens, videomae
from trainer import FlowFeat

OWN = """
from torch import nn
import torch


class Dense(nn.Module):
    size_multiple = 4

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 5, 1)

    def forward(self, x):
        return self.layer(x)


class Both(nn.Module):
    normalisation = "unit"
    def forward(self, x):
        assert 0 <= float(x.min()) and float(x.max()) <= 1
        return nn.functional.avg_pool2d(x, 8), x

class Wide(nn.Module):
    def forward(self, x):
        return x.new_ones(len(x), x.shape[-1], 2, 2)

class Wrong(nn.Module):
    normalisation = "mine"

class Three(nn.Module):
    def forward(self, x):
        return x, x, x

def raises():
    raise RuntimeError("no weights\\nat all")

tokens = lambda: nn.Conv2d(3, 7, 16, 16)
seven = lambda: 7
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_networks.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    return "my_networks"


def _features(source: Source, width: int = 48) -> Features:
    images = torch.randint(0, 256, (2, 32, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ((_, features),) = features_of([source], images)
    return features


def _one(name: str, checkpoint: Checkpoint) -> Source:
    (source,) = create_sources([name], checkpoint)
    return source


def test_a_users_module_is_a_source(own: str, tiny_checkpoint: Checkpoint) -> None:
    assert check_names([f"{own}:tokens", "encoder"]) == ["encoder", f"{own}:tokens"]
    tokens = _features(_one(f"{own}:tokens", tiny_checkpoint))
    assert tokens.low_bdgf.shape == (2, 7, 2, 3) and tokens.high_bkhw is None
    source = _one(f"{own}:Dense", tiny_checkpoint)
    assert source.encoder.size_multiple == 4 and source.foreign
    dense = _features(source)
    assert dense.high_bkhw is not None and dense.high_bkhw.shape == (2, 5, 32, 48) and dense.dense_alone
    assert dense.low_bdgf.shape == (2, 5, 2, 3), "means of its map for probes of tokens"
    both = _features(_one(f"{own}:Both", tiny_checkpoint))
    assert both.high_bkhw is not None and both.low_bdgf.shape == (2, 3, 4, 6) and not both.dense_alone


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no_such_thing:make", "there is no module 'no_such_thing'"),
        ("my_networks:dense", "has no 'dense'; did you mean Dense"),
        ("my_networks:raises", "cannot be made: RuntimeError: no weights$"),
        ("my_networks:seven", "is a int instead of an nn.Module"),
        ("my_networks:Wrong", "normalisation 'mine' must be"),
        ("my_networks:Three", "gives a tuple of 3 instead of two maps"),
    ],
)
def test_what_is_wrong_with_it_is_named(own: str, tiny_checkpoint: Checkpoint, what: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        _features(_one(what, tiny_checkpoint))
    assert what in str(error.value) or "no_such_thing" in str(error.value)


def test_channels_that_change_from_picture_to_picture_are_named(own: str, tiny_checkpoint: Checkpoint) -> None:
    source = _one(f"{own}:Wide", tiny_checkpoint)
    _features(source)
    with pytest.raises(ValueError, match="my_networks:Wide gives 64 channels, and 48 for other pictures"):
        _features(source, width=64)


class StandIn(nn.Module):
    """Tokens of a video model: each tubelet's mean colour per patch, plus its place in time."""

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        patches = pixel_values.unfold(3, 8, 8).unfold(4, 8, 8).mean(dim=(-1, -2))  # b t c g f
        tubelets = patches.unflatten(1, (2, 2)).mean(dim=2) + torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1, 1)
        return SimpleNamespace(last_hidden_state=tubelets.permute(0, 1, 3, 4, 2).flatten(1, 3))


def test_videomae_sees_a_picture_as_a_clip(tiny_checkpoint: Checkpoint, tiny: FlowFeat) -> None:
    sizes = SimpleNamespace(patch_size=8, image_size=16, num_frames=4, tubelet_size=2)
    tokens = VideoMaeTokens(StandIn(), sizes)
    source = as_source("videomae", tokens, Call(patch=8, side_px=16), tiny_checkpoint.encoder, tiny)
    assert source.encoder.size_multiple == 1
    features = _features(source)
    assert features.low_bdgf.shape == (2, 3, 2, 2) and features.high_bkhw is None
    encoding = source.encoder.encode(torch.full((1, 40, 24, 3), 255, dtype=torch.uint8))
    white = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(encoding.low_bdgf[0, :, 0, 0], white, atol=1e-5), "in its places, the mean over time"


def test_videomae_says_what_it_lacks(
    tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"videomae needs transformers .*\[videomae\]"):
        _one("videomae", tiny_checkpoint)

    class Missing:
        @staticmethod
        def from_pretrained(origin: object, local_files_only: bool) -> None:
            assert local_files_only
            raise OSError(f"{origin} is not cached")

    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(VideoMAEModel=Missing))
    with pytest.raises(ValueError, match=r"MCG-NJU/videomae-base \(CC-BY-NC-4.0\) is not here: --allow-download"):
        _one("videomae", tiny_checkpoint)


def test_a_real_videomae_of_random_weights(tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the videomae extra is not installed")
    config = transformers.VideoMAEConfig(
        image_size=32, patch_size=16, num_frames=4, hidden_size=24, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=24,
    )  # fmt: skip
    transformers.VideoMAEModel(config).save_pretrained(tmp_path)
    asked = replace(tiny_checkpoint, request=replace(tiny_checkpoint.request, weights={"videomae": tmp_path}))
    source = videomae(asked, "videomae")
    assert _features(source).low_bdgf.shape == (2, 24, 2, 2)
