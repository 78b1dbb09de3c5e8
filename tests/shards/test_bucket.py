"""Writing to remote storage: objects whole or not at all on every file system, repeated requests, listings, creation by one alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.bucket import Bucket, is_temporary
from shards.storage import Patience, StorageError
from tests.shards.bucket_store import PAGE, BucketStore, bucket_at

fsspec = pytest.importorskip("fsspec", reason="the extra `remote` is not installed")
HASTY = Patience(attempts=8, timeout_s=1.0, pause_s=0.001)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketStore]:
    with bucket_at(tmp_path / "bucket", monkeypatch) as running:
        yield running


def test_every_file_system_takes_lists_and_gives_the_same(tmp_path: Path, store: BucketStore) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(1000))
    for url in ("s3://bucket", "s3://bucket/a/set", f"file://{tmp_path}/there/set", "memory://sets/written"):
        bucket = Bucket(url, HASTY)
        assert bucket.files() == {} and bucket.size("x") is None
        bucket.put_all([("pass-00/000000.tar", source), ("pass-01/000000.tar", source)])
        bucket.write("manifest.json", b"old")
        bucket.write("manifest.json", b"new!")
        assert bucket.create(".lock", b"one") and not bucket.create(".lock", b"two")
        files = bucket.files()
        assert {name: file.size for name, file in files.items()} == {
            "pass-00/000000.tar": 1000,
            "pass-01/000000.tar": 1000,
            "manifest.json": 4,
            ".lock": 3,
        }
        assert files["manifest.json"].tag and bucket.size("manifest.json") == 4
        bucket.get_all({"manifest.json": 4, "pass-01/000000.tar": 1000}, tmp_path / "got")
        assert (tmp_path / "got" / "manifest.json").read_bytes() == b"new!" and bucket.read(".lock") == b"one"
        assert (tmp_path / "got" / "pass-01" / "000000.tar").read_bytes() == source.read_bytes()
        bucket.delete([".lock", "manifest.json", "never-there"])
        with pytest.raises(StorageError, match="there is no such file") as caught:
            bucket.read("manifest.json")
        assert caught.value.missing and sorted(bucket.files()) == ["pass-00/000000.tar", "pass-01/000000.tar"]
        bucket.delete(bucket.files())


def test_a_listing_of_several_pages(store: BucketStore) -> None:
    for number in range(PAGE + 5):
        (store.root / f"{number:03d}").touch()
    assert len(Bucket("s3://bucket", HASTY).files()) == PAGE + 5 and store.count("GET") == 2


def test_a_file_system_that_shows_half_files_gets_a_temporary_name_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Bucket(f"file://{tmp_path}/set", HASTY)
    moved: list[str] = []

    def stops(source: str, target: str) -> None:
        moved.append(source)
        raise KeyboardInterrupt

    monkeypatch.setattr(bucket._filesystem, "mv", stops)
    with pytest.raises(KeyboardInterrupt):
        bucket.write("manifest.json", b"half of it")
    (left,) = bucket.files()
    assert moved[0].endswith(left) and is_temporary(left) and left.startswith(".manifest.json.")
    assert not is_temporary("manifest.json") and not is_temporary(".log/x.tmp")


@pytest.mark.parametrize("wrong", ["500", "503", "cuts the upload", "hangs"])
def test_an_upload_that_fails_is_repeated_and_never_leaves_half_an_object(
    tmp_path: Path, store: BucketStore, wrong: str
) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(300_000))
    seen: list[bool] = []

    def fails(number: int, what: str) -> str:
        seen.append((store.root / "shard.tar").exists())
        return wrong if len(seen) <= 2 else ""

    store.wrong = fails
    Bucket("s3://bucket", HASTY).put("shard.tar", source)
    assert (store.root / "shard.tar").read_bytes() == source.read_bytes() and not any(seen)
    store.wrong = lambda number, what: wrong
    calls = len(store.calls)
    quick = Bucket("s3://bucket", Patience(attempts=2, timeout_s=0.3, pause_s=0.001))
    with pytest.raises(StorageError, match=r"s3://bucket/other\.tar: .*\(after 2 attempts\)") as caught:
        quick.put("other.tar", source)
    assert not caught.value.refused and "\n" not in str(caught.value)
    assert not (store.root / "other.tar").exists() and quick.down and len(store.calls) > calls


@pytest.mark.parametrize(("wrong", "said"), [("expired", "made up: ExpiredToken"), ("403", "made up: AccessDenied")])
def test_a_refusal_is_not_repeated(tmp_path: Path, store: BucketStore, wrong: str, said: str) -> None:
    store.wrong = lambda number, what: wrong
    with pytest.raises(StorageError, match=rf"refused \(PermissionError: {said}\)") as caught:
        Bucket("s3://bucket", HASTY).write("manifest.json", b"{}")
    assert caught.value.refused and len(store.calls) == 1


def test_a_large_object_goes_in_parts_and_a_failed_one_leaves_none(
    tmp_path: Path, store: BucketStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda size, chunksize=None, **_: 100_000)
    source = tmp_path / "source"
    source.write_bytes(os.urandom(250_000))
    bucket = Bucket("s3://bucket", HASTY)
    bucket.put("shard.tar", source)
    assert (store.root / "shard.tar").read_bytes() == source.read_bytes()
    assert store.count("PUT") == 3 and store.count("POST") == 2
    store.wrong = lambda number, what: "403" if what.startswith("PUT") else ""
    with pytest.raises(StorageError, match="refused"):
        bucket.put("other.tar", source)
    assert not (store.root / "other.tar").exists() and not any(store.parts.iterdir())
