"""Miniature RGB-D data: slanted walls whose brightness is their depth, so that a picture's colours tell everything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from probes.sources.features import Encoding, Features, Source

SIDE = 48
NEAR_M, FAR_M = 1.0, 4.0
CAMERA = "60 0 31.5\n0 60 23.5\n0 0 1\n"


def slanted_wall(seed: int, width: int = 64, height: int = SIDE) -> np.ndarray:
    """Depth in metres [height, width], rising from near to far in a drawn direction."""
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:height, 0:width]
    ramp = np.cos(angle) * (x - width / 2) / width + np.sin(angle) * (y - height / 2) / height
    return NEAR_M + (FAR_M - NEAR_M) * (ramp - ramp.min()) / np.ptp(ramp)


def write_pair(picture: Path, depth: Path, depth_m: np.ndarray) -> None:
    """A grey picture and a depth PNG in millimetres; some pixels of which the sensor saw nothing."""
    grey = np.rint(255 * depth_m / FAR_M).astype(np.uint8)
    millimetres = np.rint(1000 * depth_m).astype(np.uint16)
    millimetres[0, :20], millimetres[1, :20] = 0, 65535
    for path in (picture, depth):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.repeat(grey[..., None], 3, axis=2)).save(picture)
    Image.fromarray(millimetres).save(depth)


def write_folder(root: Path, pairs: int = 10, *, camera: bool = True) -> Path:
    for index in range(pairs):
        name = f"frame-{index:03d}"
        write_pair(root / f"{name}.color.png", root / f"{name}.depth.png", slanted_wall(index))
    if camera:
        (root / "camera-intrinsics.txt").write_text(CAMERA)
    return root


class Bumps:
    """An encoder whose eight channels each answer to one range of brightness."""

    size_multiple = 16

    def encode(self, images_bhwc: torch.Tensor) -> Encoding:
        grey = images_bhwc.movedim(-1, 1)[:, :1].float() / 255
        levels = torch.linspace(0, 1, 8)[:, None, None]
        bumps = 4 * (1 - 7 * (grey - levels).abs()).clamp(min=0)
        return Encoding(bumps, torch.nn.functional.avg_pool2d(bumps, 4))


def shuffled(map_bchw: torch.Tensor) -> torch.Tensor:
    """Every pixel's feature somewhere else, another place in every picture."""
    seed = int(map_bchw.double().abs().sum() * 1000)
    order = torch.randperm(map_bchw[0, 0].numel(), generator=torch.Generator().manual_seed(seed))
    return map_bchw.flatten(2)[..., order].view_as(map_bchw)


TOKENS = Source("encoder", Bumps(), lambda encoding: Features(encoding.low_bdgf))
PIXELS = Source("flowfeat", Bumps(), lambda encoding: Features(encoding.low_bdgf, encoding.images_bchw))
SHUFFLED_TOKENS = Source("encoder", Bumps(), lambda encoding: Features(shuffled(encoding.low_bdgf)))
SHUFFLED_PIXELS = Source(
    "flowfeat", Bumps(), lambda encoding: Features(shuffled(encoding.low_bdgf), shuffled(encoding.images_bchw))
)
