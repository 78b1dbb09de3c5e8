"""A hub repository as somebody might publish it, written by the tests: networks of every kind that the table declares."""

from __future__ import annotations

from pathlib import Path

from probes.sources.adapter import Arguments, Call, Order
from probes.sources.hub_table import HubEntry

HUBCONF = '''
import socket
import torch
import torch.nn.functional as F
from torch import nn

dependencies = ["torch"]


class Upsampler(nn.Module):
    """Tokens times the mean brightness of the picture, at the picture's size, in whatever order arguments come."""

    def __init__(self, order, factor=1.0, broken=""):
        super().__init__()
        self.order, self.broken = order.split(", "), broken
        self.factor = nn.Parameter(torch.tensor(float(factor)))

    def forward(self, *arguments):
        given = dict(zip(self.order, arguments, strict=True))
        image, features = given["image"], given["features"]
        size = given.get("size", image.shape[-2:])
        if image.shape[1] != 3:
            raise RuntimeError("these are no pictures")
        if self.broken == "in place":
            features.mul_(2)
        if self.broken == "image in place":
            image.add_(1)
        if self.broken == "size":
            size = (size[0] - 1, size[1])
        if self.broken == "coarse":
            size = (1, 1)
        dense = F.interpolate(features, size=size, mode="bilinear") * self.factor * image.mean()
        if self.broken == "nan":
            dense[..., 0, 0] = float("nan")
        if self.broken == "channels":
            dense = dense[:, 1:]
        if self.broken == "batch":
            dense = dense[0]
        return [dense] if self.broken == "list" else dense


class Tokens(nn.Module):
    """An encoder of one layer with everything that encoders bring along."""

    def __init__(self, patch=8, prefix=0, dim=12, frames=0):
        super().__init__()
        self.patch_size, self.prefix, self.frames = patch, prefix, frames
        self.layer = nn.Conv2d(3, dim, patch, patch)

    def map(self, x):
        if self.frames:
            assert x.ndim == 5 and x.shape[2] == self.frames and bool((x[:, :, 0] == x[:, :, -1]).all())
            x = x[:, :, 0]
        return self.layer(x)

    def get_intermediate_layers(self, x, n, reshape):
        assert (n, reshape) == (1, True)
        return (self.map(x),)

    def forward_features(self, x):
        return {"x_norm_patchtokens": self.tokens(x), "masks": None}

    def tokens(self, x):
        tokens = self.map(x).flatten(2).transpose(1, 2)
        return torch.cat([tokens.new_full((len(x), self.prefix, tokens.shape[2]), 1e3), tokens], dim=1)

    def forward(self, x, feature_fmt=None):
        if feature_fmt == "NCHW":
            assert 0 <= float(x.min()) and float(x.max()) <= 1, "this one wants plain RGB"
            return None, self.map(x)
        return self.tokens(x)


class WithBackbone(nn.Module):
    """As FeatUp: .model gives tokens, the whole twice as many."""

    def __init__(self):
        super().__init__()
        self.model = nn.Conv2d(3, 6, 8, 8)

    def forward(self, image):
        return F.interpolate(self.model(image), scale_factor=2, mode="nearest")


class Pair(nn.Module):
    """As FlowFeat: tokens and a dense map."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Conv2d(3, 6, 8, 8), nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, image):
        return self.encoder(image), self.decoder(image)


def upsampler(order, **kwargs):
    return Upsampler(order, **kwargs)


def tokens(**kwargs):
    torch.manual_seed(0)
    return Tokens(**kwargs)


def two(**kwargs):
    return tokens(**kwargs), "a predictor"


def with_backbone():
    torch.manual_seed(0)
    return WithBackbone()


def pair():
    return Pair()


def weighted(weights):
    model = Tokens()
    with torch.no_grad():
        model.layer.weight.fill_(float(open(weights).read()))
    return model


def fetching(port):
    socket.create_connection(("127.0.0.1", port), timeout=5)
    return Tokens()


def number():
    return 7
'''


def write_repository(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "hubconf.py").write_text(HUBCONF)
    return folder


def upsampler(order: Order, broken: str = "", **call: object) -> HubEntry:
    """An upsampler without a backbone, healthy or broken in a certain way."""
    arguments: Arguments = (("order", order), *((("broken", broken),) if broken else ()))
    return HubEntry("theirs", "theirs", "somebody/up", "upsampler", Call(order=order, **call), "MIT", arguments)  # type: ignore[arg-type]
