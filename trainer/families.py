"""Families of vision transformers: one object each says all in which they differ, and `FAMILIES` is the table of them.

`trainer.encoder` builds a network by its family's tokens, branches and position rule, `trainer.encoder_file` and
`trainer.model_file` tell files apart by its sign, `trainer.encoder_weights` knows its URLs and licence. A new family is one
more entry here and its variants in `trainer.encoder_table.ENCODERS`.

Shape legend: r x c the stored grid of positions, gh x gw the wanted one, D width, P rows of positions (CLS + r*c).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Grid = tuple[int, int]
Recognise = Callable[[Mapping[str, Any], Mapping[str, Tensor]], str | None]
"""(the file's top-level dict, its encoder tensors) -> what shows that it is of the family, or None."""


@dataclass(frozen=True)
class Family:
    """What distinguishes a family.

    title, licence: of the published weights. urls: published file by variant. recognise: see `Recognise`.
    resize: brings a position table [1, D, r, c] float32 to (gh, gw); None: no table, positions are rotary
    (`trainer.rotary`). fixed_positions: the table [1, P, D] of (grid, D)
    where it is computed, None where it is learned. grid_of: the layouts that a stored table [P, D] can have, for families
    whose files carry the grid they were trained with; None: one square grid, always. layer_scale: residual branches have
    learned factors. extra_tokens: tokens between CLS and patches, without positions, by parameter name. unused: parameters
    in the file that the forward pass does not use, [1, D]. training_only: beginnings of keys that a published file may
    hold beside the encoder. masked_bias: the files hold a factor per bias of the fused projection, and the keys' is zero.
    norm_eps: of every LayerNorm. request: where the files are asked for, if their addresses do not give them to everybody.
    """

    name: str
    title: str
    licence: str
    recognise: Recognise
    resize: Callable[[Tensor, Grid], Tensor] | None
    urls: Mapping[str, str] = field(default_factory=dict)
    fixed_positions: Callable[[Grid, int], Tensor] | None = None
    grid_of: Callable[[Tensor], list[Grid]] | None = None
    layer_scale: bool = False
    extra_tokens: Mapping[str, int] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    training_only: tuple[str, ...] = ()
    masked_bias: bool = False
    norm_eps: float = 1e-6
    request: str = ""

    @property
    def rotary(self) -> bool:
        """Positions turn queries and keys instead of being added to tokens."""
        return self.resize is None

    @property
    def prefix_tokens(self) -> int:
        """Tokens before the patches: CLS and the extra ones."""
        return 1 + sum(self.extra_tokens.values())

    @property
    def marks(self) -> frozenset[str]:
        """Keys of an encoder's tensors that not every family has."""
        scaled, rotary = ["blocks.0.ls1.gamma"] * self.layer_scale, ["rope_embed.periods"] * self.rotary
        return frozenset({*self.extra_tokens, *scaled, *rotary})

    @property
    def non_commercial(self) -> bool:
        return "-NC" in self.licence


def family_of(name: str) -> Family:
    """The family of that name. Raises ValueError for an unknown one."""
    if name not in FAMILIES:
        raise ValueError(f"encoder family {name!r} is unknown; known: {', '.join(sorted(FAMILIES))}")
    return FAMILIES[name]


def family_of_variant(variant: str) -> Family | None:
    """The family that publishes weights for a variant."""
    return next((family for family in FAMILIES.values() if variant in family.urls), None)


def recognised(payload: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[Family, str]:
    """The family of a file and what shows it. The last entry of the table is asked first; the first, DINO, takes the rest."""
    for family in reversed(FAMILIES.values()):
        sign = family.recognise(payload, tensors)
        if sign is not None:
            return family, sign
    raise ValueError("no family recognises this file")


# --- position rules --------------------------------------------------------------------------------------------------


def resize_by_factor(table_1drc: Tensor, grid: Grid) -> Tensor:
    """DINO and DINOv2: bicubic by the explicit factors (g + 0.1)/M, whose sampling positions differ from those of a target
    size, without antialiasing."""
    rows, columns = table_1drc.shape[-2:]
    factors = ((grid[0] + 0.1) / rows, (grid[1] + 0.1) / columns)
    return F.interpolate(
        table_1drc, scale_factor=factors, mode="bicubic", align_corners=False, recompute_scale_factor=False
    )


def resize_to_size(table_1drc: Tensor, grid: Grid) -> Tensor:
    """MAE and DINOv2 with registers: bicubic to the target size with antialiasing."""
    return F.interpolate(table_1drc, size=grid, mode="bicubic", align_corners=False, antialias=True)


def sincos_positions(grid: Grid, dim: int) -> Tensor:
    """MAE's fixed table [1, 1 + rows*columns, dim]: half the channels code the column, half the row; CLS is zero."""
    omega = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    ys, xs = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in grid), indexing="ij")
    angles = [axis.flatten()[:, None] * omega for axis in (xs, ys)]
    patches = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)
    return torch.cat((torch.zeros(1, dim, dtype=torch.float64), patches))[None].float()


def sincos_grids(position_pd: Tensor) -> list[Grid]:
    """The layouts r x c that a sin-cos table [P, D] (resized or not) can have: its first half of channels must be equal down
    every column, the second half along every row. One layout for a true table, none for a learned or random one."""
    patches = position_pd[1:].float()
    count, half = len(patches), patches.shape[1] // 2
    if not count or not patches.any():
        return []
    fitting = []
    for rows in (r for r in range(1, count + 1) if count % r == 0):
        by_column, by_row = patches.unflatten(0, (rows, count // rows)).split([half, patches.shape[1] - half], dim=2)
        deviations = (by_column - by_column[:1]).abs().max(), (by_row - by_row[:, :1]).abs().max()
        if max(float(d) for d in deviations) < SINCOS_TOLERANCE:
            fitting.append((rows, count // rows))
    return fitting


SINCOS_TOLERANCE = 0.01  # of waves between -1 and 1: above bfloat16's rounding, far below the step between neighbours

# --- signs -----------------------------------------------------------------------------------------------------------


def _has_layer_scale(payload: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str | None:
    return "it has LayerScale" if any(key.endswith(".gamma") for key in tensors) else None


def _has_registers(payload: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str | None:
    return "it has register tokens" if "register_tokens" in tensors else None


def _is_rotary(payload: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str | None:
    return "its positions are rotary" if "rope_embed.periods" in tensors else None


def _is_mae(payload: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str | None:
    """The fixed position table has a zero row for CLS, which no learned one has; the published files are nested."""
    position = tensors.get("pos_embed")
    if position is not None and position.ndim == 3 and not position[0, 0].any():
        return "its position embedding is fixed"
    return 'its tensors are nested under "model"' if isinstance(payload.get("model"), Mapping) else None


def _is_plain(payload: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str | None:
    return "it is a flat file without LayerScale and with a learned position embedding"


_HOST = "https://dl.fbaipublicfiles.com"

DINO = Family(
    "dino",
    "DINO",
    "Apache-2.0",
    _is_plain,
    resize_by_factor,
    urls={
        "dino_vits16": f"{_HOST}/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth",
        "dino_vitb16": f"{_HOST}/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
    },
)
MAE = Family(
    "mae",
    "MAE",
    "CC-BY-NC-4.0",
    _is_mae,
    resize_to_size,
    urls={
        "mae_vitb16": f"{_HOST}/mae/pretrain/mae_pretrain_vit_base.pth",
        "mae_vitl16": f"{_HOST}/mae/pretrain/mae_pretrain_vit_large.pth",
    },
    fixed_positions=sincos_positions,
    grid_of=sincos_grids,
    training_only=("decoder_", "mask_token"),  # the full pre-training file also holds the reconstruction decoder
)
DINOV2 = Family(
    "dinov2",
    "DINOv2",
    "Apache-2.0",
    _has_layer_scale,
    resize_by_factor,
    urls={f"dinov2_vit{s}14": f"{_HOST}/dinov2/dinov2_vit{s}14/dinov2_vit{s}14_pretrain.pth" for s in "sbl"},
    layer_scale=True,
    unused=("mask_token",),
)
DINOV2_REG = replace(
    DINOV2,
    name="dinov2_reg",
    title="DINOv2 with registers",
    recognise=_has_registers,
    resize=resize_to_size,
    urls={f"dinov2_vit{s}14_reg": f"{_HOST}/dinov2/dinov2_vit{s}14/dinov2_vit{s}14_reg4_pretrain.pth" for s in "sbl"},
    extra_tokens={"register_tokens": 4},
)
DINOV3 = Family(
    "dinov3",
    "DINOv3",
    "DINOv3 License",
    _is_rotary,
    None,
    urls={
        f"dinov3_vit{s}16": f"{_HOST}/dinov3/dinov3_vit{s}16/dinov3_vit{s}16_pretrain_lvd1689m-{start_of_sha256}.pth"
        for s, start_of_sha256 in (("s", "08c60483"), ("b", "73cec8be"), ("l", "8aa4cbdd"))
    },
    layer_scale=True,
    extra_tokens={"storage_tokens": 4},
    unused=("mask_token",),
    training_only=("local_cls_norm.",),  # ViT-L on satellite images: a norm of small crops
    masked_bias=True,
    norm_eps=1e-5,
    request="https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/",
)
FAMILIES: dict[str, Family] = {family.name: family for family in (DINO, MAE, DINOV2, DINOV2_REG, DINOV3)}
