"""TensorFlow 2 checkpoints are read without TensorFlow, and SMURF's becomes the file that `smurf` loads.

tests/data/tf2_checkpoint.* was written by TensorFlow 2.17 itself (tf.train.Checkpoint of forty 1×1
kernels, a scalar, an integer vector and a string); the SMURF checkpoint here is written by the test.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.flow.networks.build import build_network
from pipeline.flow.weights import tf_bundle
from pipeline.flow.weights.checkpoints import load_checkpoint
from pipeline.flow.weights.convert_smurf import convert, key_of
from pipeline.flow.weights.tf_bundle import checkpoint_prefix, masked_crc32c, read_tensors
from tests.pipeline.flow.flow_stand_in import stand_in_state

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def write_checkpoint(prefix: Path, tensors: dict[str, NDArray[np.float32]], per_block: int = 5) -> None:
    """A checkpoint in TensorFlow's format: one data file, an index table with a few entries per block, no shared prefixes."""
    data, records = b"", {b"": b"\x08\x01"}
    for name, value in sorted(tensors.items()):
        raw = value.astype("<f4").tobytes()
        dims = b"".join(b"\x12" + varint(len(d)) + d for d in (b"\x08" + varint(size) for size in value.shape))
        record = (
            b"\x08\x01" + b"\x12" + varint(len(dims)) + dims + b"\x20" + varint(len(data)) + b"\x28" + varint(len(raw))
        )
        records[name.encode()] = record + b"\x35" + struct.pack("<I", tf_bundle.masked_crc32c(raw))
        data += raw
    out, handles, items = b"", [], sorted(records.items())

    def block(entries: list[tuple[bytes, bytes]]) -> bytes:
        nonlocal out
        body = b"".join(b"\x00" + varint(len(k)) + varint(len(v)) + k + v for k, v in entries) + struct.pack(
            "<II", 0, 1
        )
        handle = varint(len(out)) + varint(len(body))
        out += body + b"\x00" + struct.pack("<I", tf_bundle.masked_crc32c(body + b"\x00"))
        return handle

    for start in range(0, len(items), per_block):
        part = items[start : start + per_block]
        handles.append((part[-1][0], block(part)))
    meta, index = block([]), block(handles)
    footer = (meta + index).ljust(40, b"\x00") + struct.pack("<Q", 0xDB4775248B80FB57)
    prefix.with_name(prefix.name + ".index").write_bytes(out + footer)
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(data)


def smurf_variables() -> tuple[dict[str, NDArray[np.float32]], dict[str, torch.Tensor]]:
    """The TensorFlow variables of a SMURF network, named by hand from its modules, and the PyTorch state they should become."""
    state = stand_in_state("smurf", 6)
    modules = {"update_block.flow_head.conv1": "flow_head/conv1", "update_block.flow_head.conv2": "flow_head/conv2",
               "mask_predictor.convrelu.0": "mask/layer_with_weights-0", "mask_predictor.conv": "mask/layer_with_weights-1",
               "update_block.motion_encoder.conv.0": "encoder/conv"}  # fmt: skip
    modules.update({f"update_block.motion_encoder.conv{long}{i}.0": f"encoder/conv{short}{i}"
                    for long, short in (("corr", "c"), ("flow", "f")) for i in (1, 2)})  # fmt: skip
    modules.update(
        {f"update_block.recurrent_block.convgru{i}.conv{g}": f"gru/conv{g}{i}" for i in (1, 2) for g in "zrq"}
    )
    modules = {key: f"flow_model/update_block/{value}" for key, value in modules.items()}
    for ours, theirs in (("feature_encoder", "fnet"), ("context_encoder", "cnet")):
        root = f"feature_model/{theirs}"
        modules.update({f"{ours}.convnormrelu.0": f"{root}/conv1", f"{ours}.conv": f"{root}/conv2"})
        for layer in (1, 2, 3):
            for b in (0, 1):
                for n in (1, 2):
                    modules[f"{ours}.layer{layer}.{b}.convnormrelu{n}.0"] = (
                        f"{root}/layer{layer}/layer_with_weights-{b}/conv{n}"
                    )
            if layer > 1:
                down = f"{root}/layer{layer}/layer_with_weights-0/downsample/layer_with_weights-0"
                modules[f"{ours}.layer{layer}.0.downsample.0"] = down
    variables = {}
    for key, value in state.items():
        module, kind = key.rsplit(".", 1)
        array = value.numpy()
        variables[modules[module] + ("/kernel" if kind == "weight" else "/bias") + SUFFIX] = (
            array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
        )
    return variables, state


def test_reads_what_tensorflow_wrote(data_dir: Path) -> None:
    tensors = read_tensors(data_dir / "tf2_checkpoint")
    kernels = [name for name in tensors if name.startswith("model/block/layer_with_weights-")]
    assert len(kernels) == 40 and len(tensors) == 41, "integers and strings are left out"
    assert tensors[f"model/scalar{SUFFIX}"] == np.float32(1.5)
    assert all(tensors[name].shape == (1, 1, 2, 3) for name in kernels)
    assert len({tensors[name].tobytes() for name in kernels}) == 40


def test_crc_of_the_standard_check_value() -> None:
    """CRC-32C of "123456789" is 0xE3069283; stored rotated by 15 bits plus a constant."""
    rotated = (0xE3069283 >> 15 | 0xE3069283 << 17) & 0xFFFFFFFF
    assert masked_crc32c(b"123456789") == (rotated + 0xA282EAD8) & 0xFFFFFFFF


def test_converted_checkpoint_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf_bundle, "masked_crc32c", zlib.crc32)  # 21 MB twice over; the real one is tested above
    prefix, (variables, state) = tmp_path / "ckpt-1", smurf_variables()
    write_checkpoint(prefix, {**variables, f"optimizer/learning_rate{SUFFIX}": np.array([1e-4], np.float32)})
    target = tmp_path / "cache" / "smurf-kitti.pt"
    assert convert(prefix, target) == 94
    converted = torch.load(target, weights_only=True)
    assert converted.keys() == state.keys()
    assert all(torch.equal(converted[key], value) for key, value in state.items())
    assert load_checkpoint(build_network("smurf"), "smurf", target).startswith("sha256:")
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("pointed", ["prefix", "index", "directory"])
def test_what_may_be_pointed_at(pointed: str, data_dir: Path, tmp_path: Path) -> None:
    for path in data_dir.glob("tf2_checkpoint.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    prefix = tmp_path / "tf2_checkpoint"
    at = {"prefix": prefix, "index": prefix.with_name("tf2_checkpoint.index"), "directory": tmp_path}[pointed]
    assert checkpoint_prefix(at) == prefix


def test_another_checkpoint_is_refused(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not a SMURF checkpoint: 94 keys missing"):
        convert(data_dir / "tf2_checkpoint", tmp_path / "out.pt")
    with pytest.raises(ValueError, match="no TensorFlow checkpoint at"):
        convert(tmp_path / "absent", tmp_path / "out.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["index cut", "index flipped", "data cut", "data flipped", "data gone"])
def test_damage_is_noticed(damage: str, data_dir: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "tf2_checkpoint"
    some_kernel = read_tensors(data_dir / "tf2_checkpoint")[
        f"model/block/layer_with_weights-7/kernel{SUFFIX}"
    ].tobytes()
    for path in data_dir.glob("tf2_checkpoint.*"):
        content = bytearray(path.read_bytes())
        if damage.startswith(path.suffix[1:6].split("-")[0]):
            if damage.endswith("flipped"):
                content[len(content) // 2 if "index" in damage else content.index(some_kernel)] ^= 0x10
            elif damage.endswith("cut"):
                content = content[:30]
        if not (damage == "data gone" and ".data" in path.name):
            (tmp_path / path.name).write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged at|is missing|not a readable"):
        read_tensors(prefix)


def test_names_that_are_not_the_networks() -> None:
    assert key_of("optimizer/iter/.ATTRIBUTES/VARIABLE_VALUE") is None
    assert key_of("feature_model/fnet/conv1/kernel") is None
    assert (
        key_of(f"flow_model/update_block/gru/convq2/bias{SUFFIX}") == "update_block.recurrent_block.convgru2.convq.bias"
    )
