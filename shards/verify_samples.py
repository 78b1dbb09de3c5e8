"""The samples of shards, member by member: decoded, and compared with what the index says of them.

Comes in: an open set and some of its shards. Goes out: what is wrong. Shards are independent of each other, so several processes
may look at them; these are forked, because the index of a large set is then shared.
"""

from __future__ import annotations

import os
import signal
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shards import schema
from shards.codec import channel_std_px, decode_flow
from shards.reader import ShardSet
from shards.sample import StoredMember, decode_confidence, decode_image
from shards.schema import SampleError, ShardSetError
from shards.set_files import SetFiles


@dataclass(frozen=True)
class Problem:
    """where: file or sample; what: one line."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True)
class Checking:
    """rows: of the index, by shard. tars: whether names and offsets in the tar files are compared as well."""

    data: ShardSet
    files: SetFiles
    rows: dict[str, NDArray[np.int64]]
    tars: bool

    def problems(self, jobs: int, progress: Callable[[int, int], None] | None) -> list[Problem]:
        """In the order of the shards. jobs: processes, for sets in a local folder. progress(done, total) is called after every shard.

        Raises ShardSetError where one of the processes was killed.
        """
        found: list[Problem] = []
        shards = self._in_processes(jobs) if jobs > 1 and len(self.rows) > 1 else map(self.shard, self.rows)
        for done, problems in enumerate(shards, 1):
            found += problems
            if progress:
                progress(done, len(self.rows))
        return found

    def _in_processes(self, jobs: int) -> Iterator[list[Problem]]:
        try:
            with ProcessPoolExecutor(jobs, get_context("fork"), _inherit, (self, os.getpid())) as pool:
                before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                try:  # the processes are forked here; until `_inherit` an interrupt would end them with a traceback
                    found = pool.map(_shard, self.rows)
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)
                yield from found
        except BrokenProcessPool as error:
            raise ShardSetError(
                "a process that checked samples was killed; often memory was short: use fewer --jobs"
            ) from error

    def shard(self, shard: str) -> list[Problem]:
        """What is wrong in one of them."""
        rows = self.rows[shard].tolist()
        path = self.files.path(shard)
        self.data.read_shards_from(self.files.folder)
        problems = [problem for i in rows for problem in _sample(self.data, i, shard)]
        return problems + (_tar(self.data, shard, path, rows) if self.tars else [])


_inherited: list[Checking] = []


def _inherit(checking: Checking, parent: int) -> None:
    """In a forked process, to which arguments come without being copied."""
    _inherited[:] = [checking]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the pool
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A pool's processes would wait for a parent that was killed for ever."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _shard(shard: str) -> list[Problem]:
    return _inherited[0].shard(shard)


def _sample(data: ShardSet, i: int, shard: str) -> list[Problem]:
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


def _tar(data: ShardSet, shard: str, path: Path, rows: Sequence[int]) -> list[Problem]:
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
