"""The attention probe: ten stored cases of the published module, its initialisation, and mutants."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from probes.heads import attention
from tests.data import parity_weights
from tests.probes.mutants import Check, noticed

DATA = Path(__file__).resolve().parents[2] / "data"


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


ROUNDING = 1e-6
"""What the order of summation may add to a logit of size 2 from 384 encoder channels. The stored logits themselves lie up to
2.0e-6 from their exact (float64) values; with the 12 channels of cases 6 to 9 they are met to the last bit or two."""


def check_parity(module: ModuleType) -> None:
    with np.load(DATA / "parity_attention_probe.npz") as archive:
        fixture = {name: archive[name] for name in archive.files}
    meta = json.loads(str(fixture["meta"]))
    assert meta["cases"]
    for case in meta["cases"]:
        number, (d, g, f) = case["idx"], case["enc"]
        head = module.AttentionHead(
            d, case["dim"], case["q"], heads=meta["heads"], downscale=case["downscale"], with_norm=case["with_norm"]
        )
        shapes = {name: tuple(shape) for name, shape in case["shapes"].items()}
        head.attention.load_state_dict(tensors(parity_weights.make_state_dict(shapes, meta["seed"] + 60 + number)))
        linear = parity_weights.make_state_dict(
            {"weight": (case["q"], d, 1, 1), "bias": (case["q"],)}, meta["seed"] + 70 + number
        )
        head.linear.load_state_dict(tensors(linear))
        y_dec = torch.from_numpy(
            parity_weights.normals(meta["seed"] + 80 + number, 2, case["dim"], case["h"], case["w"])
        )
        y_enc = torch.from_numpy(parity_weights.normals(meta["seed"] + 90 + number, 2, d, g, f))
        every = max(1, case["q"] // 9)
        with torch.no_grad():
            z, logits = head.attention(y_dec)[:, ::every], head(y_enc, y_dec)[:, ::every]
        assert np.abs(z.numpy() - fixture[f"z{number}"]).max() < meta["atol"]
        assert np.abs(logits.numpy() - fixture[f"logits{number}"]).max() < meta["atol"] + (ROUNDING if d > 100 else 0)


def check_initial_queries(module: ModuleType) -> None:
    """0.1 N(0, 1) / k: what the published module starts from."""
    torch.manual_seed(0)
    queries = module.CrossAttentionProbe(128, 256).queries
    assert queries.std().item() == pytest.approx(0.1 / 128, rel=0.02)


def check_defaults(module: ModuleType) -> None:
    probe = module.CrossAttentionProbe(32, 3)
    assert (probe.downscale, probe.cross_attn.heads) == (4, 8)
    assert sorted(probe.state_dict()) == [
        "cross_attn.proj.bias", "cross_attn.proj.weight", "cross_attn.projk.weight", "cross_attn.projq.weight",
        "cross_attn.projv.weight", "queries",
    ]  # fmt: skip
    normed = module.CrossAttentionProbe(32, 3, with_norm=True)
    assert {n.eps for n in (normed.norm, normed.norm1, normed.norm2)} == {1e-5}


def check_a_map_smaller_than_the_downscale(module: ModuleType) -> None:
    """One cell is the least. With a single cell there is nothing to choose from: all queries see the same."""
    probe = module.CrossAttentionProbe(16, 2, downscale=4)
    torch.nn.init.normal_(probe.queries)
    for h, w, same in ((3, 3, True), (3, 9, False), (9, 3, False)):
        out = probe.embeddings(torch.randn(1, 16, h, w, generator=torch.Generator().manual_seed(0)))
        assert torch.allclose(out[:, 0], out[:, 1], atol=1e-6) == same


def check_everything_learns(module: ModuleType) -> None:
    torch.manual_seed(1)
    head = module.AttentionHead(4, 16, 3, with_norm=True)
    head(torch.randn(2, 4, 3, 3), torch.randn(2, 16, 12, 12)).square().sum().backward()
    assert [name for name, p in head.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)] == []


CHECKS = (
    check_parity, check_initial_queries, check_defaults, check_a_map_smaller_than_the_downscale, check_everything_learns,
)  # fmt: skip

TO_LOW = 'high_bkhw, size=size, mode="bilinear", align_corners=False'
TO_PIXELS = 'self.linear(low_bdgf), size=size, mode="bilinear", align_corners=False'
MUTATIONS = [
    ("/ high_bkhw.shape[1]", "/ high_bkhw.shape[1] ** 0.5"),
    ("/ high_bkhw.shape[1]", ""),
    ("0.1 * torch.randn(1, queries, channels) / channels", "0.1 * torch.randn(1, queries, channels)"),
    ("scaled_dot_product_attention(q, k, v)", "scaled_dot_product_attention(q, k, v, scale=(q.shape[-1] * self.heads) ** -0.5)"),
    ("scaled_dot_product_attention(q, k, v)", "scaled_dot_product_attention(q, v, k)"),
    ("scaled_dot_product_attention(q, k, v)", "scaled_dot_product_attention(q, k, v) + q"),
    ("unflatten(-1, (self.heads, -1)).transpose(1, 2)", "unflatten(-1, (-1, self.heads)).permute(0, 3, 1, 2)"),
    ("self.proj(attended.transpose(1, 2).flatten(2))", "self.proj(attended.permute(0, 2, 3, 1).flatten(2))"),
    ("self.proj(attended.transpose(1, 2).flatten(2))", "attended.transpose(1, 2).flatten(2)"),
    ("self.proj = nn.Linear(channels, channels)", "self.proj = nn.Linear(channels, channels, bias=False)"),
    (TO_LOW, TO_LOW.replace("False", "True")),
    (TO_LOW, TO_LOW.replace("align_corners=False", "antialias=True")),
    (TO_LOW, TO_LOW.replace('"bilinear", align_corners=False', '"area"')),
    ("max(h // self.downscale, 1)", "max(-(-h // self.downscale), 1)"),
    ("max(w // self.downscale, 1)", "w // self.downscale"),
    ("cells_bnk = self.norm(low_bkyx.flatten(2).transpose(1, 2))", "cells_bnk = low_bkyx.flatten(2).transpose(1, 2)"),
    ("pixels_bhwk = self.norm(high_bkhw.movedim(1, -1))", "pixels_bhwk = high_bkhw.movedim(1, -1)"),
    ("self.norm1(self.queries)", "self.queries"),
    ("self.norm2(self.cross_attn(queries_bck, cells_bnk))", "self.cross_attn(queries_bck, cells_bnk)"),
    (TO_PIXELS, TO_PIXELS.replace("False", "True")),
    ("linear_bchw + self.attention(high_bkhw)", "linear_bchw - self.attention(high_bkhw)"),
    ("DOWNSCALE = 4", "DOWNSCALE = 2"),
    ("HEADS = 8", "HEADS = 4"),
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_attention(check: Check) -> None:
    check(attention)


@pytest.mark.parametrize(("old", "new"), MUTATIONS)
def test_mutant_is_noticed(old: str, new: str) -> None:
    assert noticed(attention, old, new, CHECKS)


def test_heads_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="100 channels do not divide into 8 heads"):
        attention.CrossAttention(100)
