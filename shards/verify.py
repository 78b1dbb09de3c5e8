"""A shard set → the list of everything wrong with it.

Hashes every file against the manifest; where a shard differs, walks its members to say which samples are
damaged. `deep` also decodes every member and recomputes its statistics, which finds a writer's mistake that
hashing cannot.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from shards import schema
from shards.codec import channel_std_px, decode_flow
from shards.files import sha256_of
from shards.index import check_table
from shards.reader import ShardSet, read_table
from shards.sample import StoredMember, decode_confidence, decode_image
from shards.schema import Manifest, SampleError, ShardInfo, ShardSetError, read_manifest
from shards.set_files import SetFiles, set_files
from shards.storage import StorageError


@dataclass(frozen=True)
class Problem:
    """where: file or sample; what: one line."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def verify(
    root: Path | str, *, deep: bool = False, progress: Callable[[int, int], None] | None = None
) -> list[Problem]:
    """Everything wrong with the set at root, a folder or an address; empty means that every byte is as it was written.

    deep: decode all members as well. progress(done, total) is called per shard. Raises ShardSetError only when
    there is no manifest to check against, StorageError where remote storage does not answer.
    """
    manifest = read_manifest(root)
    with set_files(root) as files:
        return _verify(root, files, manifest, deep, progress)


def _verify(
    root: Path | str, files: SetFiles, manifest: Manifest, deep: bool, progress: Callable[[int, int], None] | None
) -> list[Problem]:
    problems: list[Problem] = []
    if not manifest.complete:
        want = manifest.chunks * manifest.passes
        problems.append(
            Problem(schema.MANIFEST, f"{len(manifest.shards)} of {want} shards: rerun the extraction command to finish")
        )
    for name in (schema.INDEX, schema.VIDEOS):
        try:
            check_table(root, name, manifest)
        except ShardSetError as error:
            problems.append(Problem(name, str(error)))
    damaged = []
    for done, info in enumerate(manifest.shards):
        size = files.size(info.path)
        if size is None:
            problems.append(Problem(info.path, "missing"))
        elif (what := _differs(files, info, size)) is not None:
            problems.append(Problem(info.path, what))
            damaged.append(info.path)
        if progress:
            progress(done + 1, len(manifest.shards))
    names = set(files.names())
    problems += _stray_shards(names, manifest) + _records(names)
    intact = not any(p.where in (schema.INDEX,) or p.what == "missing" for p in problems)
    sizes_ok = all(files.size(info.path) == info.bytes for info in manifest.shards)
    if intact and sizes_ok:
        try:
            data = ShardSet(root, allow_partial=True)
        except ShardSetError as error:
            return [*problems, Problem(schema.INDEX, str(error))]
        problems += _verify_videos(root, data)
        if deep or damaged:
            problems += _verify_samples(data, files, None if deep else set(damaged))
    return problems


def _differs(files: SetFiles, info: ShardInfo, size: int) -> str | None:
    """How a shard is not what the manifest says. A disk that does not give it back is why one verifies, and no reason to stop."""
    try:
        if size == info.bytes and sha256_of(files.path(info.path)) == info.sha256:
            return None
    except StorageError:
        raise
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return f"SHA-256 or size ({size} of {info.bytes} bytes) differs from the manifest"


def _records(names: Collection[str]) -> list[Problem]:
    """Of a set that can be continued: a copy without records is whole as well, and cannot."""
    landed = any(fnmatch(name, f"{schema.RECORDS}/pass-*/*.parquet") for name in names)
    if not landed or schema.PLAN in names:
        return []
    what = "missing: the set can be read, but extraction cannot continue it; restore the file"
    return [Problem(schema.PLAN, what)]


def _verify_videos(root: Path | str, data: ShardSet) -> list[Problem]:
    """Every sample lies where its video does, and every video once: else shards of two plans have been mixed."""
    table = read_table(root, schema.VIDEOS, data.manifest)
    if any(name not in table.column_names for name in ("video", "chunk", "position", "anchors")):
        return [
            Problem(
                schema.VIDEOS, f"lacks columns; format {schema.VERSION} has {', '.join(schema.VIDEOS_SCHEMA.names)}"
            )
        ]
    names, chunks, positions, anchors = (
        table.column(name).to_pylist() for name in ("video", "chunk", "position", "anchors")
    )
    place = {name: (chunk, position) for name, chunk, position in zip(names, chunks, positions, strict=True)}
    problems = []
    if len(place) != len(names) or len(set(place.values())) != len(names):
        problems.append(Problem(schema.VIDEOS, "lists a video, or a position of a chunk, twice"))
    chunk_of = np.array([schema.shard_place(shard)[0] for shard in data.shards], np.int64)
    wanted = np.array([place.get(name, (-1, -1)) for name in data.video.distinct.to_pylist()], np.int64).reshape(-1, 2)
    found = (
        np.stack([chunk_of[data.shard_codes], data.keys.position], axis=1) if len(data) else np.zeros((0, 2), np.int64)
    )
    wrong = (found != wanted[data.video.codes]).any(axis=1)
    if wrong.any():
        i = int(np.flatnonzero(wrong)[0])
        what = f"{int(wrong.sum())} samples are not where {schema.VIDEOS} has their video, first {data.keys[i]} of {data.video[i]!r}"
        problems.append(Problem(schema.INDEX, f"{what}: shards of two plans are mixed; start a new set"))
    elif sum(anchors) != len(data):
        problems.append(Problem(schema.VIDEOS, f"counts {sum(anchors)} samples, {schema.INDEX} has {len(data)}"))
    return problems


def _stray_shards(names: Collection[str], manifest: Manifest) -> list[Problem]:
    known = {info.path for info in manifest.shards}
    found = {name for name in names if fnmatch(name, "pass-*/*.tar") and name.count("/") == 1}
    return [
        Problem(path, "not in the manifest: an interrupted run left it; rerun the extraction command")
        for path in sorted(found - known)
    ]


def _verify_samples(data: ShardSet, files: SetFiles, only: set[str] | None) -> list[Problem]:
    """Check members sample by sample; only: shards to look at, None for all (then statistics and tar names too)."""
    problems: list[Problem] = []
    for shard, rows in data.rows_by_shard().items():
        if only is not None and shard not in only:
            continue
        path = files.path(shard)
        data.read_shards_from(files.folder)
        for i in rows.tolist():
            problems += _verify_sample(data, i, shard)
        if only is None:
            problems += _verify_tar(data, shard, path, rows.tolist())
    return problems


def _verify_sample(data: ShardSet, i: int, shard: str) -> list[Problem]:
    problems: list[Problem] = []
    settings = data.manifest.settings
    size = (settings.flow_size, settings.flow_size)
    for member in data.members(i):
        try:
            _decode(data, i, member)
        except (SampleError, ValueError) as error:
            problems.append(Problem(f"{shard} {data.keys[i]}.{member.name}", str(error)))
    for k, offset in enumerate(data.offsets):
        if data.status(i, k) not in (schema.STORED, schema.STILL):
            continue
        try:
            flow = decode_flow(data.flow_bytes(i, k), size)
        except (SampleError, ValueError) as error:
            problems.append(Problem(f"{shard} {data.keys[i]}", str(error)))
            continue
        std = channel_std_px(flow.values_chw * np.float32(flow.quantum_px))
        # Rounding to a step q moves a standard deviation by at most q/2, the largest possible error of a value.
        if (
            flow.quantum_px != 2.0 ** data.quantum_exponent[i, k]
            or np.abs(std - data.std_px[i, k]).max() > flow.quantum_px / 2
        ):
            problems.append(
                Problem(f"{shard} {data.keys[i]}", f"flow of offset {offset} is not the one that the index describes")
            )
    return problems


def _decode(data: ShardSet, i: int, member: StoredMember) -> None:
    """Check a member's CRC, and what it holds where its suffix is known; flows are compared with the index elsewhere."""
    settings = data.manifest.settings
    labels = [schema.offset_label(offset) for offset in data.offsets]
    if member.name == "json":
        data.json(i)
    elif member.name in ("jpg", *(f"{label}.jpg" for label in labels)):
        decode_image(data.member_bytes(i, member), settings.image_size)
    elif member.name in [f"{label}.conf.jpg" for label in labels]:
        decode_confidence(data.member_bytes(i, member), settings.flow_size)
    elif member.name in [f"{label}.reverse" for label in labels]:
        decode_flow(data.member_bytes(i, member), (settings.flow_size, settings.flow_size))
    elif not member.name.endswith(".flow"):
        data.member_bytes(i, member)


def _verify_tar(data: ShardSet, shard: str, path: Path, rows: Sequence[int]) -> list[Problem]:
    """The tar's own names and offsets must be those of the index, or plain tar tools would read other samples."""
    try:
        with tarfile.open(path) as tar:
            found = {m.name: (m.offset_data, m.size) for m in tar}
    except (tarfile.TarError, OSError) as error:
        return [Problem(shard, f"is not a readable tar: {error}")]
    return [
        Problem(shard, f"{data.keys[i]}.{member.name} is not where the index says")
        for i in rows
        for member in data.members(i)
        if found.get(f"{data.keys[i]}.{member.name}") != (member.offset, member.size)
    ]
