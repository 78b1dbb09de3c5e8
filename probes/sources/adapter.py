"""Networks of others as sources: how a module is called and what it gives is declared, what comes back is checked.

A `Call` (data, from `hub_table.py` or the rule for a user's module) and an nn.Module come in, a source goes out. An encoder,
or an upsampler with its backbone in it, is an encoder of its own; an upsampler without one stands on the checkpoint's encoder
and shares it with every other source. Wrong sizes or channels, NaN and inputs changed in place are ValueErrors that name the
source: such features would make a table that looks right and is not.

Shape legend: b pictures, c channels, n tokens, t frames, (g, f) token grid, (h, w) pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.memory import is_out_of_memory
from probes.sources.features import Encoder, Encoding, Features, Source
from trainer import FlowFeat

Order = Literal["image", "image, features", "features, image", "image, features, size"]
Normalisation = Literal["imagenet", "unit"]
Result = Literal["map", "tokens", "dense", "tokens and dense", "tokens or dense"]
DenseSize = Literal["picture", "any"]
Scalar = str | int | float | bool
Arguments = tuple[tuple[str, Scalar], ...]

USUAL_PATCH = 16
"""Of modules that say none; dense maps without tokens are averaged to this grid for probes of tokens."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Call:
    """How a network is called and what it gives.

    order: of the arguments; where features are among them, the checkpoint's encoder is the backbone. normalisation: "unit" is
    RGB from 0 to 1. patch: pixels per token; None where the module says it (`patch_size`). multiple: sides of pictures are
    multiples of it; None for the patch. side_px: pictures are brought to this square first, for networks of one size only.
    frames: 0 for [b, c, h, w], else the picture is repeated as [b, c, t, h, w]. method and arguments: what is called, ""
    for the module itself. path: indices and keys from what comes back to the tensor. result: a token map [b, c, g, f],
    tokens [b, n, c] with `prefix_tokens` before them, a dense map [b, c, h, w], or both maps; "tokens or dense" tells by size.
    tokens_module: attribute that gives the tokens of a network with its backbone in it; "" takes the means of its dense map.
    dense_size: "any" is resized bilinearly to the picture. backbones: variants whose features it was made for; () for any.
    alone: its dense map is made of the tokens alone (see `Features.dense_alone`).
    """

    order: Order = "image"
    normalisation: Normalisation = "imagenet"
    result: Result = "map"
    patch: int | None = None
    multiple: int | None = None
    prefix_tokens: int = 0
    method: str = ""
    arguments: Arguments = ()
    path: tuple[int | str, ...] = ()
    frames: int = 0
    side_px: int | None = None
    tokens_module: str = ""
    dense_size: DenseSize = "picture"
    backbones: tuple[str, ...] = ()
    alone: bool = True

    @property
    def takes_features(self) -> bool:
        return "features" in self.order


@dataclass(eq=False)
class Adapted:
    """A module under its declaration. width: channels that it gave the first time."""

    name: str
    module: nn.Module
    call: Call
    width: int | None = None

    @property
    def patch(self) -> int:
        found = self.call.patch if self.call.patch is not None else getattr(self.module, "patch_size", USUAL_PATCH)
        return int(found[0] if isinstance(found, Sequence) else found)

    def images(self, images_bhwc: Tensor) -> Tensor:
        """uint8 pictures as the module takes them, [b, 3, h, w] float32."""
        images = images_bhwc.permute(0, 3, 1, 2).float().div(255)
        if self.call.side_px is not None:
            size = (self.call.side_px, self.call.side_px)
            images = F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
        return self._normalised(images)

    def guidance(self, images_bchw: Tensor) -> Tensor:
        """ImageNet-normalised pictures of the checkpoint's encoder as the module takes them."""
        if self.call.normalisation == "imagenet":
            return images_bchw
        mean, std = _statistics(images_bchw)
        return images_bchw * std + mean

    def _normalised(self, images_bchw: Tensor) -> Tensor:
        if self.call.normalisation == "unit":
            return images_bchw
        mean, std = _statistics(images_bchw)
        return (images_bchw - mean) / std

    @torch.no_grad()
    def __call__(self, images_bchw: Tensor, features: Tensor | None = None) -> Any:
        """What the module gives, after `path`. Raises ValueError where it fails or changes its input."""
        images = images_bchw
        if self.call.frames:
            images = images_bchw[:, :, None].expand(-1, -1, self.call.frames, -1, -1).contiguous()
        given = [images] if features is None else [images, features]
        before = [one.clone() for one in given]
        function = getattr(self.module, self.call.method) if self.call.method else self.module
        try:
            result = function(*self._in_order(images, features), **dict(self.call.arguments))
        except Exception as error:
            if is_out_of_memory(error):
                raise
            sizes = ", ".join(str(list(one.shape)) for one in given)
            raise ValueError(f"{self.name} fails on {sizes}: {_first_line(error)}") from error
        if not all(torch.equal(old, new) for old, new in zip(before, given, strict=True)):
            raise ValueError(f"{self.name} changes its input in place: let it work on a copy, x = x.clone()")
        for step in self.call.path:
            try:
                if isinstance(result, Tensor):
                    raise TypeError("a tensor's first item is a picture")
                result = result[step]
            except (KeyError, IndexError, TypeError) as error:
                raise ValueError(
                    f"{self.name} gives {_kind(result)} without {step!r}: its declaration says path {self.call.path}"
                ) from error
        return result

    def _in_order(self, images: Tensor, features: Tensor | None) -> list[Any]:
        if features is None:
            return [images]
        size = (images.shape[-2], images.shape[-1])
        arguments = {"image": images, "features": features, "size": size}
        return [arguments[name] for name in self.call.order.split(", ")]

    def checked(self, result: Any, pictures: int, *, width: int | None = None) -> Tensor:
        """A map [b, c, ., .], float32. width: channels that it must have; without it, those of the first time."""
        if not isinstance(result, Tensor):
            raise ValueError(f"{self.name} gives {_kind(result)} instead of a tensor")
        if result.ndim != 4 or len(result) != pictures or not result.numel():
            raise ValueError(f"{self.name} gives {list(result.shape)} for {pictures} pictures instead of [b, c, h, w]")
        if width is not None and result.shape[1] != width:
            raise ValueError(f"{self.name} gives {result.shape[1]} channels instead of {width}")
        if not bool(result.isfinite().all()):
            raise ValueError(f"{self.name} gives NaN or infinity: are its weights intact, and its input normalised so?")
        return result.float()

    def same_width(self, map_bchw: Tensor) -> Tensor:
        self.width = self.width or map_bchw.shape[1]
        if map_bchw.shape[1] != self.width:
            raise ValueError(f"{self.name} gives {map_bchw.shape[1]} channels, and {self.width} for other pictures")
        return map_bchw

    def dense(self, map_bchw: Tensor, size_hw: tuple[int, int]) -> Tensor:
        """The dense map at the picture's size."""
        found = map_bchw.shape[-2], map_bchw.shape[-1]
        if found == size_hw:
            return map_bchw
        grid = size_hw[0] // self.patch, size_hw[1] // self.patch
        if self.call.dense_size == "picture" or found[0] < grid[0] or found[1] < grid[1]:
            wanted = f"{size_hw[0]}x{size_hw[1]}" + (" or less, no coarser than tokens" if self._any() else "")
            raise ValueError(f"{self.name} gives a map of {found[0]}x{found[1]} instead of {wanted}")
        return F.interpolate(map_bchw, size=size_hw, mode="bilinear", align_corners=False)

    def _any(self) -> bool:
        return self.call.dense_size == "any"

    def token_map(self, result: Any, images_bchw: Tensor) -> Tensor:
        """Tokens [b, c, g, f] of [b, n, c] or of a map, of the size that the patch says."""
        pictures, (height, width) = len(images_bchw), images_bchw.shape[-2:]
        g, f = height // self.patch, width // self.patch
        if self.call.result == "tokens" and isinstance(result, Tensor):
            expected = self.call.prefix_tokens + g * f
            if result.ndim != 3 or result.shape[:2] != (pictures, expected):
                told = f"[{pictures}, {expected}, c]: {self.call.prefix_tokens} and {g}x{f} of patch {self.patch}"
                raise ValueError(f"{self.name} gives {list(result.shape)} instead of tokens {told}")
            result = result[:, self.call.prefix_tokens :].transpose(1, 2).unflatten(2, (g, f))
        tokens = self.checked(result, pictures)
        if tokens.shape[-2:] != (g, f):
            found = f"{tokens.shape[-2]}x{tokens.shape[-1]}"
            raise ValueError(
                f"{self.name} gives a grid of {found} for {height}x{width} pixels instead of {g}x{f} (patch {self.patch})"
            )
        return self.same_width(tokens)


@dataclass(frozen=True)
class BothMaps(Encoding):
    """Of a network that gives tokens and a dense map of its own, which does not stand for them."""


@dataclass(frozen=True, eq=False)
class ModuleEncoder:
    """An encoder, or an upsampler with its backbone in it."""

    adapted: Adapted

    @property
    def size_multiple(self) -> int:
        call = self.adapted.call
        if call.side_px is not None:
            return 1
        return call.multiple or self.adapted.patch

    def encode(self, images_bhwc: Tensor) -> Encoding:
        adapted, call = self.adapted, self.adapted.call
        images = adapted.images(images_bhwc)
        size = images.shape[-2], images.shape[-1]
        result, pictures = adapted(images), len(images)
        if call.result == "tokens or dense":
            dense = isinstance(result, Tensor) and result.ndim == 4 and result.shape[-2:] == size
            kind: Result = "tokens and dense" if isinstance(result, tuple | list) else "dense" if dense else "map"
        else:
            kind = call.result
        if kind in ("map", "tokens"):
            if call.result == "tokens or dense":
                return Encoding(images, adapted.same_width(adapted.checked(result, pictures)))
            return Encoding(images, adapted.token_map(result, images))
        if kind == "tokens and dense":
            if not isinstance(result, tuple | list) or len(result) != 2:
                raise ValueError(f"{adapted.name} gives {_kind(result)} instead of two maps, tokens and dense")
            low, high = (adapted.checked(one, pictures) for one in result)
            adapted.same_width(high)
            return BothMaps(images, low, (adapted.dense(high, size),))
        high = adapted.same_width(adapted.checked(result, pictures))
        return Encoding(images, self._tokens(images, high), (adapted.dense(high, size),))

    @torch.no_grad()
    def _tokens(self, images_bchw: Tensor, high_bchw: Tensor) -> Tensor:
        adapted = self.adapted
        if adapted.call.tokens_module:
            return adapted.checked(getattr(adapted.module, adapted.call.tokens_module)(images_bchw), len(images_bchw))
        grid = max(1, images_bchw.shape[-2] // adapted.patch), max(1, images_bchw.shape[-1] // adapted.patch)
        return F.interpolate(high_bchw, size=grid, mode="area")


def as_source(name: str, module: nn.Module, call: Call, backbone: Encoder, model: FlowFeat) -> Source:
    """The module as a source; one that takes features stands on `backbone`, the encoder of `model`.

    Raises ValueError where it was made for another backbone's features.
    """
    device = next(model.parameters()).device
    adapted = Adapted(name, module.to(device).eval().requires_grad_(False), call)
    if not call.takes_features:

        def split(encoding: Encoding) -> Features:
            high = encoding.hooked_bdgf[0] if encoding.hooked_bdgf else None
            alone = call.alone and high is not None and not isinstance(encoding, BothMaps)
            return Features(encoding.low_bdgf, high, alone)

        return Source(name, ModuleEncoder(adapted), split, modules=(module,), spec=repr(call))
    if call.backbones and model.variant not in call.backbones:
        raise ValueError(
            f"{name} upsamples features of {' or '.join(call.backbones)}, and the model's encoder is {model.variant}: "
            "leave it out, or give a model of that encoder"
        )

    def upsample(encoding: Encoding) -> Features:
        low = encoding.low_bdgf
        result = adapted(adapted.guidance(encoding.images_bchw), low)
        high = adapted.checked(result, len(low), width=low.shape[1])
        return Features(low, adapted.dense(high, encoding.size_hw), dense_alone=call.alone)

    return Source(name, backbone, upsample, modules=(model.encoder, module), spec=repr(call))


def _statistics(like: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = (like.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return mean, std


def _kind(result: object) -> str:
    if isinstance(result, Mapping):
        return f"a dictionary of {', '.join(map(str, result))}"
    return f"a {type(result).__name__}" + (f" of {len(result)}" if isinstance(result, tuple | list) else "")


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
