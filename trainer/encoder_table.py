"""The table of encoders: the shapes of every variant by name, and what fixes them.

`trainer.encoder` builds a network from a spec, `trainer.encoder_file` and `trainer.model_file` find the spec that a file fits. What
the variants of a family have in common is an object of `trainer.families`. Encoders that are not ours are named otherwise: see
`trainer.encoder_reference`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from common.command import nearest
from trainer.families import Family, family_of


@dataclass(frozen=True)
class EncoderSpec:
    """Everything that fixes an encoder's shapes and the decoder's beside it.

    grid: token grid for which pos_embed is stored (rows, columns), the native one where positions are rotary. hooks: the
    four blocks, 0-based and rising, whose raw outputs feed the decoder. widths: the decoder's channels per level, finest
    first. feature_dim: channels of the dense features (128 in every official variant). family: a name in
    `trainer.families.FAMILIES`. Raises ValueError for values that cannot be built.
    """

    family: str
    dim: int
    depth: int
    heads: int
    patch: int
    grid: tuple[int, int]
    hooks: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    feature_dim: int = 128

    def __post_init__(self) -> None:
        rules = family_of(self.family)
        if self.dim % self.heads or self.dim % 4:
            raise ValueError(f"encoder dim {self.dim} must be a multiple of 4 and of its {self.heads} heads")
        if rules.rotary and self.dim % (4 * self.heads):
            raise ValueError(f"rotary positions take heads of a multiple of 4 channels, not {self.dim // self.heads}")
        if list(self.hooks) != sorted(set(self.hooks)) or len(self.hooks) != 4 or self.hooks[0] < 0:
            raise ValueError(f"hooks {self.hooks} must be four rising block numbers")
        if self.hooks[-1] >= self.depth:
            raise ValueError(f"hooks {self.hooks} go past the last block, {self.depth - 1}")
        if rules.grid_of is None and self.grid[0] != self.grid[1]:
            raise ValueError(f"a {self.family} position embedding is stored on a square grid, not {self.grid}")

    @property
    def rules(self) -> Family:
        """The family's object."""
        return family_of(self.family)

    @property
    def licence(self) -> str:
        """Of the family's published weights."""
        return self.rules.licence


def _base(family: str, dim: int, depth: int, patch: int, side: int, widths: tuple[int, ...] = ()) -> EncoderSpec:
    """An official variant: heads of 64 channels, hooks at every quarter of the depth (the last block of 12; DPT's 5, 11, 17, 23)."""
    quarter = depth // 4
    hooks = (quarter - 1, 2 * quarter - 1, 3 * quarter - 1, depth - 1)
    levels = cast(tuple[int, int, int, int], widths or (dim,) * 4)
    return EncoderSpec(family, dim, depth, dim // 64, patch, (side, side), hooks, levels)


def _small(
    family: str, dim: int, patch: int, side: int, widths: tuple[int, int, int, int], feature_dim: int
) -> EncoderSpec:
    """A four-block ViT for CPUs: no published weights exist, a random frozen one is what it is for."""
    return EncoderSpec(family, dim, 4, 3, patch, (side, side), (0, 1, 2, 3), widths, feature_dim)


ENCODERS: dict[str, EncoderSpec] = {
    "dino_vits16": _base("dino", 384, 12, 16, 14),
    "dino_vitb16": _base("dino", 768, 12, 16, 14),
    "dinov2_vits14": _base("dinov2", 384, 12, 14, 37),
    "dinov2_vitb14": _base("dinov2", 768, 12, 14, 37),
    "dinov2_vitl14": _base("dinov2", 1024, 24, 14, 37),
    "dinov2_vits14_reg": _base("dinov2_reg", 384, 12, 14, 37),
    "dinov2_vitb14_reg": _base("dinov2_reg", 768, 12, 14, 37),
    "dinov2_vitl14_reg": _base("dinov2_reg", 1024, 24, 14, 37),
    "dinov3_vits16": _base("dinov3", 384, 12, 16, 14),
    "dinov3_vitb16": _base("dinov3", 768, 12, 16, 14),
    "dinov3_vitl16": _base("dinov3", 1024, 24, 16, 14),
    "mae_vitb16": _base("mae", 768, 12, 16, 14, (96, 192, 384, 768)),
    "mae_vitl16": _base("mae", 1024, 24, 16, 14, (256, 512, 1024, 1024)),
    # demonstrations on a CPU, at 128x128 natively
    "demo_vit8": _small("dino", 192, 8, 16, (48, 96, 192, 192), 64),
    "demo_vit16": _small("dino", 192, 16, 8, (48, 96, 192, 192), 64),
    # one of each family, small enough for tests
    "tiny_dino8": _small("dino", 48, 8, 6, (48, 48, 48, 48), 16),
    "tiny_dinov2_14": _small("dinov2", 48, 14, 7, (48, 48, 48, 48), 16),
    "tiny_dinov2_reg14": _small("dinov2_reg", 48, 14, 7, (48, 48, 48, 48), 16),
    "tiny_dinov3_16": _small("dinov3", 48, 16, 4, (48, 48, 48, 48), 16),
    "tiny_mae16": _small("mae", 48, 16, 4, (6, 12, 24, 48), 16),
}


def spec_of(variant: str) -> EncoderSpec:
    """The spec of a registered variant. Raises ValueError naming the nearest known names."""
    if variant not in ENCODERS:
        raise ValueError(f"no encoder is called {variant!r}; {nearest(variant, ENCODERS)}")
    return ENCODERS[variant]
