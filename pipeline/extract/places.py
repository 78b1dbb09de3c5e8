"""Where an extraction's videos and its set lie: folders, or addresses in remote storage with the local folders that stand for them.

A command's `--root`, `--out` and `--scratch` come in. Extraction itself sees folders only; inside `opened` they hold what is at the
addresses, and the runner that is given out uploads and fetches. Messages that name these folders name the addresses instead.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from common.command import PlainError
from common.place import PLACE
from pipeline.extract.remote_set import RemoteSet
from pipeline.extract.runner import Event, Runner, VideoReport, disk_is_full
from pipeline.extract.uploading import UploadingRunner
from pipeline.video.datasets import Video
from pipeline.video.remote_videos import RemoteVideos
from shards.bucket import WRITING
from shards.storage import Patience, StorageError, is_url

PLACE_OPTIONS = (
    click.option("--root", required=True, type=PLACE, help="Where the videos are: a folder, or an address (s3://...)."),
    click.option(
        "--scratch", type=click.Path(path_type=Path), help="Local folder for what goes to or comes from addresses."
    ),
    click.option("--scratch-gib", default=20.0, help="Most that may lie there."),
)
OUT_OPTION = click.option("--out", required=True, type=PLACE, help="Directory or address of the shard set.")


class Places:
    """root, out: local folders. scratch: for what stands between them and addresses; None: the system's folder for temporary files.

    scratch_gib: of chunks that wait to be uploaded, and of videos that wait to be decoded, half each. Raises ValueError for an address that
    cannot be opened, and for a list file at one.
    """

    def __init__(
        self,
        root: Path | str,
        out: Path | str,
        scratch: Path | None = None,
        scratch_gib: float = 20.0,
        patience: Patience = WRITING,
    ) -> None:
        if not scratch_gib > 0:
            raise ValueError(f"scratch_gib is {scratch_gib}; give a positive number of GiB")
        scratch = Path(scratch or tempfile.gettempdir())
        self._set = RemoteSet(str(out), scratch, patience) if is_url(out) else None
        self._videos = RemoteVideos(str(root), scratch, patience) if is_url(root) else None
        self._half_bytes = int(scratch_gib * 2**29)
        self.out = self._set.mirror if self._set else Path(out)
        self.root = self._videos.root if self._videos else Path(root)
        self.out_name, self.root_name = str(out), str(root)

    @property
    def remote(self) -> tuple[RemoteVideos, int] | None:
        """What a runner must know of videos that are no local files."""
        return (self._videos, self._half_bytes) if self._videos else None

    @contextmanager
    def opened(self, runner: Runner, *, writing: bool) -> Iterator[Runner]:
        """The folders as they are at the addresses, and the runner to extract with. writing: whether the set will be."""
        with self._naming(), ExitStack() as stack:
            if self._videos:
                stack.enter_context(self._videos.opened())
            if self._set:
                stack.enter_context(self._set.opened(writing=writing))
                runner = UploadingRunner(runner, self._set, self._half_bytes)
            yield runner

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
            raise PlainError(
                f"{error.strerror}: {'renew the credential, or its rights,' if error.refused else 'wait until the storage answers'} "
                "and run the same command again; what has landed is safe"
            ) from error
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
        return text.replace(str(self.root), self.root_name) if self._videos else text

    def told(self, event: Event) -> Event:
        """An event, for people."""
        return replace(event, detail=self.named(event.detail)) if isinstance(event, VideoReport) else event


def places_of(options: dict[str, Any], flow: str) -> Places:
    """From the values of PLACE_OPTIONS, which are taken out of `options`. flow: name of the estimator."""
    places = Places(*(options.pop(name) for name in ("root", "out", "scratch", "scratch_gib")))
    if flow == "truth" and places.remote:
        raise ValueError(
            f"--flow truth reads files beside the videos, which {places.root_name} cannot give; copy them to a folder"
        )
    return places
