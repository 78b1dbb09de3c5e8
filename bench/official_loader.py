"""The work per sample of the official code's data set: two full frames are decoded, resized and cropped (no flow, no views).

Frames of a folder of videos come in, pairs at an offset of up to two; per frame goes out what the official data path hands on:
the normalised 448 crop that views are cut from, and the 224 copy that the flow network reads. The steps are those of the published
code as the reference describes them: PIL, shorter side to 448 (bilinear, antialiased), centre crop, to float, normalise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

SIDE, FLOW_SIDE, REACH = 448, 224, 2
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class FramePairs(Dataset[tuple[Tensor, ...]]):
    """One random pair of frames per item; an epoch never ends as far as a bench is concerned."""

    def __init__(self, root: Path, seed: int = 0) -> None:
        """root: holds a folder of *.jpg frames per video, at any depth."""
        folders = sorted({path.parent for path in root.rglob("*.jpg")})
        self.videos = [sorted(folder.glob("*.jpg")) for folder in folders]
        self.videos = [frames for frames in self.videos if len(frames) >= 10]
        if not self.videos:
            raise ValueError(f"no video of at least 10 *.jpg frames under {root}")
        self.seed = seed

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        draw = np.random.default_rng([self.seed, index])
        frames = self.videos[int(draw.integers(len(self.videos)))]
        anchor = int(draw.integers(REACH, len(frames) - REACH))
        neighbour = anchor + int(draw.choice([-2, -1, 1, 2]))
        return (*_frame(frames[anchor]), *_frame(frames[neighbour]))


def _frame(path: Path) -> tuple[Tensor, Tensor]:
    image = Image.open(path).convert("RGB")
    scale = SIDE / min(image.size)
    image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    crop = image.crop((left, top, left + SIDE, top + SIDE))
    small = crop.resize((FLOW_SIDE, FLOW_SIDE), Image.Resampling.BILINEAR)
    return _normalised(crop), _normalised(small)


def _normalised(image: Image.Image) -> Tensor:
    values = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
    return (values - MEAN) / STD


def official_batches(root: Path, batch: int, workers: int) -> DataLoader[Any]:
    """Batches as torch's DataLoader collates them."""
    return DataLoader(FramePairs(root), batch_size=batch, num_workers=workers, drop_last=True)


def enlarged_copy(root: Path, out: Path, height: int, videos: int = 4) -> Path:
    """The first frames of some videos resized to `height`, as JPEG of quality 90: frames of the size of YouTube-VOS (720)."""
    for folder in sorted({path.parent for path in root.rglob("*.jpg")})[:videos]:
        for path in sorted(folder.glob("*.jpg"))[:12]:
            image = Image.open(path).convert("RGB")
            size = (round(image.width * height / image.height), height)
            (out / folder.name).mkdir(parents=True, exist_ok=True)
            image.resize(size, Image.Resampling.BICUBIC).save(out / folder.name / path.name, quality=90)
    return out
