"""Encoders that are not ours: a small convolutional module as a user would write it, and the parts of timm that are used."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

CONV_ENCODER = """
import torch
from torch import nn


class ConvEncoder(nn.Module):
    patch, width = 8, 12
    mean, std = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)
    licence = "MIT"

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 8, stride=8)
        self.layers = nn.ModuleList(nn.Conv2d(12, 12, 3, padding=1) for _ in range(4))
        self.drop = nn.Dropout(0.5)
        self.seen = None

    def forward(self, images):
        self.seen = images
        x, maps = self.stem(images), []
        for layer in self.layers:
            x = x + torch.tanh(layer(self.drop(x)))
            maps.append(x)
        return x / 2, tuple(maps)


def make(*, pretrained):
    encoder = ConvEncoder()
    if pretrained:
        nn.init.constant_(encoder.stem.bias, 3.0)
    return encoder


def make_with(**attributes):
    def factory(*, pretrained):
        encoder = make(pretrained=pretrained)
        for name, value in attributes.items():
            setattr(encoder, name, value)
        return encoder
    return factory


flat = make_with(std=(0.5, 0.0, 0.5))
bare = make_with(mean=None)
wide = make_with(width=13)
named = make_with(patch="8")
three = make_with(forward=lambda x: (x, (x, x, x)))
single = make_with(forward=lambda x: x)
no_factory = 3


def a_list(*, pretrained):
    return [1]
"""


@pytest.fixture
def conv_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The reference of a user's encoder; the module is importable during the test."""
    folder = tmp_path / "python path"
    folder.mkdir()
    (folder / "conv_encoder.py").write_text(CONV_ENCODER)
    monkeypatch.syspath_prepend(str(folder))
    yield "conv_encoder:make"
    sys.modules.pop("conv_encoder", None)


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, x_bnd: Tensor) -> Tensor:
        return x_bnd + torch.tanh(self.mix(x_bnd)) + x_bnd.mean(dim=1, keepdim=True)


class FakeViT(nn.Module):
    """As timm.models.VisionTransformer answers, as far as it is asked here: 8 blocks, two prefix tokens, patch 8, width 24."""

    num_prefix_tokens = 2

    def __init__(self, num_classes: int, patch: tuple[int, int] = (8, 8), depth: int = 8) -> None:
        super().__init__()
        self.embed_dim = 24
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, 24, patch, stride=patch)
        self.patch_embed.patch_size = patch  # type: ignore[assignment]
        self.prefix = nn.Parameter(torch.randn(1, 2, 24))
        self.blocks = nn.ModuleList(_Block(24) for _ in range(depth))
        self.norm = nn.LayerNorm(24)
        self.head = nn.Linear(24, num_classes) if num_classes else nn.Identity()
        self.pretrained_cfg = {"license": "mit", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

    def forward_intermediates(
        self, x: Tensor, indices: list[int], output_fmt: str = "NCHW", norm: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        assert output_fmt == "NCHW" and not norm
        grid = (x.shape[-2] // 8, x.shape[-1] // 8)
        tokens = torch.cat(
            (
                self.prefix.expand(x.shape[0], -1, -1),
                self.patch_embed.get_submodule("proj")(x).flatten(2).transpose(1, 2),
            ),
            dim=1,
        )
        found = []
        for number, block in enumerate(self.blocks):
            tokens = block(tokens)
            if number in indices:
                found.append(tokens[:, 2:].unflatten(1, grid).permute(0, 3, 1, 2))
        return self.norm(tokens), found


@pytest.fixture
def fake_timm(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A module `timm` with five models; the list holds the arguments of every `create_model`."""
    calls: list[dict[str, Any]] = []
    known = ("vit_fake_patch8", "vit_oblong", "vit_short", "resnet_fake", "swin_fake")

    def create_model(name: str, *, pretrained: bool, num_classes: int, dynamic_img_size: bool) -> nn.Module:
        calls.append({"name": name, "pretrained": pretrained, "dynamic_img_size": dynamic_img_size})
        if name == "resnet_fake":
            raise TypeError("ResNet.__init__() got an unexpected keyword argument 'dynamic_img_size'")
        if name == "swin_fake":
            return nn.Linear(1, 1)
        if pretrained and name == "vit_short":
            raise RuntimeError("No pretrained weights exist for vit_short. Use `pretrained=False`")
        return FakeViT(num_classes, (8, 4) if name == "vit_oblong" else (8, 8), 3 if name == "vit_short" else 8)

    timm, data = ModuleType("timm"), ModuleType("timm.data")
    functions = SimpleNamespace(
        is_model=lambda name: name in known,
        list_models=lambda pattern="": [name for name in known if "vit" in name],
        create_model=create_model,
        data=data,
    )
    vars(timm).update(vars(functions))
    vars(data)["resolve_model_data_config"] = lambda model: dict(model.pretrained_cfg)
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "timm.data", data)
    return calls
