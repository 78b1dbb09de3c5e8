"""A miniature DAVIS directory and a miniature FlowFeat, for tests that run a probe from end to end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from probes.sources.flowfeat import Checkpoint, FlowFeatEncoder
from tests.probes.small_davis import write_sequence
from trainer import FlowFeat


@pytest.fixture(scope="session")
def davis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sequences `boxes` and `<i>drift & co` (a name that HTML must escape). Read only."""
    root = tmp_path_factory.mktemp("davis")
    write_sequence(root, "boxes", seed=1)
    write_sequence(root, "<i>drift & co", seed=2, frames=5)
    return root


@pytest.fixture(scope="session")
def tiny() -> FlowFeat:
    return FlowFeat.create("tiny_dino8", init="random", seed=3).eval()


@pytest.fixture(scope="session")
def checkpoint(tiny: FlowFeat, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tiny.state_dict().items()}, path)
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny: FlowFeat) -> Checkpoint:
    return Checkpoint(FlowFeatEncoder(tiny), Path("tiny.safetensors"), "0" * 64, teacher=False, seed=5)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
