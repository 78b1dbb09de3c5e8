"""Sets whose metadata lies although every digest fits: refused in one line, and nothing outside the set is opened."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards import schema
from shards.files import sha256_of
from shards.reader import ShardSet, ShardSetError
from shards.sample import StoredMember
from shards.verify import verify
from tests.shards.small_set import write_set


def resign(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit the manifest and make its digest fit again."""
    body = json.loads((root / schema.MANIFEST).read_bytes())
    change(body)
    body["self_sha256"] = schema.self_digest(body)
    (root / schema.MANIFEST).write_text(json.dumps(body))


def rewrite(root: Path, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Edit index or videos, and sign them."""
    pq.write_table(change(pq.read_table(root / name)), root / name)
    digest = hashlib.sha256((root / name).read_bytes()).hexdigest()
    resign(root, lambda body: body["files"][name].update(sha256=digest))


def edited(column: str, row: int, value: object) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        rows[row][column] = value
        return pa.Table.from_pylist(rows, schema=table.schema)

    return change


@pytest.mark.parametrize("path", ["../other/000000.tar", "/dev/zero", "pass-00/../x.tar", "pass-0/000000.tar", "", 7])
def test_paths_that_are_no_shards_are_refused(shard_set: Path, path: object) -> None:
    resign(shard_set, lambda body: body["shards"][0].update(path=path))
    for opened in (ShardSet, verify):
        with pytest.raises(ShardSetError, match="is not what format 1 says"):
            opened(shard_set)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.pop("settings"),
        lambda body: body["settings"].update(image_size="448"),
        lambda body: body["settings"].update(unknown=1),
        lambda body: body["settings"].update(offsets=None),
        lambda body: body.update(shards={"a": 1}),
        lambda body: body["shards"].append(body["shards"][0]),
        lambda body: body["shards"][0].update(bytes=-1),
        lambda body: body.update(files=[]),
        lambda body: body["files"].update({schema.INDEX: None}),
        lambda body: body.update(passes="2"),
        lambda body: body.update(complete=1),
        lambda body: body.update(counts=3),
    ],
)
def test_a_manifest_that_lacks_something_is_one_line(
    shard_set: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    resign(shard_set, change)
    with pytest.raises(ShardSetError, match=r"is not what format 1 says.*rerun"):
        ShardSet(shard_set)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.drop_columns(["frame"]), "has no column 'frame'"),
        (lambda table: table.set_column(4, "frame", pa.array(["x"] * len(table))), "is damaged"),
        (edited("shard", 0, "/dev/zero"), "names the shard '/dev/zero', which the manifest does not list"),
        (edited("shard", 0, "pass-01/000000.tar"), "has the key '000000-00-0000' in a shard whose keys are others"),
        (edited("key", 2, "../../x"), "has the key '../../x'"),
        (edited("image_size", 1, 1 << 30), "image of 000000-00-0001 lies outside its shard"),
        (edited("json_offset", 1, -8), "json of 000000-00-0001 lies outside its shard"),
        (edited("flow_offset", 0, [1 << 62, 0, 0, 0]), "flow of 000000-00-0000 lies outside its shard"),
        (edited("video", 0, None), "has an empty field in column 'video'"),
        (edited("status", 0, ["stored", "stored", "fine", "stored"]), "holds the pair status 'fine'"),
    ],
)
def test_an_index_that_lies_is_refused(shard_set: Path, change: Callable[[pa.Table], pa.Table], said: str) -> None:
    rewrite(shard_set, schema.INDEX, change)
    with pytest.raises(ShardSetError, match=said):
        ShardSet(shard_set)
    assert any(said in str(problem) for problem in verify(shard_set))


def test_an_optional_member_beyond_the_shard_is_refused(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", optional=lambda *place: {"p1.jpg": b"x"})
    member = {"name": "p1.jpg", "offset": 1 << 40, "size": 4, "crc32": 0}
    rewrite(root, schema.INDEX, edited("optional_members", 3, [member]))
    with pytest.raises(ShardSetError, match="optional of 000001-00-0001 lies outside its shard"):
        ShardSet(root)


def test_an_index_that_is_no_parquet_is_refused(shard_set: Path) -> None:
    (shard_set / schema.INDEX).write_bytes(b"hello")
    digest = hashlib.sha256(b"hello").hexdigest()
    resign(shard_set, lambda body: body["files"][schema.INDEX].update(sha256=digest))
    with pytest.raises(ShardSetError, match="is no parquet file"):
        ShardSet(shard_set)


@pytest.mark.parametrize("kind", ["pipe", "device", "outside"])
def test_shards_are_regular_files_of_the_set(shard_set: Path, tmp_path: Path, kind: str) -> None:
    """A pipe without a writer would hang whoever opens it."""
    shard = shard_set / "pass-00" / "000000.tar"
    if kind == "outside":
        shard.rename(tmp_path / "elsewhere.tar")
        shard.symlink_to(tmp_path / "elsewhere.tar")
    else:
        shard.unlink()
        os.mkfifo(shard) if kind == "pipe" else shard.symlink_to("/dev/zero")
    with pytest.raises(ShardSetError, match=r"is no regular file|lies outside its set"):
        ShardSet(shard_set)
    assert verify(shard_set, deep=True)


def test_a_shard_that_the_disk_does_not_give_back_is_one_problem(
    shard_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are looked at all the same."""

    def failing(path: Path) -> str:
        if path.name == "000000.tar":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return sha256_of(path)

    monkeypatch.setattr("shards.verify.sha256_of", failing)
    whole = (shard_set / "pass-01" / "000001.tar").read_bytes()
    (shard_set / "pass-01" / "000001.tar").write_bytes(whole[:-1] + b"x")
    found = [str(problem) for problem in verify(shard_set)]
    assert [line for line in found if "cannot be read: Input/output error" in line] == [
        f"pass-0{n}/000000.tar: cannot be read: Input/output error" for n in range(2)
    ]
    assert any(line.startswith("pass-01/000001.tar: SHA-256") for line in found)


def test_a_pipe_for_an_index_is_refused(shard_set: Path) -> None:
    (shard_set / schema.INDEX).unlink()
    os.mkfifo(shard_set / schema.INDEX)
    with pytest.raises(ShardSetError, match="no regular file"):
        ShardSet(shard_set)


def test_shards_of_two_plans_are_found(shard_set: Path) -> None:
    """A video that lies in two places, as a lost plan once made them; every digest fits."""
    rewrite(shard_set, schema.VIDEOS, edited("position", 0, 2))
    assert any("shards of two plans are mixed" in str(problem) for problem in verify(shard_set))


def test_a_set_that_cannot_be_continued_says_so(shard_set: Path) -> None:
    (shard_set / schema.PLAN).unlink()
    assert ["extraction cannot continue it" in str(problem) for problem in verify(shard_set)] == [True]


def test_chunks_that_have_landed_are_not_denied(shard_set: Path) -> None:
    (shard_set / schema.MANIFEST).unlink()
    with pytest.raises(ShardSetError, match="chunks have landed, and extraction has not written one yet"):
        ShardSet(shard_set)


def test_names_and_keys_are_sequences_of_strings(shard_set: Path) -> None:
    data = ShardSet(shard_set)
    assert data.keys[0] == "000000-00-0000" and data.keys[-1] == list(data.keys)[-1] == "000001-01-0001"
    assert data.keys[1:3] == ["000000-00-0001", "000001-00-0000"] and data.keys.index("000001-00-0000") == 2
    assert data.video == list(data.video) and data.video[2] == "video-1-0" and "video-1-0" in data.video
    assert data.keys == ShardSet(shard_set).keys and data.keys != list(data.keys)[1:]


def test_deep_verification_looks_at_each_row_once(shard_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    members = ShardSet.members

    def note(data: ShardSet, i: int) -> list[StoredMember]:
        asked.append(i)
        return members(data, i)

    monkeypatch.setattr(ShardSet, "members", note)
    verify(shard_set, deep=True)
    assert sorted(asked) == sorted(2 * list(range(8)))
