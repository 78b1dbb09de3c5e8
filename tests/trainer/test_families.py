"""A family is one object: everything that reads, builds or writes encoders follows from it; and MAE's grids of any shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from tests.trainer.model_fixtures import TINY, encoder_state, vit_of
from trainer import ENCODERS, EncoderSpec, FlowFeat
from trainer import encoder_file as encoder_files
from trainer.encoder_file import read_encoder_file
from trainer.families import FAMILIES, Family, sincos_grids, sincos_positions
from trainer.model_file import export_model

TOY = Family(
    "toy",
    "Toy",
    "CC-BY-NC-SA-4.0",
    lambda payload, tensors: "it has registers" if "register_tokens" in tensors else None,
    lambda table, grid: F.interpolate(table, size=grid, mode="nearest"),
    urls={"toy_vit8": "https://example.org/toy_vit8.pth"},
    extra_tokens={"register_tokens": 3},
    unused=("spare",),
    training_only=("head.",),
)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> EncoderSpec:
    """The one object and a variant of it."""
    monkeypatch.setitem(FAMILIES, "toy", TOY)
    spec = replace(ENCODERS["tiny_dino8"], family="toy")
    monkeypatch.setitem(ENCODERS, "toy_vit8", spec)
    return spec


def test_a_family_of_ones_own_is_one_object(toy: EncoderSpec, tmp_path: Path) -> None:
    model = FlowFeat.create("toy_vit8", init="random")
    state = model.encoder.state_dict()
    assert state["register_tokens"].shape == (1, 3, 48) and state["spare"].shape == (1, 48)
    low, high = model(torch.randn(2, 3, 32, 48))
    assert low.shape == (2, 48, 4, 6) and high.shape == (2, 16, 32, 48)
    assert vit_of(model).tokens(torch.randn(1, 3, 32, 48))[0].shape == (1, 1 + 3 + 24, 48)
    native = vit_of(model).pos_embed[:, 1:].unflatten(1, (6, 6))
    assert torch.equal(vit_of(model).position_for(12, 12)[:, 1:].unflatten(1, (12, 12))[:, ::2, ::2], native)

    torch.save({**state, "head.weight": torch.zeros(3)}, tmp_path / "e.pth")
    loaded = FlowFeat.create("toy_vit8", init=tmp_path / "e.pth")
    assert all(torch.equal(value, state[key]) for key, value in loaded.encoder.state_dict().items())
    export_model(loaded, tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        assert file.metadata()["encoder_licence"] == "CC-BY-NC-SA-4.0"
    torch.save(loaded.state_dict(), tmp_path / "m.pth")
    for name in ("m.safetensors", "m.pth"):
        again = FlowFeat.from_pretrained(tmp_path / name)
        assert again.variant == "toy_vit8" and again.spec == toy

    with pytest.raises(ValueError, match=r"is not tiny_dino8: it looks like toy_vit8 \(it has registers\)"):
        FlowFeat.create("tiny_dino8", init=tmp_path / "e.pth")


def test_the_tables_families_keep_their_facts() -> None:
    assert {name: family.licence for name, family in FAMILIES.items()} == {
        "dino": "Apache-2.0",
        "dinov2": "Apache-2.0",
        "dinov2_reg": "Apache-2.0",
        "dinov3": "DINOv3 License",
        "mae": "CC-BY-NC-4.0",
    }
    assert [name for name, family in FAMILIES.items() if family.non_commercial] == ["mae"]
    tokens = {name: family.prefix_tokens for name, family in FAMILIES.items()}
    assert tokens == {"dino": 1, "mae": 1, "dinov2": 1, "dinov2_reg": 5, "dinov3": 5}


MAE = TINY["mae"]


def saved(path: Path, grid: tuple[int, int], position_1pd: Tensor | None = None) -> tuple[Path, FlowFeat]:
    """A flat file of a tiny MAE model with that grid of positions; it records no grid."""
    model = FlowFeat.create(replace(ENCODERS[MAE], grid=grid), init="random")
    if position_1pd is not None:
        model.encoder.load_state_dict({**model.encoder.state_dict(), "pos_embed": position_1pd})
    torch.save(model.state_dict(), path)
    return path, model


@pytest.mark.parametrize("grid", [(8, 18), (18, 8), (12, 12), (2, 8), (5, 7), (1, 6)])
def test_a_mae_files_grid_is_read_off_its_table(grid: tuple[int, int], tmp_path: Path) -> None:
    """Also where the number of tokens is a square (8 x 18) or that of the variant's own grid (2 x 8 against 4 x 4)."""
    path, model = saved(tmp_path / "m.pth", grid)
    loaded = FlowFeat.from_pretrained(path)
    assert vit_of(loaded).spec.grid == grid and loaded.variant == MAE
    images = torch.randn(1, 3, 64, 96)
    assert torch.equal(loaded(images)[0], model(images)[0])


def test_a_resized_table_shows_its_grid_too() -> None:
    table = sincos_positions((14, 14), 64)[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)
    resize = FAMILIES["mae"].resize
    assert resize is not None
    resized = resize(table, (20, 33)).flatten(2).transpose(1, 2)[0]
    assert sincos_grids(torch.cat((torch.zeros(1, 64), resized))) == [(20, 33)]
    assert sincos_grids(torch.cat((torch.zeros(1, 64), resized)).bfloat16()) == [(20, 33)]


def test_a_table_that_shows_no_grid_needs_the_callers(tmp_path: Path) -> None:
    position = torch.randn(1, 1 + 8 * 18, 48)
    path, _ = saved(tmp_path / "m.pth", (8, 18), position)
    with pytest.raises(ValueError, match=r"144 tokens.*8x18.*12x12.*grid=\(rows, columns\)"):
        FlowFeat.from_pretrained(path)
    loaded = FlowFeat.from_pretrained(path, grid=(8, 18))
    assert vit_of(loaded).spec.grid == (8, 18) and torch.equal(vit_of(loaded).pos_embed, position)
    with pytest.raises(ValueError, match=r"encoder\.pos_embed is \[1, 145, 48\], not \[1, 64, 48\]"):
        FlowFeat.from_pretrained(path, grid=(7, 9))


def test_our_own_files_record_their_grid(tmp_path: Path) -> None:
    _, model = saved(tmp_path / "m.pth", (8, 18), torch.randn(1, 145, 48))
    model.variant = MAE
    export_model(model, tmp_path / "m.safetensors")
    assert vit_of(FlowFeat.from_pretrained(tmp_path / "m.safetensors")).spec.grid == (8, 18)
    assert vit_of(FlowFeat.from_pretrained(tmp_path / "m.safetensors", variant=MAE)).spec.grid == (8, 18)


def test_an_encoder_file_of_another_grid_with_as_many_tokens_is_refused(tmp_path: Path) -> None:
    tensors = encoder_state(MAE) | {"pos_embed": sincos_positions((2, 8), 48)}
    torch.save({"model": tensors}, tmp_path / "e.pth")
    with pytest.raises(ValueError, match=r"positions of a 2x8 grid .* not of tiny_mae16's 4x4"):
        FlowFeat.create(MAE, init=tmp_path / "e.pth")
    wide = replace(ENCODERS[MAE], grid=(2, 8))
    assert set(read_encoder_file(tmp_path / "e.pth", wide, "custom")) == set(tensors)
    assert encoder_files.stored_grids(tensors["pos_embed"], wide) == [(2, 8)]
