"""One extraction at a time on a set in a bucket: who is refused, whose lock is stale, and what becomes of a run that has lost its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from common.command import PlainError
from common.holder import Holder
from pipeline.extract.remote_claim import Claim
from pipeline.extract.remote_lock import NAME, RemoteLock
from pipeline.video.decoder import Decoder
from shards.bucket import Bucket
from shards.storage import StorageError
from tests.pipeline.extract.remote_extraction import HASTY, extract_to, prepared
from tests.pipeline.extract.small_extraction import digests, make_videos
from tests.shards.bucket_store import BucketStore

URL = "s3://bucket/set"


def lock(beat_s: float = 60.0, expires_s: float = 300.0) -> RemoteLock:
    return RemoteLock(Bucket(URL, HASTY), beat_s=beat_s, expires_s=expires_s)


def elsewhere(age_s: float) -> bytes:
    claim = Claim("another", replace(Holder.here("a run"), host="far-away", place="another boot"), 0.0)
    return json.dumps({**json.loads(claim.to_bytes()), "beat_s": time.time() - age_s}).encode()


def test_the_second_is_refused_in_one_line_while_the_first_lives(store: BucketStore) -> None:
    for url in (URL, f"file://{store.root}/there", "memory://locked/set"):
        bucket = Bucket(url, HASTY)
        with RemoteLock(bucket), pytest.raises(PlainError, match=f"already at work in {url}: a run, process") as caught:
            RemoteLock(bucket).__enter__()
        assert "\n" not in str(caught.value) and bucket.files() == {}
        with RemoteLock(bucket):
            assert NAME in bucket.files()


def test_a_second_extraction_is_refused_and_the_first_is_not_disturbed(
    store: BucketStore, tmp_path: Path, decoder: Decoder
) -> None:
    videos = make_videos(tmp_path / "videos", 1)
    with prepared(videos, URL, tmp_path / "scratch", decoder) as (_, _, runner):
        assert runner is not None
        with pytest.raises(PlainError, match="an extraction is already at work in s3://bucket/set"):
            extract_to(videos, URL, tmp_path / "other-machine", decoder)
        assert (store.root / "set" / NAME).exists()


def test_the_lock_of_a_process_that_was_killed_here_is_stale_at_once(store: BucketStore) -> None:
    code = f"""
from shards.bucket import Bucket
from pipeline.extract.remote_lock import RemoteLock
import os, signal
RemoteLock(Bucket({URL!r})).__enter__()
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert (store.root / "set" / NAME).exists()
    with lock(beat_s=0.01) as taken:
        taken.check()
    assert not (store.root / "set" / NAME).exists()


def test_another_machines_lock_is_stale_when_it_has_not_been_renewed(store: BucketStore) -> None:
    (store.root / "set").mkdir()
    (store.root / "set" / NAME).write_bytes(elsewhere(200))
    with pytest.raises(
        PlainError, match=r"a run, process \d+ on far-away, last sign of life 2\d\d s ago; wait for it, or stop it"
    ):
        lock().__enter__()
    (store.root / "set" / NAME).write_bytes(elsewhere(310))
    with lock(beat_s=0.01) as taken:
        taken.check()
    (store.root / "set" / NAME).write_text("something else")
    with pytest.raises(PlainError, match=r"s3://bucket/set/\.lock is not ours: delete it if no extraction is at work"):
        lock().__enter__()


def test_it_is_renewed_and_whoever_loses_it_stops(store: BucketStore) -> None:
    place = store.root / "set" / NAME
    with lock(beat_s=0.02) as held:
        first = place.read_bytes()
        until = time.monotonic() + 20
        while place.read_bytes() == first and time.monotonic() < until:
            time.sleep(0.01)
        assert place.read_bytes() != first
        held.check()
        with pytest.raises(PlainError, match="on far-away"):
            while time.monotonic() < until:
                # Whole or not at all, as a store's objects; again, because a renewal that is under way may write over it.
                (store.root.parent / "other").write_bytes(elsewhere(0))
                os.replace(store.root.parent / "other", place)
                held.check()
                time.sleep(0.01)
    assert b"far-away" in place.read_bytes(), "the other's lock is left alone"


def test_a_lock_that_cannot_be_renewed_is_given_up_when_it_has_expired(store: BucketStore) -> None:
    with lock(beat_s=0.02, expires_s=0.2) as held:
        store.wrong = lambda number, what: "500"
        until = time.monotonic() + 30
        with pytest.raises(StorageError, match=r"\.lock"):
            while time.monotonic() < until:
                held.check()
                time.sleep(0.01)
        store.wrong = lambda number, what: ""


def test_an_answer_that_was_lost_does_not_lock_us_out(store: BucketStore) -> None:
    """The object is created, the answer never comes, and the repeated request finds the object."""
    with lock() as first:
        mine = (store.root / "set" / NAME).read_bytes()
        again = lock()
        again._claim._me = Claim.from_bytes(mine) or again._claim._me
        with again:
            again.check()
        first.check()


def test_on_a_store_without_conditions_the_loser_ends(store: BucketStore, tmp_path: Path, decoder: Decoder) -> None:
    store.conditional = False
    videos = make_videos(tmp_path / "videos", 2)
    with lock(beat_s=0.02) as first, lock() as second:
        until = time.monotonic() + 20
        with pytest.raises(PlainError, match="already at work"):
            while time.monotonic() < until:
                first.check()
                time.sleep(0.01)
        second.check()
    extract_to(videos, URL, tmp_path / "scratch", decoder, passes=1)
    assert digests(store.root / "set")
