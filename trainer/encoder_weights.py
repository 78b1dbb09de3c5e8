"""Published encoder weights: where they lie and how they get here.

A variant's name becomes a file in the cache (`fetch_encoder`, by way of `common.download`). What is in the file is read by
`trainer.encoder_file`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from common.cache import cache_dir
from common.download import PATIENCE, DownloadError, Patience, Progress, fetch
from common.progress import shown_in_megabytes
from trainer.families import FAMILIES, family_of_variant

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """url of a published encoder file; sha256 where it is known beforehand, else it is recorded at the first download."""

    url: str
    sha256: str | None = None


PUBLISHED: dict[str, Published] = {
    variant: Published(url) for family in FAMILIES.values() for variant, url in family.urls.items()
}


def fetch_encoder(variant: str, *, patience: Patience = PATIENCE, progress: Progress | None = None) -> Path:
    """The cached file of a published encoder, downloaded if need be. Without `progress` the download has a display of its own.

    Raises ValueError for a variant without published weights or a file whose sha256 is not the recorded one, and OSError
    saying what to fetch by hand, and where to, when the network does not give it.
    """
    if variant not in PUBLISHED:
        raise ValueError(
            f"{variant} has no published weights; known: {', '.join(PUBLISHED)}. Use init='random' or the path of a file"
        )
    source = PUBLISHED[variant]
    path = cache_dir() / source.url.rsplit("/", 1)[-1]
    family = family_of_variant(variant)
    if family is not None and family.non_commercial and not path.exists():
        log.warning("the weights of %s are licensed %s: no commercial use", variant, family.licence)
    try:
        with shown_in_megabytes(f"weights of {variant}") as shown:
            fetch(source.url, path, sha256=source.sha256, patience=patience, progress=progress or shown)
    except DownloadError as error:
        raise OSError(
            f"the weights of {variant} could not be downloaded: {error}. Either fetch {source.url} by hand and put it at "
            f"{path}, or give its place (init=PATH, encoder.weights=PATH in a config), or try without: init='random'"
        ) from error
    return path
