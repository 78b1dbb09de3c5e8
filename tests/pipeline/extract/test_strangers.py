"""What lies where a set shall go belongs to somebody else, until it says that it is a set of this format with its records."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.extract.strangers import PlanError, refuse_strangers
from shards import schema
from shards.records import committed
from shards.verify import verify
from tests.pipeline.extract.in_process import run_here
from tests.pipeline.extract.small_extraction import digests, make_videos, request


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"), 2)


@pytest.fixture(scope="module")
def finished(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "set"
    run_here(request(videos, out))
    return out


@pytest.fixture
def shard_set(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_a_copy_without_records_is_not_made_over(videos: Path, shard_set: Path) -> None:
    """It had been planned anew, and its shards replaced by others of whatever settings were given."""
    shutil.rmtree(shard_set / schema.RECORDS)
    before = digests(shard_set)
    with pytest.raises(
        PlanError, match="has no records: it can be read, but not continued; copy them, too, or give another --out"
    ):
        run_here(request(videos, shard_set, content={"image_size": 96}))
    assert digests(shard_set) == before and verify(shard_set) == []


def _version(root: Path) -> None:
    path = root / schema.MANIFEST
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_version, "manifest.json is not of format flowfeat-shards 1 (it says 'flowfeat-shards', 2)"),
        (lambda root: (root / schema.MANIFEST).write_text("[1]"), "(it says None, None)"),
        (lambda root: (root / schema.MANIFEST).write_text('{"format": "webdataset"}'), "(it says 'webdataset', None)"),
    ],
)
def test_a_manifest_of_another_format_is_not_replaced(
    videos: Path, shard_set: Path, change: Callable[[Path], object], said: str
) -> None:
    change(shard_set)
    before = digests(shard_set)
    with pytest.raises(PlanError) as refused:
        run_here(request(videos, shard_set))
    assert said in str(refused.value) and digests(shard_set) == before


def test_somebody_elses_files_with_the_names_of_ours(tmp_path: Path) -> None:
    home = tmp_path / "website"
    home.mkdir()
    for content, said in (('{"name": "my site"}', "is not of format"), ("{", "cannot be read")):
        (home / schema.MANIFEST).write_text(content)
        with pytest.raises(PlanError, match=said):
            refuse_strangers(home)
    music = tmp_path / "music"
    (music / schema.RECORDS).mkdir(parents=True)
    (music / schema.RECORDS / "blue.flac").write_bytes(b"")
    with pytest.raises(PlanError, match="is not empty and no shard set"):
        refuse_strangers(music)
    (tmp_path / "dangling").symlink_to("nowhere")
    for other in (home / schema.MANIFEST, tmp_path / "dangling"):
        with pytest.raises(PlanError, match="is no directory; give an --out of its own"):
            refuse_strangers(other)


def test_what_a_killed_run_has_left_is_no_stranger(videos: Path, shard_set: Path, tmp_path: Path) -> None:
    (shard_set / schema.MANIFEST).write_text('{"format": "flowf')  # torn, with all records
    before = json.loads((shard_set / schema.PLAN).read_bytes())
    assert (
        run_here(request(videos, shard_set)).complete and json.loads((shard_set / schema.PLAN).read_bytes()) == before
    )
    begun = tmp_path / "begun"
    (begun / schema.RECORDS).mkdir(parents=True)
    (begun / schema.RECORDS / ".plan.json.17-3.tmp").write_bytes(b"{")
    refuse_strangers(begun)
    refuse_strangers(tmp_path / "new")


def test_files_that_copying_has_left_are_passed_over(videos: Path, shard_set: Path) -> None:
    """They ended every command with `invalid literal for int()`."""
    for name in ("._000000", "000000 (1)", "foo", "0"):
        shutil.copy(shard_set / "pass-00/000000.tar", shard_set / f"pass-00/{name}.tar")
        shutil.copy(shard_set / "records/pass-00/000000.parquet", shard_set / f"records/pass-00/{name}.parquet")
    (shard_set / "pass-xx").mkdir()
    (shard_set / "pass-xx" / "000000.tar").write_bytes(b"")
    assert committed(shard_set) == {(0, 0), (0, 1)} and run_here(request(videos, shard_set)).complete
    found = {problem.where: problem.what for problem in verify(shard_set)}
    assert found["pass-00/foo.tar"] == "not in the manifest: no shard has such a name; move it out of the set"
    (shard_set / "pass-01/000000.tar").unlink()
    (shard_set / "pass-01/000000.tar").mkdir()
    assert committed(shard_set) == {(0, 0)}, "a folder is no shard"
