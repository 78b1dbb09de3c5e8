"""Published weight files load in every layout, strictly; what does not fit is refused with a useful line."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.flow.estimator import EstimatorOptions, choose
from pipeline.flow.networks.build import build_network
from pipeline.flow.networks.table import NETWORKS
from pipeline.flow.raft_family import NetworkChoice
from pipeline.flow.weights.catalogue import find
from pipeline.flow.weights.checkpoints import hash_in_name, load_checkpoint, load_random, read_checkpoint
from pipeline.flow.weights.key_layouts import LAYOUTS
from shards.files import sha256_of
from tests.pipeline.flow.flow_stand_in import FIXTURES, official_shapes, stand_in_state

State = dict[str, Tensor]


def loaded(name: str, path: Path) -> nn.Module:
    net = build_network(name)
    assert load_checkpoint(net, name, path) == f"sha256:{sha256_of(path)}"
    return net


def values(name: str, seed: int = 4) -> tuple[nn.Module, State]:
    """A network with random weights, and its state under our names."""
    net = build_network(name)
    load_random(net, seed)
    return net, dict(net.state_dict())


def renamed(state: State, layout: str) -> State:
    return {LAYOUTS[layout].rename(key): value for key, value in state.items()}


def same(net: nn.Module, state: State) -> bool:
    return all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


def saved(path: Path, state: State) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("name", FIXTURES)
def test_keys_are_those_of_the_official_code(name: str, shared_dir: Path) -> None:
    listed = json.loads((shared_dir / "reference" / f"keys_{FIXTURES[name][0]}.json").read_text())
    assert official_shapes(name) == {key: tuple(shape) for key, shape in listed.items()}


@pytest.mark.parametrize(
    ("name", "layout"), [(name, layout) for name, kind in NETWORKS.items() for layout in kind.layouts]
)
def test_every_layout_loads(name: str, layout: str, tmp_path: Path) -> None:
    _, state = values(name)
    assert same(loaded(name, saved(tmp_path / "w.pt", renamed(state, layout))), state)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_choosing_a_gpu_leaves_it_to_the_process_that_works_on_it(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, state = values("sea-raft-s")
    layout = NETWORKS["sea-raft-s"].layouts[0]
    path = saved(tmp_path / f"w{suffix}", renamed(state, layout))

    def touched() -> None:
        raise AssertionError("CUDA was initialised")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "_lazy_init", touched)
    choice = choose("sea-raft-s", EstimatorOptions(str(path), device="cuda", precision="bf16"))
    assert isinstance(choice, NetworkChoice) and choice.on_device("cuda:1").device == "cuda:1"


@pytest.mark.parametrize("name", ["raft", "raft-small"])
def test_module_prefix(name: str, tmp_path: Path) -> None:
    """As princeton-vl/RAFT publishes them: an OrderedDict, `module.` before every key, both names of a projection's norm."""
    official = stand_in_state(name, 1)
    path = tmp_path / "raft-sintel.pth"
    torch.save(OrderedDict((f"module.{key}", value) for key, value in official.items()), path)
    net = loaded(name, path)
    assert torch.equal(net.state_dict()["cnet.conv1.weight"], official["cnet.conv1.weight"])


@pytest.mark.parametrize("kept", ["both", "bn3", "downsample.1"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_alias_names_of_sea_raft(kept: str, suffix: str, tmp_path: Path) -> None:
    """.pth files hold both names, the hub's safetensors only `bn3`."""
    state = stand_in_state("sea-raft-s", 2)
    dropped = {"both": "nothing", "bn3": "downsample.1.", "downsample.1": ".bn3."}[kept]
    path = saved(tmp_path / f"model{suffix}", {key: value for key, value in state.items() if dropped not in key})
    net = loaded("sea-raft-s", path)
    assert torch.equal(
        net.state_dict()["fnet.layer2.0.downsample.1.running_var"], state["fnet.layer2.0.downsample.1.running_var"]
    )


def test_alias_names_must_agree(tmp_path: Path) -> None:
    state = stand_in_state("sea-raft-s", 2)
    state["cnet.layer3.0.bn3.weight"] = state["cnet.layer3.0.bn3.weight"] + 1
    path = saved(tmp_path / "model.pth", state)
    with pytest.raises(ValueError, match=r"1 with two unequal copies: cnet\.layer3\.0\.bn3\.weight"):
        load_checkpoint(build_network("sea-raft-s"), "sea-raft-s", path)


@pytest.mark.parametrize("name", ["raft", "smurf"])
def test_the_file_names_its_own_hash(name: str, tmp_path: Path) -> None:
    _, state = values("raft")
    plain = saved(tmp_path / "w.pth", renamed(state, "torchvision"))
    right = plain.rename(tmp_path / f"raft_large_C_T_V1-{sha256_of(plain)[:8]}.pth")
    if name == "raft":
        assert same(loaded("raft", right), state)
    wrong = right.rename(tmp_path / "raft_large_C_T_V1-22a6c225.pth")
    with pytest.raises(ValueError, match="damaged or not what its name says"):
        load_checkpoint(build_network("raft"), "raft", wrong)


def test_flow_anything_is_sea_raft_m_in_a_checkpoint_of_lightning(tmp_path: Path) -> None:
    """ptlflow's copies: the official keys, both names of a projection's norm, under `state_dict` and beside settings of the training."""
    state = stand_in_state("sea-raft-m", 5)
    path = tmp_path / "flow_anything.ckpt"
    torch.save({"state_dict": state, "epoch": 3, "hyper_parameters": {"train_size": [432, 960]}}, path)
    path = path.rename(tmp_path / f"flow_anything-mixed432-{sha256_of(path)[:8]}.ckpt")
    net = loaded("sea-raft-m", path)
    assert torch.equal(net.state_dict()["fnet.layer3.5.conv1.weight"], state["fnet.layer3.5.conv1.weight"])
    with pytest.raises(ValueError, match=r"does not fit sea-raft-s; it looks like sea-raft-m \(sea-raft names\)"):
        load_checkpoint(build_network("sea-raft-s"), "sea-raft-s", path)
    with pytest.raises(ValueError, match="damaged or not what its name says"):
        loaded("sea-raft-m", path.rename(tmp_path / find("flow-anything-432").file))
    torch.save({"state_dict": {"epoch": "three"}}, tmp_path / "no-state.ckpt")
    with pytest.raises(ValueError, match="is not a flat dictionary of tensors"):
        read_checkpoint(tmp_path / "no-state.ckpt")


def test_only_names_of_known_publishers_carry_a_hash() -> None:
    assert hash_in_name("raft_large_C_T_SKHT_V1-0b8c9e55.pth") == "0b8c9e55"
    assert hash_in_name("raft_small_C_T_V1-ad48884c.pth") == "ad48884c"
    assert hash_in_name("flow_anything-mixed432-0beef53e.ckpt") == "0beef53e"
    assert hash_in_name("my_raft-20240131.pth") is None
    assert hash_in_name("Tartan-C-T-TSKH-spring540x960-M.safetensors") is None


@pytest.mark.parametrize(
    ("file", "layout", "asked", "looks"),
    [
        ("raft", "official", "raft-small", "raft (official names)"),
        ("raft-small", "torchvision", "raft", "raft-small (torchvision names)"),
        ("sea-raft-s", "sea-raft", "sea-raft-m", "sea-raft-s (sea-raft names)"),
        ("sea-raft-m", "sea-raft", "raft", "sea-raft-m (sea-raft names)"),
        ("smurf", "torchvision", "raft", "smurf (torchvision names)"),
        ("raft", "torchvision", "smurf", "raft (torchvision names)"),
    ],
)
def test_weights_of_another_network_are_named(file: str, layout: str, asked: str, looks: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "some.pth", renamed(values(file)[1], layout))
    with pytest.raises(ValueError) as refused:
        load_checkpoint(build_network(asked), asked, path)
    text = str(refused.value)
    assert str(path) in text and f"does not fit {asked}" in text and f"looks like {looks}" in text
    assert "missing" in text or "unexpected" in text or "of another shape" in text


def test_missing_unexpected_and_misshapen_keys_are_named(tmp_path: Path) -> None:
    net, state = values("raft-small")
    before = {key: value.clone() for key, value in net.state_dict().items()}
    broken = dict(state)
    del broken["fnet.conv1.bias"]
    broken["fnet.extra.weight"] = torch.zeros(1)
    broken["cnet.conv2.weight"] = torch.zeros(100, 96, 1, 1)
    with pytest.raises(ValueError) as refused:
        load_checkpoint(net, "raft-small", saved(tmp_path / "broken.pth", broken))
    for part in (
        "a damaged or modified raft-small", "1 missing: fnet.conv1.bias", "1 unexpected: fnet.extra.weight",
        "cnet.conv2.weight [100, 96, 1, 1] instead of [160, 96, 1, 1]",
    ):  # fmt: skip
        assert part in str(refused.value)
    assert same(net, before), "a refused file leaves the network as it was"


def test_something_else_altogether(tmp_path: Path) -> None:
    path = saved(tmp_path / "resnet.pth", {f"layer{i}.weight": torch.zeros(3) for i in range(50)})
    with pytest.raises(ValueError, match="looks like none of the known networks"):
        load_checkpoint(build_network("raft"), "raft", path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("w.pth", b"<html>quota exceeded</html>"),
        ("w.pth", b""),
        ("w.safetensors", b"\xff" * 64),
        ("w.pt", b"PK\x03\x04 cut off"),
    ],
)
def test_unreadable_files(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        load_checkpoint(build_network("raft"), "raft", path)


def test_truncated_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", values("raft-small")[1])
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        load_checkpoint(build_network("raft-small"), "raft-small", path)


def test_files_cannot_run_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemExit('code ran')",))

    path = tmp_path / "evil.pth"
    torch.save({"x": Evil()}, path)
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        load_checkpoint(build_network("raft"), "raft", path)


def test_nested_and_absent_files(tmp_path: Path) -> None:
    torch.save({"model": {}, "step": 3}, tmp_path / "nested.pth")
    with pytest.raises(ValueError, match="not a flat dictionary of tensors"):
        load_checkpoint(build_network("raft"), "raft", tmp_path / "nested.pth")
    with pytest.raises(ValueError, match="no weights file at"):
        load_checkpoint(build_network("raft"), "raft", tmp_path / "absent.pth")


class _Foreign:
    """What an untrusted file could hold."""


def test_nobody_is_told_to_run_code_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"model": _Foreign()}, path)
    with pytest.raises(ValueError, match="holds something else than tensors") as caught:
        read_checkpoint(path)
    assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)
