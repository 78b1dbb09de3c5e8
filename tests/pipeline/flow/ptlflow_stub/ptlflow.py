"""A package with the interface of ptlflow 0.4.2, and models whose flow can be said beforehand.

Flow of `shift` is gain · iters · (mean of the second picture - mean of the first): dx of blue, dy of red, so that the order of the
channels, their range and the order of the frames all show.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jsonargparse import Namespace
from torch import Tensor, nn

__version__ = "0.4.2"


class shift(nn.Module):
    pretrained_checkpoints: ClassVar[dict[str, str]] = {
        "things": "https://example.org/weights1/shift-things-00c0ffee.ckpt",
        "plain": "https://example.org/plain.ckpt",
    }

    def __init__(self, iters: int = 1, scale: int = 1) -> None:
        super().__init__()
        print("remarks of a model")
        self.iters, self.scale = iters, scale
        self.gain = nn.Parameter(torch.rand(1))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)
        self.seen: list[tuple[int, ...]] = []
        self.lowest, self.highest, self.autocast = 9.0, -9.0, False
        self.train_size: tuple[int, ...] | None = None
        self.extra: dict[str, float] = {}

    def add_extra_param(self, name: str, value: float) -> None:
        self.extra[name] = value

    def between(self, images: Tensor, first: int, second: int) -> Tensor:
        mean = images.mean(dim=(-1, -2))
        moved = (mean[:, second] - mean[:, first])[:, [0, 2]]
        return self.gain * self.iters * moved[:, None, :, None, None].expand(-1, 1, 2, *images.shape[-2:])

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        images = inputs["images"]
        assert not self.training and images.shape[1] == 2
        self.seen.append(tuple(images.shape))
        self.lowest, self.highest = min(self.lowest, images.min().item()), max(self.highest, images.max().item())
        self.autocast = torch.is_autocast_enabled(images.device.type)
        return {"flows": self.between(images, 0, 1)}


class memfof(shift):
    """Three frames: flow from the middle to the last, and as much of the way from the first in dy as tells that it was there."""

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        images = inputs["images"]
        self.seen.append(tuple(images.shape))
        ahead, behind = self.between(images, 1, 2), self.between(images, 1, 0)
        return {"flows": torch.cat([ahead[:, :, :1], behind[:, :, 1:]], dim=2)}


class coarse(shift):
    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"flows": self.between(inputs["images"][..., ::2, ::2], 0, 1)}


class several(shift):
    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"flows": self.between(inputs["images"], 0, 1).repeat(1, 3, 1, 1, 1)}


class nameless(shift):
    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"flow": inputs["images"]}


class overflows(shift):
    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"flows": self.between(inputs["images"], 0, 1) / 0}


class crashes(shift):
    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        raise IndexError("index 2 is out of bounds\nfor dimension 1 with size 2")


class large(shift):
    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        found = super().forward(inputs)
        if inputs["images"].shape[-1] < 200:
            raise RuntimeError("Input and output sizes should be greater than 0")
        return found


class backbone(shift):
    def __init__(self, iters: int = 1) -> None:
        raise OSError("urlopen error: Name or service not known")


class splatflow(shift):
    def __init__(self, iters: int = 1) -> None:
        raise ModuleNotFoundError("Problem with given class_path 'splatflow':\n  No module named 'cupy'")


class streamflow(shift):
    pass


class memflow(shift):
    pass


_MODELS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (
        shift,
        memfof,
        coarse,
        several,
        nameless,
        overflows,
        crashes,
        large,
        backbone,
        splatflow,
        streamflow,
        memflow,
    )
}


def get_model_names() -> list[str]:
    return sorted(_MODELS)


def get_model_reference(model_name: str) -> type[nn.Module]:
    return _MODELS[model_name]


def get_model(model_name: str, ckpt_path: str | None = None, args: Namespace | None = None) -> nn.Module:
    arguments = {} if args is None else dict(vars(args["model"]))
    if model_name in ("backbone", "splatflow"):
        arguments.pop("scale", None)
    return restore_model(_MODELS[model_name](**arguments), ckpt_path)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def restore_model(model: nn.Module, ckpt_path: str | None) -> nn.Module:
    if ckpt_path is not None:
        model.load_state_dict(torch.load(ckpt_path, map_location=_device(), weights_only=True)["state_dict"])
    return model
