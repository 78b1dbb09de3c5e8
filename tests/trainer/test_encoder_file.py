"""An encoder file is the encoder asked for, or an error that says what it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.trainer.model_fixtures import TINY, encoder_state, random_state
from trainer import ENCODERS, FlowFeat
from trainer.encoder_file import read_encoder_file


def as_published(family: str, seed: int = 1) -> Mapping[str, object]:
    tensors = encoder_state(TINY[family], seed)
    return {"model": tensors} if family == "mae" else tensors


@pytest.mark.parametrize("family", list(TINY))
def test_published_layouts_are_read_unchanged(family: str, tmp_path: Path) -> None:
    wanted = encoder_state(TINY[family], seed=1)
    torch.save(as_published(family), tmp_path / "e.pth")
    save_file(wanted, tmp_path / "e.safetensors")
    torch.save(as_published(family), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("e.pth", "e.safetensors", "old.pth"):
        model = FlowFeat.create(TINY[family], init=tmp_path / name)
        assert all(torch.equal(value, wanted[key]) for key, value in model.encoder.state_dict().items())


def test_the_reconstruction_decoder_of_mae_is_dropped(tmp_path: Path) -> None:
    extras = {
        "mask_token": torch.zeros(1, 1, 8),
        "decoder_embed.weight": torch.zeros(8, 48),
        "decoder_pos_embed": torch.zeros(1),
    }
    torch.save({"model": {**encoder_state("tiny_mae16"), **extras}}, tmp_path / "e.pth")
    assert set(read_encoder_file(tmp_path / "e.pth", ENCODERS["tiny_mae16"], "tiny_mae16")) == set(
        encoder_state("tiny_mae16")
    )


@pytest.mark.parametrize(("asked", "given"), list(permutations(TINY, 2)))
def test_a_file_of_the_wrong_family_is_named(asked: str, given: str, tmp_path: Path) -> None:
    torch.save(as_published(given), tmp_path / "e.pth")
    with pytest.raises(
        ValueError, match=rf"e\.pth is not {TINY[asked]}: it looks like {TINY[given]} \(.*\); .*patch_embed"
    ):
        FlowFeat.create(TINY[asked], init=tmp_path / "e.pth")


def test_dino_and_mae_of_one_shape_are_told_apart(tmp_path: Path) -> None:
    """ViT-B/16 has the same keys and shapes in both families: nothing but the position table and the nesting differs."""
    mae = ENCODERS["tiny_mae16"]
    twin = replace(mae, family="dino")
    torch.save(encoder_state("tiny_mae16"), tmp_path / "mae.pth")
    learned = dict(FlowFeat.create(twin, init="random").encoder.state_dict())
    torch.save(learned, tmp_path / "dino.pth")
    torch.save({"model": learned}, tmp_path / "nested.pth")
    read_encoder_file(tmp_path / "dino.pth", twin, "twin")
    read_encoder_file(tmp_path / "mae.pth", mae, "tiny_mae16")
    for name, spec, sign in (
        ("mae.pth", twin, "looks like tiny_mae16 .its position embedding is fixed"),
        ("dino.pth", mae, "looks like a dino ViT of dim 48, depth 4, patch 16 .it is a flat file"),
        ("nested.pth", twin, "nested under"),
    ):
        with pytest.raises(ValueError, match=sign):
            read_encoder_file(tmp_path / name, spec, "asked")


def test_other_files_in_place_of_an_encoder(tmp_path: Path) -> None:
    spec = ENCODERS["tiny_dino8"]
    with pytest.raises(FileNotFoundError, match=r"no encoder file .*none\.pth for dino_vits16: fetch it from https://"):
        read_encoder_file(tmp_path / "none.pth", ENCODERS["dino_vits16"], "dino_vits16")
    torch.save(random_state("tiny_dino8"), tmp_path / "whole.pth")
    with pytest.raises(ValueError, match=r"FlowFeat\.from_pretrained"):
        read_encoder_file(tmp_path / "whole.pth", spec, "tiny_dino8")
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match=r"no ViT of these families, .*first keys: conv1\.weight"):
        read_encoder_file(tmp_path / "resnet.pth", spec, "tiny_dino8")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"cut\.pth is damaged: .*; delete it and get it again"):
        read_encoder_file(tmp_path / "cut.pth", spec, "tiny_dino8")
    smaller = {key: value for key, value in encoder_state("tiny_dino8").items() if not key.startswith("blocks.3.")}
    torch.save(smaller, tmp_path / "short.pth")
    with pytest.raises(
        ValueError, match=r"looks like a dino ViT of dim 48, depth 3, patch 8 .*12 missing \(blocks\.3\.norm1\.weight"
    ):
        read_encoder_file(tmp_path / "short.pth", spec, "tiny_dino8")


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named_when_they_are_read(wrong: float, tmp_path: Path) -> None:
    """Found in training, they would be blamed on the samples of the first step."""
    tensors = encoder_state("tiny_dino8")
    tensors["blocks.1.mlp.fc1.weight"][3, 4] = wrong
    tensors["blocks.2.mlp.fc1.weight"][0, 0] = wrong
    save_file(tensors, tmp_path / "e.safetensors")
    with pytest.raises(
        ValueError, match=r"e\.safetensors holds NaN or infinity, first in blocks\.1\.mlp\.fc1\.weight; get"
    ):
        FlowFeat.create("tiny_dino8", init=tmp_path / "e.safetensors")


def coo(value: torch.Tensor) -> torch.Tensor:
    return value.to_sparse()


def csr(value: torch.Tensor) -> torch.Tensor:
    return value.reshape(value.shape[0], -1).to_sparse_csr()


def on_meta(value: torch.Tensor) -> torch.Tensor:
    return value.to("meta")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (coo, r"as a sparse \(sparse_coo\) tensor: save it as a dense one"),
        (csr, r"as a sparse \(sparse_csr\) tensor"),
        (on_meta, "only the shape of .*saved from a meta device"),
    ],
)
@pytest.mark.parametrize("key", ["patch_embed.proj.weight", "pos_embed", "blocks.0.norm1.weight"])
def test_tensors_that_are_not_plain_end_in_one_line(
    change: Callable[[torch.Tensor], torch.Tensor], message: str, key: str, tmp_path: Path
) -> None:
    tensors = encoder_state("tiny_dino8")
    torch.save({**tensors, key: change(tensors[key])}, tmp_path / "e.pth")
    with pytest.raises(ValueError, match=message) as error:
        FlowFeat.create("tiny_dino8", init=tmp_path / "e.pth")
    assert key in str(error.value) and "e.pth" in str(error.value) and "\n" not in str(error.value)
