"""Tables and manifest of a set in remote storage: made of a local folder that holds its plan and records, put there manifest last.

What the storage has already is not put again. A run that is alone on its set knows that from what it has fetched and put itself; where
others may have put theirs meanwhile, a listing says whether the objects are still those.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from pipeline.extract.plan import ChunkPlan, PlannedVideo, read_content
from pipeline.video.datasets import Video
from shards import schema
from shards.bucket import Bucket, RemoteFile
from shards.files import sha256_of
from shards.schema import ShardSetError

TABLES = (schema.INDEX, schema.VIDEOS)
PUBLISHED = (*TABLES, schema.MANIFEST)
"""In this order."""


class RemoteTables:
    """mirror: the local folder. scratch: for what is being put."""

    def __init__(self, bucket: Bucket, mirror: Path, scratch: Path) -> None:
        self._bucket, self._mirror, self._scratch = bucket, mirror, scratch
        self._known: dict[str, tuple[RemoteFile | None, str]] = {}

    def fetched(self, listed: Mapping[str, RemoteFile]) -> None:
        """The local folder has what the storage had after it was listed so. An object that was replaced between the two looks other than
        listed from then on, and so is put again."""
        here = [name for name in PUBLISHED if (self._mirror / name).is_file()]
        self._known = {name: (listed.get(name), sha256_of(self._mirror / name)) for name in here}

    def put(self, listed: Mapping[str, RemoteFile] | None = None) -> None:
        """Upload those that the storage has not; none of them while they are being made. listed: what it holds now, where others may
        have put theirs."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        try:
            for name in PUBLISHED:
                os.link(self._mirror / name, self._scratch / name)
            manifest = schema.read_manifest(self._scratch)
            made = {name: sha256_of(self._scratch / name) for name in PUBLISHED}
            if any(made[name] != manifest.files[name]["sha256"] for name in TABLES):
                return
        except (ShardSetError, KeyError, FileNotFoundError):
            return
        for name in PUBLISHED:
            file, digest = self._known.get(name, (None, ""))
            if made[name] == digest and (listed is None or (file is not None and listed.get(name) == file)):
                continue
            self._bucket.put(name, self._scratch / name)
            self._known[name] = (None, made[name])


def plan_at(root: Path) -> ChunkPlan:
    """The plan of the set at a folder, without what a run knows of its list. Raises PlanError."""
    content = read_content(root)
    places = (PlannedVideo(Video(v.id, Path(v.path), v.kind), v.path, v.chunk, v.position) for v in content.videos)
    return ChunkPlan(content.settings, content.passes, tuple(places))
