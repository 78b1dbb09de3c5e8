"""Frozen vision transformers: normalised images in, the token maps of four blocks out.

DINO, MAE, DINOv2 and DINOv3 share one pre-norm ViT; all in which they differ is an object of `trainer.families`. Module names
follow the published files, so that those load without renaming. What comes out goes to `trainer.decoder`; nothing in here
is ever trained.

Shape legend: B images, N = gh*gw patches, P prefix tokens (CLS and the family's extra ones), D encoder width, H x W pixels,
gh x gw token grid.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.encoder_protocol import Encoded
from trainer.encoder_table import EncoderSpec
from trainer.images import IMAGENET_MEAN, IMAGENET_STD
from trainer.rotary import RotaryPositions, Rotation


class PatchEmbed(nn.Module):
    """[B, 3, H, W] -> [B, N, D]: one convolution whose stride is its kernel."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, spec.dim, spec.patch, stride=spec.patch)

    def forward(self, images_bchw: Tensor) -> Tensor:
        tokens: Tensor = self.proj(images_bchw).flatten(2).transpose(1, 2)
        return tokens


class MaskedBiasLinear(nn.Linear):
    """DINOv3's fused projection: biases times factors that the published files hold, zero for the keys."""

    bias_mask: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 3 * dim)
        self.register_buffer("bias_mask", torch.empty(3 * dim))
        self.fill()

    @torch.no_grad()
    def fill(self) -> None:
        """The factors of a network that is not read from a file: queries | keys | values."""
        for part, factor in zip(self.bias_mask.chunk(3), (1.0, 0.0, 1.0), strict=True):
            part.fill_(factor)

    def forward(self, x_bnd: Tensor) -> Tensor:
        return F.linear(x_bnd, self.weight, self.bias * self.bias_mask)


class Attention(nn.Module):
    """Multi-head self-attention; the fused projection holds (q | k | v), each heads x head_dim."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.qkv = MaskedBiasLinear(spec.dim) if spec.rules.masked_bias else nn.Linear(spec.dim, 3 * spec.dim)
        self.proj = nn.Linear(spec.dim, spec.dim)

    def forward(self, x_bnd: Tensor, rotation: Rotation | None = None) -> Tensor:
        b, n, d = x_bnd.shape
        q, k, v = self.qkv(x_bnd).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        if rotation is not None:
            q, k = rotation.turn(q), rotation.turn(k)
        mixed: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))
        return mixed


class Mlp(nn.Module):
    """D -> 4D -> D with the exact (erf) GELU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x_bnd: Tensor) -> Tensor:
        y_bnd: Tensor = self.fc2(F.gelu(self.fc1(x_bnd)))
        return y_bnd


class LayerScale(nn.Module):
    """DINOv2's and DINOv3's learned factor per channel of a residual branch."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x_bnd: Tensor) -> Tensor:
        return x_bnd * self.gamma


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        scaled, eps = spec.rules.layer_scale, spec.rules.norm_eps
        self.norm1 = nn.LayerNorm(spec.dim, eps=eps)
        self.attn = Attention(spec)
        self.ls1 = LayerScale(spec.dim) if scaled else nn.Identity()
        self.norm2 = nn.LayerNorm(spec.dim, eps=eps)
        self.mlp = Mlp(spec.dim)
        self.ls2 = LayerScale(spec.dim) if scaled else nn.Identity()

    def forward(self, x_bnd: Tensor, rotation: Rotation | None = None) -> Tensor:
        x_bnd = x_bnd + self.ls1(self.attn(self.norm1(x_bnd), rotation))
        return x_bnd + self.ls2(self.mlp(self.norm2(x_bnd)))


class FrozenViT(nn.Module):
    """A vision transformer without gradients, a `trainer.encoder_protocol.FrozenEncoder`."""

    mean, std = IMAGENET_MEAN, IMAGENET_STD

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        self.patch, self.width = spec.patch, spec.dim
        self.cls_token = nn.Parameter(torch.zeros(1, 1, spec.dim))
        if spec.rules.rotary:
            self.rope_embed = RotaryPositions(spec.dim // spec.heads)
        else:
            self.pos_embed = nn.Parameter(torch.zeros(1, 1 + math.prod(spec.grid), spec.dim))
        for name, count in spec.rules.extra_tokens.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(1, count, spec.dim)))
        for name in spec.rules.unused:
            self.register_parameter(name, nn.Parameter(torch.zeros(1, spec.dim)))
        self.patch_embed = PatchEmbed(spec)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.depth))
        self.norm = nn.LayerNorm(spec.dim, eps=spec.rules.norm_eps)
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, images_bchw: Tensor) -> Encoded:
        """[B, 3, H, W] float, ImageNet-normalised, sides multiples of the patch -> the patch tokens as maps."""
        gh, gw = images_bchw.shape[-2] // self.patch, images_bchw.shape[-1] // self.patch
        hooked = self.tokens(images_bchw)
        low = self.maps(self.norm(hooked[-1]), gh, gw)
        return Encoded(low, tuple(self.maps(tokens, gh, gw) for tokens in hooked))

    @torch.no_grad()
    def tokens(self, images_bchw: Tensor) -> list[Tensor]:
        """The hooked blocks' raw tokens, before the final norm: four tensors [B, P + N, D], CLS first. Images as in `forward`."""
        gh, gw = images_bchw.shape[-2] // self.spec.patch, images_bchw.shape[-1] // self.spec.patch
        cls_11d: Tensor = self.cls_token
        patches_bnd, rotation = self.patch_embed(images_bchw), None
        if self.spec.rules.rotary:
            rotation = self.rope_embed(gh, gw, self.spec.rules.prefix_tokens)
        else:
            position = self.position_for(gh, gw)
            cls_11d, patches_bnd = cls_11d + position[:, :1], patches_bnd + position[:, 1:]
        extra = [self.get_parameter(name) for name in self.spec.rules.extra_tokens]
        prefix = [t.expand(images_bchw.shape[0], -1, -1) for t in (cls_11d, *extra)]
        tokens_bnd = torch.cat((*prefix, patches_bnd), dim=1)
        hooked: list[Tensor] = []
        for number, block in enumerate(self.blocks[: self.spec.hooks[-1] + 1]):
            tokens_bnd = block(tokens_bnd, rotation)
            if number in self.spec.hooks:
                hooked.append(tokens_bnd)
        return hooked

    def position_for(self, gh: int, gw: int) -> Tensor:
        """The position embedding [1, 1 + gh*gw, D] of a token grid, CLS first: the stored one, resized where the grid differs.

        Resized at every call: measured at under 1 % of the encoder's own time, so nothing derived has to be kept in step.
        """
        return self.pos_embed if (gh, gw) == self.spec.grid else resize_position(self.pos_embed, self.spec, gh, gw)

    def maps(self, tokens_bnd: Tensor, gh: int, gw: int) -> Tensor:
        """Tokens [B, P + N, D] without the prefix as a view [B, D, gh, gw] (channels last in memory: no copy)."""
        return tokens_bnd[:, self.spec.rules.prefix_tokens :].unflatten(1, (gh, gw)).permute(0, 3, 1, 2)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Random weights from `generator`, as timm and DINO draw them.

        Linear layers and learned tokens are normal(0, 0.02) (timm's and DINO's trunc_normal_ cuts at +-2, a hundred
        deviations out, which is to say never), biases 0, norms 1, LayerScale 1; the patch
        convolution keeps PyTorch's U(+-1/sqrt(fan-in)). So the residual stream is dominated by a random projection of
        each patch, and what a random frozen ViT hands on is image detail, gently mixed. MAE's position table is the fixed one.
        """
        for module in self.modules():
            if isinstance(module, RotaryPositions | MaskedBiasLinear):
                module.fill()
        for name, parameter in self.named_parameters():
            last = name.rsplit(".", 1)[-1]
            if name.startswith("patch_embed"):
                bound = 1 / math.sqrt(3 * self.spec.patch**2)
                parameter.uniform_(-bound, bound, generator=generator)
            elif last == "bias":
                parameter.zero_()
            elif last in ("weight", "gamma") and parameter.ndim == 1:
                parameter.fill_(1.0)
            elif name == "pos_embed" and self.spec.rules.fixed_positions is not None:
                parameter.copy_(self.spec.rules.fixed_positions(self.spec.grid, self.spec.dim))
            else:
                parameter.normal_(0, 0.02, generator=generator)


def resize_position(pos_1pd: Tensor, spec: EncoderSpec, gh: int, gw: int) -> Tensor:
    """Bring pos_embed [1, 1 + r*c, D] to gh x gw by its family's own rule, in float32; the CLS part is never resized.

    Same dtype out as in.
    """
    table = pos_1pd[:, 1:].float().unflatten(1, spec.grid).permute(0, 3, 1, 2)
    assert spec.rules.resize is not None, f"{spec.family} stores no position table"
    table = spec.rules.resize(table, (gh, gw))
    assert table.shape[-2:] == (gh, gw), f"position embedding came out as {tuple(table.shape[-2:])}, wanted {(gh, gw)}"
    patches = table.permute(0, 2, 3, 1).flatten(1, 2).to(pos_1pd.dtype)
    return torch.cat((pos_1pd[:, :1], patches), dim=1)
