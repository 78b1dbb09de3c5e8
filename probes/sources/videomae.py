"""VideoMAE as a source, through the `transformers` extra: a picture in, repeated as a clip, tokens averaged over time out.

The published models take 16 frames of 224x224 pixels and give tokens of tubelets [b, t/2 * g * f, c], time outermost. A picture is
brought to that size, shown in every frame, and its tokens are averaged over time, so that the grid is 14x14 whatever the
picture's size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from probes.sources.adapter import Call, as_source
from probes.sources.features import Source
from probes.sources.flowfeat import Checkpoint

NAME = "videomae"
REPOSITORY = "MCG-NJU/videomae-base"
LICENCE = "CC-BY-NC-4.0"


class Sizes(Protocol):
    """What is read of a VideoMAEConfig."""

    patch_size: int
    image_size: int
    num_frames: int
    tubelet_size: int


class VideoMaeTokens(nn.Module):
    """A transformers VideoMAEModel that takes pictures."""

    def __init__(self, model: nn.Module, config: Sizes) -> None:
        super().__init__()
        self.model = model
        self.patch_size: int = config.patch_size
        self.side_px: int = config.image_size
        self.frames: int = config.num_frames
        self.tubelets: int = config.num_frames // config.tubelet_size

    def forward(self, images_bchw: Tensor) -> Tensor:
        """[b, 3, s, s] normalised → [b, c, s / patch, s / patch]."""
        clips_btchw = images_bchw[:, None].expand(-1, self.frames, -1, -1, -1)
        tokens_bnc = self.model(pixel_values=clips_btchw).last_hidden_state
        side = self.side_px // self.patch_size
        mean_bnc: Tensor = tokens_bnc.unflatten(1, (self.tubelets, side * side)).mean(dim=1)
        return mean_bnc.transpose(1, 2).unflatten(2, (side, side))


def videomae(checkpoint: Checkpoint, name: str) -> Source:
    """The source. Raises ValueError without the extra, and where the weights are not here and may not be fetched."""
    try:
        from transformers import VideoMAEModel  # heavy, and an extra
    except ImportError as error:
        raise ValueError(
            f"{name} needs transformers ({error.name or error}): pip install 'flowfeat-shards[videomae]'"
        ) from error
    origin: str | Path = checkpoint.request.weights_of(name) or REPOSITORY
    try:
        model = VideoMAEModel.from_pretrained(origin, local_files_only=not checkpoint.request.allow_download)
    except OSError as error:
        raise ValueError(
            f"{name}: {REPOSITORY} ({LICENCE}) is not here: --allow-download fetches it, or give its folder as "
            f"--hub-weights {name}=DIR"
        ) from error
    tokens = VideoMaeTokens(model, model.config)
    call = Call(patch=tokens.patch_size, side_px=tokens.side_px)
    return as_source(name, tokens, call, checkpoint.encoder, checkpoint.model)
