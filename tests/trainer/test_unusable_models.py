"""Whole-model files whose values cannot be used are refused by the first tensor's name, when they are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.trainer.model_fixtures import random_state
from trainer import FlowFeat

VARIANT = "tiny_dino8"
KEY = "decoder.scratch.output_conv0.weight"


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_values_that_are_not_finite_are_named(wrong: float, suffix: str, tmp_path: Path) -> None:
    tensors = random_state(VARIANT)
    tensors[KEY][2, 1] = wrong
    path = tmp_path / f"m.{suffix}"
    if suffix == "pth":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    with pytest.raises(ValueError, match=rf"m\.{suffix} holds NaN or infinity, first in {KEY}; get the file again"):
        FlowFeat.from_pretrained(path)
    loaded = FlowFeat.from_pretrained(path, check_values=False)
    assert not loaded.state_dict()[KEY].isfinite().all(), "asked for, it is loaded as it is"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.to_sparse(), r"as a sparse \(sparse_coo\) tensor: save it as a dense one"),
        (lambda value: value.to("meta"), "only the shape of .*saved from a meta device"),
    ],
)
@pytest.mark.parametrize("check_values", [True, False])
def test_sparse_tensors_and_mere_shapes_never_load(
    change: Callable[[torch.Tensor], torch.Tensor], message: str, check_values: bool, tmp_path: Path
) -> None:
    tensors = random_state(VARIANT)
    torch.save({**tensors, KEY: change(tensors[KEY])}, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=message) as error:
        FlowFeat.from_pretrained(tmp_path / "m.pth", check_values=check_values)
    assert KEY in str(error.value) and "\n" not in str(error.value)


def test_what_is_not_taken_from_a_checkpoint_may_be_anything(tmp_path: Path) -> None:
    """A student is not refused for its teacher."""
    tensors = random_state(VARIANT)
    decoder = {key.removeprefix("decoder."): value for key, value in tensors.items() if key.startswith("decoder.")}
    ema = {f"decoder_ema.ema_model.{key}": value * torch.nan for key, value in decoder.items()}
    torch.save({"model": {**tensors, **ema}}, tmp_path / "c.pth")
    assert torch.equal(FlowFeat.from_pretrained(tmp_path / "c.pth").state_dict()[KEY], tensors[KEY])
    with pytest.raises(ValueError, match="holds NaN or infinity, first in decoder"):
        FlowFeat.from_pretrained(tmp_path / "c.pth", teacher=True)
