"""Where an extraction's videos, their list and its set lie: folders, or addresses with local folders that stand for them.

A command's `--root`, `--list`, `--out` and `--scratch` come in. Extraction itself sees folders only; inside `opened` they hold what is at
the addresses, and the runner that is given out uploads and fetches. Messages that name these folders name the addresses instead.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from common.command import PlainError
from common.place import LOCAL_PATH, PLACE
from common.scratch import scratch_folder, scratch_home_of
from pipeline.extract.at_work import PartEnd
from pipeline.extract.parts import WHOLE, Part
from pipeline.extract.remote_set import RemoteSet
from pipeline.extract.runner import Event, Runner, VideoReport, disk_is_full, storage_failed
from pipeline.extract.uploading import UploadingRunner
from pipeline.flow.truth import SCENE_ENDING, TruthChoice
from pipeline.video.datasets import Video
from pipeline.video.remote_videos import RemoteVideos
from shards.bucket import WRITING
from shards.storage import Patience, RemoteFolder, StorageError, is_url

PLACE_OPTIONS = (
    click.option("--list", "list_file", type=PLACE, help="Text file of videos to take, or its address."),
    click.option("--root", required=True, type=PLACE, help="Where the videos are: a folder, or an address (s3://...)."),
    click.option("--scratch", type=LOCAL_PATH, help="Local folder for what goes to or comes from addresses."),
    click.option("--scratch-gib", default=20.0, help="Most that may lie there."),
)
OUT_OPTION = click.option("--out", required=True, type=PLACE, help="Directory or address of the shard set.")


class Places:
    """root, out: local folders. scratch: for what stands between them and addresses; None: the system's folder for temporary files.

    scratch_gib: of chunks that wait to be uploaded, and of videos that wait to be decoded, half each. beside: as `RemoteVideos` takes
    it. Raises ValueError for an address that cannot be opened.
    """

    def __init__(
        self,
        root: Path | str,
        out: Path | str,
        scratch: Path | None = None,
        scratch_gib: float = 20.0,
        patience: Patience = WRITING,
        list_file: Path | str | None = None,
        beside: tuple[str, ...] = (),
    ) -> None:
        if not 0 < scratch_gib < math.inf:
            raise ValueError(f"scratch_gib is {scratch_gib}; give a positive number of GiB")
        scratch = Path(scratch or tempfile.gettempdir())
        self._set = RemoteSet(str(out), scratch, patience) if is_url(out) else None
        self._videos = RemoteVideos(str(root), scratch, patience, beside) if is_url(root) else None
        self._list = _RemoteList(str(list_file), scratch, patience) if list_file and is_url(list_file) else None
        self._half_bytes = int(scratch_gib * 2**29)
        self.out = self._set.mirror if self._set else Path(out)
        self.root = self._videos.root if self._videos else Path(root)
        self.list_file = self._list.path if self._list else Path(list_file) if list_file else None
        self.out_name, self.root_name = str(out), str(root)

    @property
    def remote(self) -> tuple[RemoteVideos, int] | None:
        """What a runner must know of videos that are no local files."""
        return (self._videos, self._half_bytes) if self._videos else None

    @contextmanager
    def opened(self, runner: Runner, *, writing: bool, part: Part = WHOLE) -> Iterator[Runner]:
        """The folders as they are at the addresses, and the runner to extract with. writing: whether the set, or a part, will be."""
        with self._naming(), ExitStack() as stack:
            if self._list:
                stack.enter_context(self._list.opened())
            if self._videos:
                stack.enter_context(self._videos.opened())
            if self._set:
                stack.enter_context(self._set.opened(writing=writing, part=part))
                runner = UploadingRunner(runner, self._set, self._half_bytes)
            yield runner

    def at_end(self, ended: PartEnd) -> PartEnd:
        """How a part has ended, known after `opened`: at an address others may have landed more while it did."""
        return self._set.ended or ended if self._set else ended

    @contextmanager
    def local(self, video: Video) -> Iterator[Video]:
        """A video where it can be decoded, inside `opened`: itself, or a copy that is gone afterwards.

        Raises Reject for one that the storage does not give.
        """
        if self._videos is None:
            yield video
            return
        path = self._videos.fetch(video)
        try:
            yield replace(video, path=path)
        finally:
            self._videos.remove(path)

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except StorageError as error:
            raise storage_failed(error) from error
        except (ValueError, PlainError) as error:
            if error.args and isinstance(error.args[0], str) and not self._is_full_disk(error.args[0]):
                error.args = (self.named(error.args[0]), *error.args[1:])
            raise

    def _is_full_disk(self, message: str) -> bool:
        """Whether it speaks of the scratch itself."""
        return self._set is not None and message in (disk_is_full(self._set.mirror), disk_is_full(self._set.making))

    def named(self, text: str) -> str:
        """A message with addresses for the folders that stand for them."""
        if self._set:
            text = text.replace(str(self._set.mirror), self.out_name).replace(str(self._set.making), self.out_name)
        if self._list:
            text = text.replace(str(self._list.path), self._list.url)
        return text.replace(str(self.root), self.root_name) if self._videos else text

    def told(self, event: Event) -> Event:
        """An event, for people."""
        return replace(event, detail=self.named(event.detail)) if isinstance(event, VideoReport) else event


def places_of(options: dict[str, Any], flow: str) -> Places:
    """From the values of PLACE_OPTIONS, which are taken out of `options`. flow: name of the estimator."""
    root, out, scratch, gib = (options.pop(name) for name in ("root", "out", "scratch", "scratch_gib"))
    beside = (SCENE_ENDING,) if flow == TruthChoice.name else ()
    return Places(root, out, scratch, gib, list_file=options.pop("list_file"), beside=beside)


class _RemoteList:
    """A list file at an address: fetched inside `opened`, where `path` says."""

    def __init__(self, url: str, scratch: Path, patience: Patience) -> None:
        self.url = url
        folder, _, self._name = url.rpartition("/")
        self._folder = RemoteFolder(folder, patience)
        self._home = scratch_home_of(scratch, "flowfeat-list", url)
        self.path = self._home / self._name

    @contextmanager
    def opened(self) -> Iterator[None]:
        with scratch_folder(self._home):
            self.path.write_bytes(self._folder.read(self._name))
            yield
