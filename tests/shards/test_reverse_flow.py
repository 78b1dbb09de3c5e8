"""Flow back from a neighbour to its anchor: stored on request, read when asked for, checked like every other member."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from shards.codec import encode_flow
from shards.reader import SampleError, ShardSet
from shards.schema import MANIFEST, Settings, offset_label
from shards.stream import stream
from shards.verify import verify
from tests.shards.small_set import SETTINGS, flow_of, optional_of, write_set
from tests.shards.test_spec_reader import stranger_reads_flow


def back_of(chunk: int, pass_index: int, position: int) -> dict[str, bytes]:
    """What `optional_of` keeps, and reverse flow beside it; not for neighbour m2 of the second video, which has no flow."""
    kept = optional_of(chunk, pass_index, position)
    for k, offset in enumerate(SETTINGS.offsets):
        if (position, k) != (1, 0):
            kept[f"{offset_label(offset)}.reverse"] = encode_flow(
                np.float32(-0.5) * flow_of(chunk, pass_index, position, k)
            )
    return kept


@pytest.fixture
def both_ways(tmp_path: Path) -> Path:
    return write_set(tmp_path / "both-ways", optional=back_of)


def test_it_is_read_when_asked_for(both_ways: Path) -> None:
    data = ShardSet(both_ways)
    assert data.manifest.settings.keep_reverse
    for i, key in enumerate(data.keys):
        for k in data.trainable(i):
            chunk, pass_index, position = (int(part) for part in key.split("-"))
            sample = data.read(i, k, optional=["reverse"])
            assert sample.reverse is not None and sample.neighbour_hwc is None
            wanted = -0.5 * flow_of(chunk, pass_index, position, k)
            found = sample.reverse.values_chw * sample.reverse.quantum_px
            assert np.abs(found - wanted).max() <= sample.reverse.quantum_px / 2
            assert np.array_equal(data.reverse(i, k).values_chw, sample.reverse.values_chw)
            assert data.read(i, k).reverse is None
    assert (
        data.stored_mask("reverse")[::2].all()
        and data.stored_mask("reverse")[1::2].tolist() == [[False, *[True] * 3]] * 4
    )
    with pytest.raises(SampleError, match=r"000000-00-0001 holds no m2\.reverse: extraction was not told to keep it"):
        data.reverse(1, 0)


def test_the_stream_gives_the_same(both_ways: Path) -> None:
    data = ShardSet(both_ways)
    where, seen = {key: i for i, key in enumerate(data.keys)}, 0
    for streamed in stream(both_ways, optional=["reverse", "neighbour", "confidence"]):
        i, k = where[streamed.key], data.offsets.index(streamed.offset)
        indexed = data.read(i, k, optional=["reverse", "neighbour", "confidence"])
        assert streamed.reverse is not None and indexed.reverse is not None
        assert np.array_equal(streamed.reverse.values_chw, indexed.reverse.values_chw)
        assert streamed.reverse.quantum_px == indexed.reverse.quantum_px
        for name in ("neighbour_hwc", "confidence_hw", "flow_chw"):
            assert np.array_equal(getattr(streamed, name), getattr(indexed, name))
        seen += 1
    assert seen == 28


def test_the_stream_names_what_is_not_there(shard_set: Path) -> None:
    with pytest.raises(SampleError, match=r"000000-00-0000 holds no m1\.reverse: extraction was not told to keep it"):
        next(stream(shard_set, optional=["reverse"]))


def test_a_stranger_reads_it_as_a_flow_member(both_ways: Path) -> None:
    """The page says: a flow member. So the reader that was written from the page reads it."""
    data, read = ShardSet(both_ways), 0
    with tarfile.open(both_ways / data.shards[0]) as tar:
        names = [member.name for member in tar]
        for name in names:
            key, suffix = name.split(".", 1)
            if not suffix.endswith(".reverse"):
                continue
            stored = tar.extractfile(name)
            assert stored is not None
            values, quantum = stranger_reads_flow(stored.read())
            offset = int(suffix[1:-8]) * (1 if suffix[0] == "p" else -1)
            ours = data.reverse(data.keys.index(key), data.offsets.index(offset))
            assert np.array_equal(values, ours.values_chw) and quantum == ours.quantum_px
            read += 1
    assert read == 7 and names[-1].endswith(".json")


def test_readers_that_do_not_know_it_read_the_same(both_ways: Path, shard_set: Path) -> None:
    for with_it, without in zip(stream(both_ways), stream(shard_set), strict=True):
        assert with_it.key == without.key and np.array_equal(with_it.flow_chw, without.flow_chw)
    assert verify(both_ways, deep=True) == []


def test_a_set_without_it_says_nothing_of_it(shard_set: Path) -> None:
    """Byte for byte what it was before there was such a setting."""
    assert "keep_reverse" not in json.loads((shard_set / MANIFEST).read_bytes())["settings"]
    plain = Settings(dataset="folder", estimator={"name": "none"})
    asked = Settings(dataset="folder", estimator={"name": "none"}, keep_reverse=True)
    assert Settings.from_json(asked.to_json()) == asked and Settings.from_json(plain.to_json()) == plain
    assert asked.differences(plain) == ["keep_reverse: None in the set, True asked for"]


def test_a_flipped_bit_is_found_and_named(both_ways: Path) -> None:
    data = ShardSet(both_ways)
    member = next(m for m in data.members(0) if m.name == "p1.reverse")
    path = both_ways / data.shard_of(0)
    raw = bytearray(path.read_bytes())
    raw[member.offset + member.size // 2] ^= 0x10
    path.write_bytes(raw)
    with pytest.raises(SampleError, match=r"p1\.reverse in pass-00/000000\.tar is damaged: its CRC-32"):
        data.read(0, 2, optional=["reverse"])
    data.read(0, 2)
    assert any(f"{data.keys[0]}.p1.reverse" in str(problem) for problem in verify(both_ways))


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (encode_flow(np.ones((2, 8, 8), np.float32)), "8x8"),
        (b"no flow", "damaged"),
    ],
)
def test_deep_verify_finds_what_no_hash_can(tmp_path: Path, member: bytes, message: str) -> None:
    def wrong(chunk: int, pass_index: int, position: int) -> dict[str, bytes]:
        kept = back_of(chunk, pass_index, position)
        if (chunk, pass_index, position) == (1, 0, 0):
            kept["p1.reverse"] = member
        return kept

    root = write_set(tmp_path / "set", optional=wrong)
    assert verify(root) == []
    (problem,) = verify(root, deep=True)
    assert "000001-00-0000.p1.reverse" in problem.where and message in problem.what
    with pytest.raises(SampleError, match=r"000001-00-0000 in pass-00/000001\.tar"):
        ShardSet(root).reverse(ShardSet(root).keys.index("000001-00-0000"), 2)
