"""Faults of the storage that a set is written to: what passes is repeated, what does not ends in one line, and a rerun completes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from common.command import PlainError
from pipeline.extract.runner import ExtractionError
from pipeline.video.decoder import Decoder
from shards import schema
from shards.files import sha256_of
from shards.records import committed, recorded
from tests.pipeline.extract.remote_extraction import extract_to
from tests.pipeline.extract.small_extraction import digests, make_videos
from tests.shards.bucket_store import BucketStore

URL = "s3://bucket/set"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"), 3)


def only_writes(wrong: str, when: Callable[[int], bool]) -> Callable[[int, str], str]:
    """The n-th write of the set, counted from 0, goes wrong when `when(n)`."""
    count, lock = [0], threading.Lock()

    def decide(number: int, what: str) -> str:
        if not what.startswith("PUT") or ".lock" in what:
            return ""
        with lock:
            count[0] += 1
            return wrong if when(count[0] - 1) else ""

    return decide


def whole_as_far_as_it_goes(root: Path, whole: dict[str, str]) -> None:
    """Every record has its shard, and both are those of an undisturbed run; a manifest lists what is there."""
    assert recorded(root) == committed(root)
    for chunk, pass_index in recorded(root):
        for name in (schema.shard_path(chunk, pass_index), schema.record_path(chunk, pass_index)):
            assert sha256_of(root / name) == whole[name]
    if (root / schema.MANIFEST).exists():
        manifest = schema.read_manifest(root)
        assert {schema.shard_place(info.path) for info in manifest.shards} <= committed(root)
        assert pq.read_metadata(root / schema.INDEX).num_rows == sum(info.samples for info in manifest.shards)


@pytest.mark.parametrize("wrong", ["500", "503", "cuts the upload", "hangs"])
def test_what_passes_changes_nothing(
    videos: Path, whole: dict[str, str], store: BucketStore, tmp_path: Path, decoder: Decoder, wrong: str
) -> None:
    often = 7 if wrong == "hangs" else 3
    store.wrong = only_writes(wrong, lambda number: number % often == 1)
    extract_to(videos, URL, tmp_path / "scratch", decoder)
    assert digests(store.root / "set") == whole


@pytest.mark.parametrize("wrong", ["500", "cuts the body", "hangs"])
def test_records_that_come_badly_are_asked_for_again(
    videos: Path, whole: dict[str, str], store: BucketStore, tmp_path: Path, decoder: Decoder, wrong: str
) -> None:
    extract_to(videos, URL, tmp_path / "scratch", decoder, passes=1)
    failed: set[str] = set()

    def once(number: int, what: str) -> str:
        name = what.removeprefix("GET ")
        if not what.startswith("GET") or name in failed or not name.endswith((".parquet", ".json")):
            return ""
        failed.add(name)
        return wrong if wrong != "hangs" or len(failed) == 2 else ""

    store.wrong = once
    extract_to(videos, URL, tmp_path / "scratch", decoder)
    assert digests(store.root / "set") == whole and len(failed) >= 6


@pytest.mark.parametrize("moment", [0, 2, 4, 7, 13, 15])
def test_whenever_the_connection_goes_the_bucket_is_whole_and_a_rerun_completes(
    videos: Path, whole: dict[str, str], store: BucketStore, tmp_path: Path, decoder: Decoder, moment: int
) -> None:
    """From one write on nothing gets through any more, the end of the run included: what a kill leaves."""
    store.wrong = only_writes("cuts the upload", lambda number: number >= moment)
    with pytest.raises(
        PlainError,
        match=r"s3://bucket/set/.*: wait until .* answers and run the same command again; \d shards .* are safe$",
    ) as caught:
        extract_to(videos, URL, tmp_path / "scratch", decoder)
    assert "\n" not in str(caught.value)
    whole_as_far_as_it_goes(store.root / "set", whole)
    assert not any((tmp_path / "scratch").iterdir())
    store.wrong = lambda number, what: ""
    extract_to(videos, URL, tmp_path / "another-machine", decoder)
    assert digests(store.root / "set") == whole


@pytest.mark.parametrize("wrong", ["expired", "403"])
def test_a_credential_that_expires_ends_in_one_line_and_the_rerun_completes(
    videos: Path, whole: dict[str, str], store: BucketStore, tmp_path: Path, decoder: Decoder, wrong: str
) -> None:
    gone = threading.Event()

    def expires(number: int, what: str) -> str:
        if what == "PUT set/pass-01/000001.tar":
            gone.set()
        return wrong if gone.is_set() else ""

    store.wrong = expires
    with pytest.raises(ExtractionError) as caught:
        extract_to(videos, URL, tmp_path / "scratch", decoder)
    line = str(caught.value)
    assert "refused (PermissionError" in line and "renew the credential" in line and "\n" not in line
    assert line.endswith("2 shards that have landed are safe")
    assert (store.root / "set" / ".lock").exists(), "nobody was allowed to remove it"
    whole_as_far_as_it_goes(store.root / "set", whole)
    store.wrong = lambda number, what: ""
    (store.root / "set" / ".lock").unlink()  # here its process lives on: it is this one
    extract_to(videos, URL, tmp_path / "scratch", decoder)
    assert digests(store.root / "set") == whole


def test_the_traceback_of_a_failed_chunk_is_kept_in_the_bucket(
    videos: Path, store: BucketStore, tmp_path: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> None:
        raise IndexError("made up")

    monkeypatch.setattr("pipeline.extract.stages.encode_sample", breaks)
    with pytest.raises(ExtractionError, match=r"IndexError: made up \(traceback in s3://bucket/set/\.log/extract-"):
        extract_to(videos, URL, tmp_path / "scratch", decoder)
    (log,) = (store.root / "set" / ".log").iterdir()
    assert "Traceback" in log.read_text()


def test_a_bucket_that_cannot_even_be_listed_is_one_line(
    videos: Path, store: BucketStore, tmp_path: Path, decoder: Decoder
) -> None:
    store.wrong = lambda number, what: "403"
    with pytest.raises(PlainError, match=r"s3://bucket/set/\.lock: refused .*renew the credential"):
        extract_to(videos, URL, tmp_path / "scratch", decoder)
    store.wrong = lambda number, what: "403" if what == "GET " else ""
    with pytest.raises(PlainError, match=r"s3://bucket/set: the listing: refused .*renew the credential"):
        extract_to(videos, URL, tmp_path / "scratch", decoder)
    assert not (store.root / "set" / ".lock").exists()
