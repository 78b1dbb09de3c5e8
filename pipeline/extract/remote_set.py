"""A shard set in remote storage, written through a local folder that stands for it.

    <scratch>/flowfeat-<digest of the address>-<process>/
      making/    a set of its own, in which a runner makes chunks; a chunk leaves it once it is in the bucket
      set/       what the bucket holds: plan, records, tables, manifest; shards as files of their size without content

`set/` is what an extraction plans by and finalizes, so it knows nothing of buckets. What is uploaded of a chunk, in this order: its
shards, what became of its videos, its records. Tables and manifest follow, the manifest last: whenever the extraction has made them,
or, where other parts may be at work, once at the end, in turn with them and of all that has landed by then. So whoever is last knows
everything, and no older manifest comes after a newer one. Everything local is made from the bucket when a run begins and is deleted when
it ends: any machine can go on.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from common.command import PlainError
from common.scratch import scratch_folder, scratch_home_of
from pipeline.extract.at_work import PartEnd, taken_over
from pipeline.extract.parts import WHOLE, Part
from pipeline.extract.plan import PlanError
from pipeline.extract.remote_lock import RemoteLock, gate
from pipeline.extract.remote_tables import PUBLISHED, RemoteTables, plan_at
from pipeline.extract.run import finalize_plan
from pipeline.extract.runner import storage_failed
from shards import schema
from shards.bucket import WRITING, Bucket, RemoteFile, is_temporary
from shards.counting import counted
from shards.files import sha256_of
from shards.records import committed, read_videos, recorded, write_videos
from shards.storage import Patience, StorageError

_FETCHED = re.compile(
    rf"{schema.RECORDS}/(plan\.json|videos/\d{{6}}\.json|pass-\d{{2,}}/\d{{6}}\.parquet)|\.sources/\d{{6}}\.json"
)
_FORECAST = ".log/forecast.json"
_LOG = re.compile(r"\.log/[^/]+\.jsonl?")
_SHARD = re.compile(r"pass-\d{2,}/\d{6}\.tar")


class RemoteSet:
    """The set at an address of fsspec. scratch: where its local folder goes.

    Raises ValueError for an address that cannot be opened. Methods raise StorageError.
    """

    def __init__(self, url: str, scratch: Path, patience: Patience = WRITING) -> None:
        self.bucket = Bucket(url, patience)
        self.url = self.bucket.url
        self.home = scratch_home_of(scratch, "flowfeat", self.url)
        self.mirror, self.making = self.home / "set", self.home / "making"
        self._plan = b""
        self._plan_listed: RemoteFile | None = None
        self._tables = RemoteTables(self.bucket, self.mirror, self.home / "publishing")
        self._logs: dict[str, str] = {}
        self._uploaded: set[tuple[int, int]] = set()
        self._lock: RemoteLock | None = None
        self._part = WHOLE
        self._begun = False
        self.ended: PartEnd | None = None
        """How a part has, all that others have landed included; None before, and of a whole set."""

    @contextmanager
    def opened(self, *, writing: bool, part: Part = WHOLE) -> Iterator[None]:
        """Fetch what the bucket holds; afterwards upload what is new of tables and logs, and remove everything local.

        writing: hold the lock of that part of the set meanwhile; else only logs are uploaded. PlainError where another run has a chunk
        of it.
        """
        self._part = part
        with scratch_folder(self.home), RemoteLock(self.bucket, part) if writing else nullcontext() as self._lock:
            self._fetch()
            try:
                yield
            except BaseException:
                # What stopped the run is what the user must hear of; the next run makes the manifest from the records.
                with suppress(StorageError, PlainError, ValueError):
                    self._end(writing, in_haste=True)
                raise
            try:
                self._end(writing, in_haste=False)
            except StorageError as error:
                raise self.explained(error) from error

    def _end(self, writing: bool, *, in_haste: bool) -> None:
        if writing and self._begun:  # else what planning has changed here is not for others
            if self._part.whole:
                self.publish()
            else:
                self._publish_in_turn(wait=not in_haste)
        for path in sorted((self.mirror / ".log").glob("*")):
            name = f".log/{path.name}"
            if _LOG.fullmatch(name) and path.stat().st_size and sha256_of(path) != self._logs.get(name):
                self.bucket.put(name, path)

    def _fetch(self) -> None:
        """Make the local folder from the bucket."""
        for folder in (self.mirror, self.making):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        held = self.bucket.files()
        sizes = {name: file.size for name, file in held.items()}
        left = [name for name in held if is_temporary(name)]
        # Who lives now may have begun before the listing, and what it was putting then is no leftover.
        if left and self._lock is not None and not self._lock.others():
            self.bucket.delete(left)
        elsewise = [name for name in held if not name.startswith(".") and name.split("/")[0] not in ("..", "")]
        if elsewise and schema.MANIFEST not in held and not any(n.startswith(f"{schema.RECORDS}/") for n in held):
            (self.mirror / min(elsewise).split("/")[0]).touch()  # planning refuses what is no set, by this name
        self.bucket.get_all({name: size for name, size in sizes.items() if _FETCHED.fullmatch(name)}, self.mirror)
        if _FORECAST in sizes:  # what came is put beside it, run times included
            logs = {name: size for name, size in sizes.items() if _LOG.fullmatch(name)}
            self.bucket.get_all(logs, self.mirror)
            self._logs = {name: sha256_of(self.mirror / name) for name in logs}
        for name, size in sizes.items():
            if _SHARD.fullmatch(name):
                self._stand_in(name, size)
        # Tables last, as extraction writes them: what is older than the manifest need not be finalized again.
        for name in PUBLISHED:
            self.bucket.get_all({name: sizes[name]} if name in sizes else {}, self.mirror)
        made = held.get(schema.MANIFEST)
        for name, file in held.items():
            # Local files are all of now; what the manifest may not know yet must not look older than it.
            if made is not None and _FETCHED.fullmatch(name) and file.mtime_ns >= made.mtime_ns:
                os.utime(self.mirror / name)
        plan = self.mirror / schema.PLAN
        self._plan, self._plan_listed = plan.read_bytes() if plan.is_file() else b"", held.get(schema.PLAN)
        self._tables.fetched(held)
        self._uploaded = recorded(self.mirror)

    def _stand_in(self, shard: str, size: int) -> None:
        """A file that has a size and takes no room."""
        path = self.mirror / shard
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.truncate(path, size)

    def begin(self) -> None:
        """Bring the bucket up to what planning has changed: passes that were given up, then the plan. Before any chunk lands."""
        dropped = sorted(self._uploaded - recorded(self.mirror))
        self.bucket.delete(schema.record_path(*place) for place in dropped)
        self.bucket.delete(schema.shard_path(*place) for place in dropped)
        self._uploaded -= set(dropped)
        plan = (self.mirror / schema.PLAN).read_bytes()
        if plan != self._plan:
            with nullcontext() if self._part.whole else gate(self.bucket, self._part):
                if not self._part.whole:
                    self._refuse_another_plan(plan)
                self.bucket.write(schema.PLAN, plan)
            self._plan, self._plan_listed = plan, None
        self._begun = True

    def _refuse_another_plan(self, plan: bytes) -> None:
        """Where another part has begun meanwhile, or is at work, with other videos or options."""
        try:
            found = self.bucket.read(schema.PLAN)
        except StorageError as error:
            if error.missing:
                return
            raise
        at_work = self._lock is not None and bool(self._lock.others())
        if found != plan and (found != self._plan or at_work):
            raise PlanError(
                f"another part works on the set at {self.url} from another plan: give every part the same videos and options, or wait "
                "for it"
            )

    def hear_of_others(self) -> None:
        """What other parts have landed meanwhile, so that the tables that follow have it."""
        if not self._part.whole:
            self._hear()

    def _hear(self) -> dict[str, RemoteFile]:
        """What the bucket holds; records that are new have been fetched."""
        listed = self.bucket.files()
        sizes = {name: file.size for name, file in listed.items()}
        fresh = {name: n for name, n in sizes.items() if _FETCHED.fullmatch(name) and not (self.mirror / name).exists()}
        records = {name for name in fresh if name.endswith(".parquet")}
        # What became of its videos may be known from an earlier pass of the chunk.
        told = {f"{schema.RECORDS}/videos/{name[-14:-8]}.json" for name in records} & sizes.keys()
        self.bucket.get_all({name: sizes[name] for name in {*fresh, *told} - records}, self.mirror)
        for name, size in sizes.items():
            if _SHARD.fullmatch(name):
                self._stand_in(name, size)
        self.bucket.get_all({name: fresh[name] for name in records}, self.mirror)
        self._uploaded |= recorded(self.mirror)
        return listed

    @property
    def publishes_early(self) -> bool:
        """Whether manifests of what has landed so far are this run's to publish: a part knows of its own chunks alone until its end."""
        return self._part.whole

    def check(self) -> None:
        """Raises PlainError when another run has taken the set over."""
        if self._lock is not None:
            self._lock.check()

    def bytes_of(self, chunk: int, passes: Sequence[int]) -> int:
        """Of the shards of a chunk that has been made."""
        return sum((self.making / schema.shard_path(chunk, p)).stat().st_size for p in passes)

    def land(self, chunk: int, passes: Sequence[int]) -> None:
        """Upload a chunk that has been made; it takes no more local room then."""
        shards = [schema.shard_path(chunk, p) for p in passes]
        records = [schema.record_path(chunk, p) for p in passes]
        self.bucket.put_all((name, self.making / name) for name in shards)
        write_videos(self.mirror, chunk, read_videos(self.making, chunk))
        videos = f"{schema.RECORDS}/videos/{chunk:06d}.json"
        self.bucket.put(videos, self.mirror / videos)
        self.bucket.put_all((name, self.making / name) for name in records)
        for shard, record in zip(shards, records, strict=True):
            self._stand_in(shard, (self.making / shard).stat().st_size)
            (self.mirror / record).parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.making / record, self.mirror / record)
            (self.making / shard).unlink()
        self._uploaded |= {(chunk, p) for p in passes}

    def note_sources(self, chunk: int) -> None:
        """Upload what the videos of a chunk are, where that has been kept."""
        name = f".sources/{chunk:06d}.json"
        if (self.mirror / name).is_file():
            self.bucket.put(name, self.mirror / name)

    def publish(self) -> None:
        """Upload tables and manifest where extraction has made new ones; nobody else is at work on the set."""
        self._tables.put()

    def _publish_in_turn(self, *, wait: bool) -> None:
        """Make tables and manifest of all that has landed, while no other part does, and upload them. Not where another does and this
        run does not wait: what has landed is in the next ones."""
        while True:
            with gate(self.bucket, self._part, wait=wait) as turn:
                if turn is None:
                    return
                listed = self._hear()
                self._refuse_lost_plan(listed)
                plan = plan_at(self.mirror)
                manifest = finalize_plan(self.mirror, plan)
                self._tables.put(listed)
                if turn.ours():
                    others = self._lock.others() if self._lock is not None else {}
                    at_work = {part: str(claim.holder) for part, claim in others.items()}
                    self.ended = PartEnd(manifest, plan.missing(self.mirror), at_work)
                    return

    def _refuse_lost_plan(self, listed: Mapping[str, RemoteFile]) -> None:
        """Where another run has begun on another plan, it took this one for dead."""
        found = listed.get(schema.PLAN)
        if found is None or found != self._plan_listed:
            if self.bucket.read(schema.PLAN) != self._plan:
                raise taken_over(self.url)
            self._plan_listed = found

    def explained(self, error: StorageError) -> PlainError:
        """A fault of the storage, for the user."""
        return storage_failed(error, counted(len(committed(self.mirror)), "shard"))
