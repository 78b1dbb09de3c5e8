"""Sets written to remote storage: the bytes of a local run, whole objects in the right order, and any machine can go on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.extract import run as run_module
from pipeline.extract.plan import PlanError
from pipeline.extract.runner import ChunkDone, Event
from pipeline.video.decoder import Decoder
from shards.schema import read_manifest
from shards.verify import verify
from tests.pipeline.extract.remote_extraction import extract_to
from tests.pipeline.extract.small_extraction import digests, make_videos
from tests.shards.bucket_store import BucketStore

fsspec = pytest.importorskip("fsspec", reason="the extra `remote` is not installed")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"), 3)


def test_the_bytes_of_a_local_run_on_every_file_system(
    videos: Path, whole: dict[str, str], store: BucketStore, tmp_path: Path, decoder: Decoder
) -> None:
    memory = fsspec.filesystem("memory")
    for url in ("s3://bucket/deep/set", f"file://{tmp_path}/there", "memory://sets/extracted"):
        manifest = extract_to(videos, url, tmp_path / "scratch", decoder)
        assert manifest.complete and verify(url, deep=True) == [], url
        assert not any((tmp_path / "scratch").iterdir()), "nothing local is kept"
    memory.get("/sets/extracted", str(tmp_path / "copy"), recursive=True)
    for folder in (store.root / "deep" / "set", tmp_path / "there", tmp_path / "copy"):
        assert digests(folder) == whole and not (folder / ".lock").exists()
    kept = {p.name for p in (store.root / "deep" / "set" / ".sources").iterdir()}
    assert kept == {"000000.json", "000001.json"}


def test_objects_come_in_an_order_in_which_any_moment_may_be_the_last(
    videos: Path, store: BucketStore, tmp_path: Path, decoder: Decoder
) -> None:
    extract_to(videos, "s3://bucket/set", tmp_path / "scratch", decoder)
    put = [name.removeprefix("set/") for method, name in store.calls if method == "PUT"]
    put = [name for name in put if not name.startswith((".lock", ".log"))]
    assert put[0] == "records/plan.json" and put[-3:] == ["index.parquet", "videos.parquet", "manifest.json"]
    for record in (name for name in put if name.startswith("records/pass-")):
        at = put.index(record)
        shard = record.removeprefix("records/").replace(".parquet", ".tar")
        told = f"records/videos/{record[-14:-8]}.json"
        assert put.index(shard) < put.index(told) < at
    per_shard = sum(name.endswith(".tar") or name.startswith("records/pass-") for name in put)
    assert per_shard == 2 * 4 and len(put) == per_shard + 2 * 2 + 4, "what docs/buckets.md says it costs"


def test_another_machine_goes_on_and_a_rerun_uploads_nothing(
    videos: Path, whole: dict[str, str], store: BucketStore, tmp_path: Path, decoder: Decoder
) -> None:
    extract_to(videos, "s3://bucket/set", tmp_path / "one", decoder, passes=1)
    extract_to(videos, "s3://bucket/set", tmp_path / "other", decoder, passes=2)
    assert digests(store.root / "set") == whole
    store.calls.clear()
    extract_to(videos, "s3://bucket/set", tmp_path / "third", decoder)
    put = {name for method, name in store.calls if method == "PUT"}
    assert {name for name in put if not name.startswith("set/.log/")} == {"set/.lock"}
    assert not any(name.endswith(".tar") for _, name in store.calls), "shards are not read"
    (store.root / "set" / "pass-01" / "000000.tar").unlink()
    os.truncate(store.root / "set" / "pass-00" / "000001.tar", 3000)
    extract_to(videos, "s3://bucket/set", tmp_path / "third", decoder)
    assert digests(store.root / "set") == whole


def test_a_record_that_is_younger_than_the_manifest_is_read_again(
    videos: Path, store: BucketStore, tmp_path: Path, decoder: Decoder
) -> None:
    """As a run leaves it that is killed after it has made a shard again: the manifest describes the shard that was there before."""
    extract_to(videos, "s3://bucket/set", tmp_path / "scratch", decoder, passes=1)
    root = store.root / "set"
    place = root / "records" / "pass-00" / "000001.parquet"
    table = pq.read_table(place)
    note = json.loads(table.schema.metadata[b"flowfeat"])
    note["shard"]["sha256"] = "0" * 64
    pq.write_table(table.replace_schema_metadata({"flowfeat": json.dumps(note)}), place)
    for path in root.rglob("*"):
        os.utime(path, (1e9, 1e9 + (path == place)))
    extract_to(videos, "s3://bucket/set", tmp_path / "scratch", decoder, passes=1)
    assert [info.sha256 for info in read_manifest(root).shards][1] == "0" * 64


def test_passes_are_taken_back_in_the_bucket_too(
    videos: Path, store: BucketStore, tmp_path: Path, decoder: Decoder
) -> None:
    from pipeline.extract.plan import Continuing

    extract_to(videos, "s3://bucket/set", tmp_path / "scratch", decoder, passes=1)
    one = digests(store.root / "set")
    extract_to(videos, "s3://bucket/set", tmp_path / "scratch", decoder, passes=2)
    continuing = Continuing(drop_passes=True)
    extract_to(videos, "s3://bucket/set", tmp_path / "scratch", decoder, passes=1, continuing=continuing)
    assert digests(store.root / "set") == one


def test_a_manifest_of_what_has_landed_so_far_lists_nothing_else(
    videos: Path, store: BucketStore, tmp_path: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "PARTIAL_MANIFEST_EVERY_S", 0.0)
    monkeypatch.setattr(run_module, "PUBLISHING_WAIT_S", 30.0)
    seen: list[int] = []

    def watch(number: int, what: str) -> str:
        if what == "PUT set/manifest.json":
            seen.append(len(list((store.root / "set").glob("records/pass-*/*.parquet"))))
        return ""

    store.wrong = watch
    extract_to(videos, "s3://bucket/set", tmp_path / "scratch", decoder, content={"chunk_videos": 1})
    assert len(seen) >= 2 and seen[-1] == 6
    manifest = json.loads((store.root / "set" / "manifest.json").read_bytes())
    assert manifest["complete"] and len(manifest["shards"]) == 6


def test_a_chunk_is_done_when_it_is_in_the_bucket(
    videos: Path, store: BucketStore, tmp_path: Path, decoder: Decoder
) -> None:
    there: list[bool] = []

    def note(event: Event) -> None:
        if isinstance(event, ChunkDone):
            there.append((store.root / "set" / "records" / "pass-01" / f"{event.chunk:06d}.parquet").exists())

    scratch = tmp_path / "scratch"
    extract_to(videos, "s3://bucket/set", scratch, decoder, note, scratch_gib=1e-9)
    assert there == [True, True], "also where scratch has room for one chunk only"


def test_what_cannot_be_continued_is_refused_under_the_address_and_leaves_it_alone(
    videos: Path, store: BucketStore, tmp_path: Path, decoder: Decoder
) -> None:
    (store.root / "mine").mkdir()
    (store.root / "mine" / "notes.txt").write_text("not a set")
    with pytest.raises(PlanError, match=r"^s3://bucket/mine is not empty and no shard set \(it holds 'notes.txt'\)"):
        extract_to(videos, "s3://bucket/mine", tmp_path / "scratch", decoder)
    assert [p.name for p in (store.root / "mine").iterdir()] == ["notes.txt"]
    extract_to(videos, "s3://bucket/set", tmp_path / "scratch", decoder, passes=1)
    before = digests(store.root / "set")
    with pytest.raises(PlanError, match="the set at s3://bucket/set was made with other settings"):
        extract_to(videos, "s3://bucket/set", tmp_path / "scratch", decoder, content={"seed": 1})
    assert digests(store.root / "set") == before and not (store.root / "set" / ".lock").exists()
    assert not any((tmp_path / "scratch").iterdir())


def test_damage_in_a_bucket_is_found(videos: Path, store: BucketStore, tmp_path: Path, decoder: Decoder) -> None:
    extract_to(videos, "s3://bucket/set", tmp_path / "scratch", decoder, passes=1)
    shard = store.root / "set" / "pass-00" / "000000.tar"
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    (store.root / "set" / "pass-00" / "000009.tar").write_bytes(b"left over")
    found = [str(problem) for problem in verify("s3://bucket/set")]
    assert any("pass-00/000000.tar: SHA-256 differs" in line for line in found)
    assert any("000000-00-0000.jpg in pass-00/000000.tar is damaged" in line for line in found)
    assert any("pass-00/000009.tar: not in the manifest" in line for line in found)
    shard.unlink()
    gone = "pass-00/000000.tar: missing; rerun the extraction command to make it again"
    assert gone in [str(problem) for problem in verify("s3://bucket/set")]
