"""Writing, reading and verifying whole sets."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset as wds

from shards import schema
from shards.codec import decode_flow
from shards.files import atomic_file
from shards.reader import Sample, SampleError, ShardSet, ShardSetError
from shards.stream import stream
from shards.verify import verify
from shards.writer import ChunkWriter
from tests.shards.small_set import CHUNKS, PASSES, SETTINGS, encoded, flow_of, write_set


def digests(root: Path) -> dict[str, str]:
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def test_read_back(shard_set: Path) -> None:
    data = ShardSet(shard_set)
    assert len(data) == CHUNKS * PASSES * 2
    for i, key in enumerate(data.keys):
        chunk, pass_index, position = (int(part) for part in key.split("-"))
        assert data.video[i] == f"video-{chunk}-{position}" and data.pass_index[i] == pass_index
        for k in data.trainable(i):
            sample = data.read(i, k)
            truth = flow_of(chunk, pass_index, position, k)
            assert np.abs(sample.flow_chw * sample.quantum_px - truth).max() <= sample.quantum_px / 2
            assert sample.offset == SETTINGS.offsets[k] and sample.image_hwc.shape == (32, 32, 3)


def test_pairs_that_are_not_trained_on(shard_set: Path) -> None:
    data = ShardSet(shard_set)
    i = data.keys.index("000000-00-0001")
    assert data.trainable(i) == (2, 3)
    with pytest.raises(SampleError, match="no flow for offset -2: non_finite"):
        data.read(i, 0)
    assert data.read(i, 1).offset == -1  # below the noise floor: stored, readable, not trained on


def test_counts_and_videos(shard_set: Path) -> None:
    counts = ShardSet(shard_set).manifest.counts
    assert (
        counts["videos"] == 6 and counts["ok"] == 4 and counts["rejected"] == {"corrupt": 2} and counts["samples"] == 8
    )
    assert counts["pairs"] == {"stored": 24, "still": 4, "non_finite": 4, "out_of_range": 0}
    videos = pq.read_table(shard_set / schema.VIDEOS).to_pylist()
    assert [v["anchors"] for v in videos] == [2, 2, 0, 2, 2, 0]
    assert videos[2]["reason"] == "corrupt" and videos[2]["detail"] == "made up"


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    assert digests(write_set(tmp_path / "a")) == digests(write_set(tmp_path / "b"))


def test_plain_webdataset_reads_it_with_no_code_of_ours(shard_set: Path) -> None:
    urls = [str(p) for p in sorted(shard_set.glob("pass-*/*.tar"))]
    samples = list(wds.WebDataset(urls, shardshuffle=False, empty_check=False).decode("rgb8"))
    assert len(samples) == 8
    assert samples[0]["__key__"] == "000000-00-0000" and samples[0]["jpg"].shape == (32, 32, 3)
    assert decode_flow(samples[0]["p1.flow"]).values_chw.shape == (2, 16, 16)
    assert samples[0]["json"]["neighbours"]["m2"]["offset"] == -2


def test_a_stream_of_what_webdataset_cannot_open_names_the_way_out() -> None:
    with pytest.raises(
        ValueError, match=r"opens no s3:// addresses such as s3://bucket/set: .*pipe:aws s3 cp s3://bucket/set/pass-00"
    ):
        next(stream("s3://bucket/set"))


def test_stream_and_index_agree(shard_set: Path) -> None:
    data = ShardSet(shard_set)
    by_key = {(s.key, s.offset): s for s in stream(shard_set)}
    assert len(by_key) == 28  # 24 above the noise floor and 4 below
    for i, key in enumerate(data.keys):
        for k in data.trainable(i):
            streamed, indexed = by_key[key, data.offsets[k]], data.read(i, k)
            assert np.array_equal(streamed.flow_chw, indexed.flow_chw) and streamed.quantum_px == indexed.quantum_px
            assert np.array_equal(streamed.image_hwc, indexed.image_hwc)


def test_tar_headers_hold_nothing_of_this_machine(shard_set: Path) -> None:
    for path in shard_set.glob("pass-*/*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)


def test_a_set_survives_pickling_with_files_open(shard_set: Path) -> None:
    data = ShardSet(shard_set)
    data.read(0, 0)
    copy = pickle.loads(pickle.dumps(data))
    assert np.array_equal(copy.read(3, 2).flow_chw, data.read(3, 2).flow_chw)


def test_an_intact_set_verifies(shard_set: Path) -> None:
    assert verify(shard_set, deep=True) == []


def test_every_flipped_bit_is_found_and_none_yields_a_wrong_sample(shard_set: Path) -> None:
    """300 random flips over every file of the set: verify finds each, and reading never returns other data than before."""
    data = ShardSet(shard_set)
    truth = {(i, k): data.read(i, k) for i in range(len(data)) for k in data.trainable(i)}
    files = sorted(p for p in shard_set.rglob("*") if p.is_file() and schema.RECORDS not in p.parts)
    sizes = [p.stat().st_size for p in files]
    generator = random.Random(0)
    found = silent = 0
    for _ in range(300):
        path = generator.choices(files, sizes)[0]
        original = path.read_bytes()
        bit = generator.randrange(8 * len(original))
        damaged = bytearray(original)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(damaged))
        found += _finds(shard_set)
        silent += _reads_something_else(shard_set, truth)
        path.write_bytes(original)
    assert (found, silent) == (300, 0)


def _finds(root: Path) -> bool:
    try:
        return bool(verify(root))
    except ShardSetError:
        return True


def _reads_something_else(root: Path, truth: dict[tuple[int, int], Sample]) -> bool:
    try:
        data = ShardSet(root)
    except ShardSetError:
        return False
    for (i, k), expected in truth.items():
        try:
            sample = data.read(i, k)
        except SampleError:
            continue
        if not (
            np.array_equal(sample.flow_chw, expected.flow_chw) and np.array_equal(sample.image_hwc, expected.image_hwc)
        ):
            return True
    return False


def test_verify_names_the_damaged_sample(shard_set: Path) -> None:
    path = shard_set / "pass-01" / "000001.tar"
    data = ShardSet(shard_set)
    i = data.keys.index("000001-01-0001")
    raw = bytearray(path.read_bytes())
    raw[data.members(i)[0].offset + 40] ^= 0x10
    path.write_bytes(bytes(raw))
    text = [str(p) for p in verify(shard_set)]
    assert any("pass-01/000001.tar: SHA-256" in t for t in text)
    assert any("000001-01-0001.jpg" in t and "CRC-32" in t for t in text)


def test_deep_verify_finds_a_swapped_flow(shard_set: Path) -> None:
    """A writer's mistake that no hash can find: the index describes another flow than the member holds."""
    table = pq.read_table(shard_set / schema.INDEX)
    rows = table.to_pylist()
    for name in ("flow_offset", "flow_size", "flow_crc32"):
        rows[0][name][2], rows[0][name][3] = rows[0][name][3], rows[0][name][2]
    manifest = schema.read_manifest(shard_set)
    import dataclasses
    import io

    import pyarrow as pa

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), buffer)
    (shard_set / schema.INDEX).write_bytes(buffer.getvalue())
    files = {**manifest.files, schema.INDEX: {"sha256": hashlib.sha256(buffer.getvalue()).hexdigest()}}
    (shard_set / schema.MANIFEST).write_bytes(dataclasses.replace(manifest, files=files).to_bytes())
    assert verify(shard_set) == []
    assert any("not the one that the index describes" in str(p) for p in verify(shard_set, deep=True))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda root: (root / "manifest.json").unlink(), "no manifest.json"),
        (lambda root: (root / "manifest.json").write_text("{"), "not readable JSON"),
        (lambda root: (root / "manifest.json").write_text('{"format": "other"}'), "not the manifest of a shard set"),
        (lambda root: (root / "index.parquet").write_bytes(b"PAR1"), "does not match the manifest"),
        (lambda root: (root / "index.parquet").unlink(), "cannot be read"),
        (lambda root: (root / "pass-00" / "000001.tar").unlink(), "000001.tar is missing"),
        (lambda root: (root / "pass-00" / "000001.tar").write_bytes(b"0" * 512), "truncated or was replaced"),
    ],
)
def test_broken_sets_are_refused_by_name(shard_set: Path, break_it, message: str) -> None:  # type: ignore[no-untyped-def]
    break_it(shard_set)
    with pytest.raises(ShardSetError, match=message):
        ShardSet(shard_set)
    try:
        assert verify(shard_set)
    except ShardSetError as error:
        assert message in str(error)


def test_missing_set(tmp_path: Path) -> None:
    with pytest.raises(ShardSetError, match="does not exist"):
        ShardSet(tmp_path / "nothing")


def test_another_format_version_is_refused(shard_set: Path) -> None:
    body = json.loads((shard_set / "manifest.json").read_bytes())
    body["version"] = 2
    body["self_sha256"] = schema.self_digest(body)
    (shard_set / "manifest.json").write_text(json.dumps(body))
    with pytest.raises(ShardSetError, match="format version 2; this program reads version 1"):
        ShardSet(shard_set)


def test_an_edited_manifest_is_refused(shard_set: Path) -> None:
    text = (shard_set / "manifest.json").read_text()
    (shard_set / "manifest.json").write_text(text.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ShardSetError, match="does not match its own digest"):
        ShardSet(shard_set)


def test_a_set_being_written(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", landed=1)
    with pytest.raises(ShardSetError, match="2 of 4 shards: it is being written or was interrupted"):
        ShardSet(root)
    assert len(ShardSet(root, allow_partial=True)) == 4
    assert any("2 of 4 shards" in str(p) for p in verify(root))
    assert digests(write_set(root)) == digests(write_set(tmp_path / "whole"))


def test_an_aborted_chunk_leaves_nothing(tmp_path: Path) -> None:
    writer = ChunkWriter(tmp_path, SETTINGS, 0, [0])
    writer.add(0, 0, encoded(0, 0, 0))
    writer.abort()
    assert not list(tmp_path.rglob("*.tar"))


def test_more_passes_extend_a_set_to_the_same_bytes(tmp_path: Path) -> None:
    root = write_set(tmp_path / "grown", passes=1)
    before = digests(root)
    rows = {"frames": 20, "fps": 10.0, "width": 64, "height": 48, "engine": "test"}
    for chunk in range(CHUNKS):
        writer = ChunkWriter(root, SETTINGS, chunk, [1])
        for position in range(2):
            writer.add(1, position, encoded(chunk, 1, position))
        ok = {"status": "ok", "reason": "", "detail": "", **rows}
        bad = {"status": "rejected", "reason": "corrupt", "detail": "made up"}
        writer.commit([{"video": f"video-{chunk}-{i}", **(bad if i == 2 else ok)} for i in range(3)])
    whole = write_set(tmp_path / "whole")
    from shards.writer import finalize

    plan = [
        {"video": f"video-{c}-{i}", "path": f"video-{c}-{i}.mp4", "chunk": c, "position": i}
        for c in range(2)
        for i in range(3)
    ]
    finalize(root, SETTINGS, CHUNKS, PASSES, plan)
    after = digests(root)
    assert after == digests(whole)
    assert all(after[name] == digest for name, digest in before.items() if name.endswith(".tar"))


def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_settings_differences_name_every_one() -> None:
    import dataclasses

    other = dataclasses.replace(SETTINGS, seed=3, estimator={"name": "raft", "weights": "x"})
    lines = other.differences(SETTINGS)
    assert [line.split(":")[0] for line in lines] == ["estimator.name", "estimator.weights", "seed"]
    assert "0 in the set, 3 asked for" in lines[-1]


@pytest.mark.parametrize(("offset", "label"), [(-2, "m2"), (1, "p1"), (14, "p14")])
def test_offset_labels(offset: int, label: str) -> None:
    assert schema.offset_label(offset) == label
