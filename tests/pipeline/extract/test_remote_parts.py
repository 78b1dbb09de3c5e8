"""Parts of one set in a bucket, made at the same time by runs that see nothing but the bucket."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from common.command import PlainError
from pipeline.extract.parts import Part
from pipeline.extract.plan import PlanError
from pipeline.extract.remote_lock import RemoteLock
from pipeline.extract.remote_set import RemoteSet
from pipeline.extract.runner import Event
from pipeline.video.decoder import Decoder
from shards.bucket import Bucket
from shards.verify import verify
from tests.pipeline.extract.in_process import run_here
from tests.pipeline.extract.remote_extraction import HASTY, extract_to, part_to
from tests.pipeline.extract.small_extraction import digests, make_videos, request
from tests.shards.bucket_store import BucketStore

URL = "s3://bucket/set"
SINGLE = {"chunk_videos": 1}


def test_parts_at_the_same_time_give_the_bytes_of_one_run(store: BucketStore, tmp_path: Path, decoder: Decoder) -> None:
    """The second part is made, from begin to end, while the first is at its first chunk."""
    videos = make_videos(tmp_path / "videos", 3)
    others: list[int] = []

    def meanwhile(event: Event) -> None:
        if not others:
            others.append(1)
            second = Decoder()
            ended = part_to(videos, URL, tmp_path / "other", second, part=Part(2, 2), content=SINGLE)
            second.close()
            assert ended.manifest is not None and sorted(ended.missing) == [0, 2]
            assert "part 1/2, process" in ended.at_work[Part(1, 2)], "what is out is not said to be nobody's"
            others.append(len(ended.manifest.shards))

    manifest = extract_to(videos, URL, tmp_path / "scratch", decoder, meanwhile, part=Part(1, 2), content=SINGLE)
    assert others[1] == 2 and manifest.complete and verify(URL) == []
    run_here(request(videos, tmp_path / "whole", content=SINGLE))
    assert digests(store.root / "set") == digests(tmp_path / "whole")
    assert not list((store.root / "set").glob(".lock*"))


def test_runs_with_a_chunk_in_common_are_refused(store: BucketStore) -> None:
    bucket = Bucket(URL, HASTY)
    with RemoteLock(bucket, Part(1, 4)), RemoteLock(bucket, Part(2, 4)):
        for part in (Part(), Part(1, 4), Part(1, 2), Part(2, 8)):
            with pytest.raises(PlainError, match="an extraction is already at work"):
                RemoteLock(bucket, part).__enter__()
        assert len(bucket.files()) == 2
    with RemoteLock(bucket), pytest.raises(PlainError, match="already at work"):
        RemoteLock(bucket, Part(3, 4)).__enter__()
    assert bucket.files() == {}


@pytest.mark.parametrize("at_work", [True, False])
def test_what_another_part_is_uploading_is_no_leftover(tmp_path: Path, at_work: bool) -> None:
    """Where an upload is a file of another name at first."""
    url, upload = f"file://{tmp_path}/set", tmp_path / "set" / "pass-00" / f".000000.tar.{'0' * 32}.tmp"
    upload.parent.mkdir(parents=True)
    upload.touch()
    other = RemoteLock(Bucket(url, HASTY), Part(1, 2)) if at_work else nullcontext()
    with other, RemoteSet(url, tmp_path / "scratch", HASTY).opened(writing=True, part=Part(2, 2)):
        assert upload.exists() == at_work


def test_a_part_with_other_videos_is_refused_before_it_uploads_anything(
    store: BucketStore, tmp_path: Path, decoder: Decoder
) -> None:
    """The other part has begun, with other videos, between this one's look at the bucket and its first upload."""
    videos = make_videos(tmp_path / "videos", 2)
    theirs = b"another plan"

    def plan_comes_between(number: int, what: str) -> str:
        if what == "HEAD set/records/plan.json":
            (store.root / "set" / "records").mkdir()
            (store.root / "set" / "records" / "plan.json").write_bytes(theirs)
        return ""

    store.wrong = plan_comes_between
    with pytest.raises(PlanError, match=r"another part works on the set at s3://bucket/set from another plan"):
        extract_to(videos, URL, tmp_path / "scratch", decoder, part=Part(1, 2), content=SINGLE, passes=1)
    assert not list((store.root / "set").glob("pass-*/*.tar"))
    assert (store.root / "set" / "records" / "plan.json").read_bytes() == theirs
    assert not (store.root / "set" / "manifest.json").exists()


def test_the_plan_is_not_extended_while_another_part_works_from_it(
    store: BucketStore, tmp_path: Path, decoder: Decoder
) -> None:
    videos = make_videos(tmp_path / "videos", 1)
    extract_to(videos, URL, tmp_path / "scratch", decoder, part=Part(1, 2), passes=1)
    before = digests(store.root / "set")
    with RemoteLock(Bucket(URL, HASTY), Part(2, 2)):
        with pytest.raises(PlanError, match=r"another part works on the set .* from another plan"):
            extract_to(videos, URL, tmp_path / "scratch", decoder, part=Part(1, 2), passes=2)
        assert digests(store.root / "set") == before
    assert extract_to(videos, URL, tmp_path / "scratch", decoder, part=Part(1, 2), passes=2).passes == 2
