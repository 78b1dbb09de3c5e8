"""Weights that others publish: one address each -> a whole file in the cache, by way of `common.download`.

Which files there are is said by `trainer.encoder_weights` (encoders) and `trainer.official_models` (whole FlowFeat models).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.download import PATIENCE, DownloadError, Patience, Progress, fetch
from common.progress import shown_in_megabytes


@dataclass(frozen=True)
class WeightsFile:
    """Weights that are here, and the sha256 of their file."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Published:
    """url of a published file; sha256 where it is known beforehand, else it is recorded at the first download."""

    url: str
    sha256: str | None = None

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


def fetch_published(
    name: str,
    source: Published,
    path: Path,
    *,
    otherwise: str,
    patience: Patience = PATIENCE,
    progress: Progress | None = None,
) -> WeightsFile:
    """Bring the weights called `name` to `path` unless they are there. Without `progress` there is a display.

    Raises ValueError for a file whose sha256 is not the pinned or recorded one, and OSError saying what to fetch by hand,
    where to put it and what to do `otherwise`, when the network does not give it.
    """
    try:
        with shown_in_megabytes(f"weights of {name}") as shown:
            digest = fetch(source.url, path, sha256=source.sha256, patience=patience, progress=progress or shown)
            return WeightsFile(path, digest)
    except DownloadError as error:
        raise OSError(
            f"the weights of {name} could not be downloaded: {error}, or {otherwise}"  # how to fetch it is in the error
        ) from error
