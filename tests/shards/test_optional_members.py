"""Neighbour frames and confidence maps: read when asked for, checked like every other member."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from shards.reader import SampleError, ShardSet
from shards.sample import Buffers
from shards.schema import offset_label
from shards.stream import stream
from shards.verify import verify
from tests.shards.small_set import optional_of, write_set


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return write_set(tmp_path / "kept", optional=optional_of)


def pixels(key: str, suffix: str) -> np.ndarray:
    chunk, pass_index, position = (int(part) for part in key.split("-"))
    data = optional_of(chunk, pass_index, position)[suffix]
    return simplejpeg.decode_jpeg(data, "GRAY")[..., 0] if "conf" in suffix else simplejpeg.decode_jpeg(data, "RGB")


def test_they_are_read_when_asked_for(kept: Path) -> None:
    data = ShardSet(kept)
    for i, key in enumerate(data.keys):
        for k in data.trainable(i):
            label = offset_label(data.offsets[k])
            sample = data.read(i, k, optional=("neighbour", "confidence"))
            assert sample.neighbour_hwc is not None and sample.confidence_hw is not None
            assert np.array_equal(sample.neighbour_hwc, pixels(key, f"{label}.jpg"))
            assert np.array_equal(sample.confidence_hw, pixels(key, f"{label}.conf.jpg"))
            plain = data.read(i, k)
            assert plain.neighbour_hwc is None and plain.confidence_hw is None
            assert np.array_equal(plain.image_hwc, sample.image_hwc) and np.array_equal(plain.flow_chw, sample.flow_chw)


def test_only_what_has_a_buffer_is_read(kept: Path) -> None:
    data = ShardSet(kept)
    confidence = np.zeros((16, 16), np.uint8)
    assert data.read_into(1, 0, Buffers(neighbour_hwc=np.zeros((32, 32, 3), np.uint8))) == 0  # its flow is not stored
    data.read_into(0, 3, Buffers(confidence_hw=confidence))
    assert np.array_equal(confidence, pixels(data.keys[0], "p2.conf.jpg"))


def test_what_is_not_stored_is_named(kept: Path, shard_set: Path) -> None:
    data = ShardSet(kept)
    masks = data.stored_mask("neighbour"), data.stored_mask("confidence")
    assert masks[0].all() and masks[1][::2].all() and masks[1][1::2].tolist() == [[False, True, True, True]] * 4
    with pytest.raises(SampleError, match=r"000000-00-0001 holds no m2\.conf\.jpg"):
        data.optional_bytes(1, 0, "confidence")
    without = ShardSet(shard_set)
    assert not without.stored_mask("neighbour").any() and without.stored_mask("confidence").shape == (8, 4)
    with pytest.raises(SampleError, match=r"holds no m2\.jpg: extraction was not told to keep it"):
        without.read(0, 0, optional=["neighbour"])


def test_readers_that_do_not_know_them_read_the_same(kept: Path, shard_set: Path) -> None:
    for with_them, without in zip(stream(kept), stream(shard_set), strict=True):
        assert with_them.key == without.key and np.array_equal(with_them.flow_chw, without.flow_chw)
    assert verify(kept, deep=True) == []


@pytest.mark.parametrize("name", ["p1.jpg", "p1.conf.jpg"])
def test_a_flipped_bit_is_found_and_named(kept: Path, name: str) -> None:
    data = ShardSet(kept)
    member = next(m for m in data.members(0) if m.name == name)
    path = kept / data.shard_of(0)
    raw = bytearray(path.read_bytes())
    raw[member.offset + member.size // 2] ^= 0x10
    path.write_bytes(raw)
    wanted = ("neighbour", "confidence")["conf" in name]
    with pytest.raises(SampleError, match=rf"{name} in pass-00/000000\.tar is damaged: its CRC-32"):
        data.read(0, 2, optional=[wanted])  # type: ignore[list-item]
    data.read(0, 2)
    found = [str(problem) for problem in verify(kept)]
    assert any("SHA-256" in text for text in found)
    assert any(f"{data.keys[0]}.{name}" in text and "CRC-32" in text for text in found)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("p1.jpg", (16, 16, 3), "image is 16x16, the set says 32x32"),
        ("p1.conf.jpg", (32, 32, 1), "confidence is 32x32 Gray, the set says 16x16 grey"),
        ("p1.conf.jpg", (16, 16, 3), "confidence is 16x16"),
        ("m1.jpg", None, ""),
    ],
)
def test_deep_verify_finds_a_member_of_another_size_or_none_at_all(
    tmp_path: Path, name: str, shape: tuple[int, int, int] | None, message: str
) -> None:
    """A writer's mistake that no hash can find."""

    def wrong(chunk: int, pass_index: int, position: int) -> dict[str, bytes]:
        members = optional_of(chunk, pass_index, position)
        if (chunk, pass_index, position) == (1, 0, 0):
            kind = {"colorspace": "GRAY", "colorsubsampling": "Gray"} if shape and shape[2] == 1 else {}
            members[name] = b"no JPEG" if shape is None else simplejpeg.encode_jpeg(np.zeros(shape, np.uint8), **kind)
        return members

    root = write_set(tmp_path / "set", optional=wrong)
    assert verify(root) == []
    (problem,) = verify(root, deep=True)
    assert f"000001-00-0000.{name}" in problem.where and message in problem.what


def test_unknown_members_are_checked_by_their_crc_only(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", optional=lambda *_: {"p1.depth.png": b"of a later format"})
    data = ShardSet(root)
    assert "p1.depth.png" in [member.name for member in data.members(3)] and verify(root, deep=True) == []
