"""Sets in remote storage: the same samples as from the folder, few requests, and a defined end to every fault."""

from __future__ import annotations

import builtins
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.blocks import Block, BlockFolder
from shards.files import sha256_of
from shards.reader import ShardSet
from shards.schema import SampleError, ShardSetError
from shards.storage import LocalFolder, Patience, RemoteFolder, StorageError, is_url, open_filesystem, open_folder
from tests.shards.object_store import ObjectStore, storing
from tests.shards.small_set import write_set

fsspec = pytest.importorskip("fsspec", reason="the extra `remote` is not installed")
HASTY = Patience(attempts=3, timeout_s=1.0, pause_s=0.001)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("remote") / "set")


@pytest.fixture
def store(local: Path) -> Iterator[ObjectStore]:
    pytest.importorskip("aiohttp", reason="the extra `remote` is not installed")
    with storing(local) as running:
        yield running


@pytest.fixture
def s3(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> str:
    s3fs = pytest.importorskip("s3fs", reason="the extra `remote` is not installed")
    s3fs.S3FileSystem.clear_instance_cache()  # another test's store was at another port
    for name, value in store.s3_environment.items():
        monkeypatch.setenv(name, value)
    return "s3://bucket"


def same_samples(remote: ShardSet, local: Path) -> None:
    wanted = ShardSet(local)
    assert remote.keys == wanted.keys
    for i in range(len(wanted)):
        for k in wanted.trainable(i):
            one, other = remote.read(i, k), wanted.read(i, k)
            assert np.array_equal(one.image_hwc, other.image_hwc) and np.array_equal(one.flow_chw, other.flow_chw)
            assert one.quantum_px == other.quantum_px


def test_which_places_are_addresses() -> None:
    assert [is_url(p) for p in ("s3://b/x", "memory://x", "a/b", Path("/a"), "C:/x")] == [
        True,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize("block_samples", [0, 2])
def test_every_file_system_gives_the_same_samples(local: Path, store: ObjectStore, s3: str, block_samples: int) -> None:
    memory = fsspec.filesystem("memory")
    for file in local.rglob("*"):
        if file.is_file():
            memory.pipe_file(f"/sets/small/{file.relative_to(local)}", file.read_bytes())
    for url in ("memory://sets/small", f"file://{local}", store.url, s3):
        remote = ShardSet(url, block_samples=block_samples, patience=HASTY)
        remote.expect(np.unique(remote.block))
        same_samples(remote, local)
        same_samples(pickle.loads(pickle.dumps(remote)), local)
        with pytest.raises(ShardSetError, match="is not in a local folder"):
            _ = remote.root


def test_a_block_is_one_request_and_everything_else_one_each(local: Path, store: ObjectStore) -> None:
    remote = ShardSet(store.url, block_samples=8, patience=HASTY)
    assert remote.block.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]  # shards of two samples
    remote.expect([0, 2])
    for i in (0, 1, 4, 5):
        remote.read(i, 2)
    assert len(store.asked(".tar")) == 2
    remote.read(2, 2)  # nobody spoke of this one: picture and flow
    assert len(store.asked(".tar")) == 4
    remote.expect([2, 3])
    for i in (4, 5, 6, 7):
        remote.read(i, 3)
    assert len(store.asked(".tar")) == 5, "block 2 was kept"
    remote.expect([0])
    remote.read(0, 2)
    assert len(store.asked(".tar")) == 6, "block 0 had been let go"


@pytest.mark.parametrize("wrong", ["500", "503", "429", "cuts the body", "hangs"])
def test_what_passes_is_tried_again(local: Path, store: ObjectStore, wrong: str) -> None:
    remote = ShardSet(store.url, patience=Patience(attempts=6, timeout_s=1.0, pause_s=0.001))
    start = len(store.requests)
    store.wrong = lambda number, path: wrong if number - start in (0, 1, 4) else ""
    same_samples(remote, local)
    assert len(store.requests) - start > 6


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("500", r"500.*\(after 3 attempts\)"),
        ("cuts the body", r"\(after 3 attempts\)"),
        ("hangs", r"no answer within the time limit \(after 3 attempts\)"),
        ("403", r"refused \(.*403"),
        ("404", "there is no such file"),
        ("ignores ranges", "the server does not give ranges of files"),
    ],
)
def test_what_does_not_pass_costs_the_sample_with_one_line(store: ObjectStore, wrong: str, reason: str) -> None:
    remote = ShardSet(store.url, patience=Patience(attempts=3, timeout_s=1.0, pause_s=0.001))
    store.wrong = lambda number, path: wrong if path.endswith(".tar") else ""
    with pytest.raises(SampleError, match=rf"000000-00-0000\.jpg in .*000000\.tar.*{reason}") as caught:
        remote.read(0, 2)
    assert "\n" not in str(caught.value)
    assert len(store.asked(".tar")) == (3 if "attempts" in reason else 1)


@pytest.mark.parametrize(
    ("wrong", "reason"), [("500", r"made up \(after 2 attempts\)"), ("403", r"refused \(PermissionError: made up")]
)
def test_an_s3_bucket_that_refuses(store: ObjectStore, s3: str, wrong: str, reason: str) -> None:
    remote = ShardSet(s3, patience=Patience(attempts=2, timeout_s=5, pause_s=0.001))
    store.wrong = lambda number, path: wrong if path.endswith(".tar") else ""
    with pytest.raises(SampleError, match=reason):
        remote.read(0, 2)
    with pytest.raises(ShardSetError, match="no shard set at s3://bucket/nothing"):
        ShardSet(f"{s3}/nothing")


def test_a_credential_that_is_nowhere_counts_as_refused(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(StorageError, match=r"NoCredentialsError: .*\(after 3 attempts\)") as caught:
        RemoteFolder(s3, HASTY).read("manifest.json")
    assert caught.value.refused


def test_storage_that_is_down_gets_one_attempt_until_it_answers(store: ObjectStore) -> None:
    folder = RemoteFolder(store.url, HASTY)
    store.wrong = lambda number, path: "500"
    for tried in (3, 1, 1):
        before = len(store.requests)
        with pytest.raises(StorageError, match=r"bytes 0-4"):
            folder.read_range("manifest.json", 0, 4)
        assert len(store.requests) - before == tried
    store.wrong = lambda number, path: ""
    assert folder.read_range("manifest.json", 0, 1) == b"{" and not folder.down


def test_a_set_that_cannot_be_opened_says_so_in_one_line(store: ObjectStore) -> None:
    with pytest.raises(ShardSetError, match=r"no shard set at .*/bucket/other: there is no manifest\.json"):
        ShardSet(f"{store.url}/other", patience=HASTY)
    store.wrong = lambda number, path: "500"
    with pytest.raises(ShardSetError, match=r"the shard set at .* cannot be read: .*manifest\.json: .*500"):
        ShardSet(store.url, patience=HASTY)
    store.wrong = lambda number, path: "500" if path.endswith("parquet") else ""
    with pytest.raises(ShardSetError, match=r"index\.parquet cannot be read"):
        ShardSet(store.url, patience=HASTY)


def test_a_failed_block_still_leaves_each_sample_its_chance(local: Path, store: ObjectStore) -> None:
    remote = ShardSet(store.url, block_samples=8, patience=HASTY)
    big = 4000  # bytes: only requests for whole blocks are larger

    def wrong(number: int, path: str) -> str:
        asked = (store.requests[number][1] or "").removeprefix("bytes=").split("-")
        return "500" if path.endswith(".tar") and int(asked[1]) - int(asked[0]) > big else ""

    store.wrong = wrong
    remote.expect([0, 1, 2, 3])
    same_samples(remote, local)


def test_changed_objects_are_found_by_their_checksums(tmp_path: Path, store: ObjectStore) -> None:
    root = write_set(tmp_path / "set")
    store.root = root
    remote = ShardSet(store.url, block_samples=8, patience=HASTY)
    shard = root / remote.shard_of(0)
    shard.write_bytes(bytes(len(shard.read_bytes())))
    remote.expect([0])
    with pytest.raises(SampleError, match=r"000000-00-0000\.jpg in pass-00/000000\.tar is damaged: its CRC-32"):
        remote.read(0, 2)


def test_missing_packages_are_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("fsspec"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    with pytest.raises(ValueError, match=r"nope://x/y cannot be opened: .*nope"):
        open_filesystem("nope://x/y")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ValueError, match=r"s3://b/set needs the extra `remote` .*pip install 'flowfeat-shards\[remote\]'"
    ):
        ShardSet("s3://b/set")


def test_reading_ahead_never_holds_more_than_is_expected(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)))
    folder = BlockFolder(LocalFolder(tmp_path))
    for start in range(0, 240, 10):
        folder.expect([Block("file", start, start + 10), Block("file", start + 10, start + 20)])
        assert folder.read_range("file", start + 3, 4) == bytes(range(start + 3, start + 7))
        assert len(folder._held) == 2 and sum(len(f.result()) for f in folder._held.values()) == 20
    assert isinstance(open_folder(tmp_path), LocalFolder)


def test_a_hanging_request_ends_within_its_limit(store: ObjectStore) -> None:
    folder = RemoteFolder(store.url, Patience(attempts=1, timeout_s=0.3, pause_s=0))
    store.wrong = lambda number, path: "hangs"
    began = time.monotonic()
    with pytest.raises(StorageError, match="no answer within the time limit"):
        folder.read("manifest.json")
    assert time.monotonic() - began < 15
    assert sha256_of(store.root / "manifest.json")
