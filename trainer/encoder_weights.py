"""Published encoder weights: where they lie and how they get here.

A variant's name becomes a file in the cache (`fetch_encoder`, by way of `trainer.published`). What is in the file is read by
`trainer.encoder_file`.
"""

from __future__ import annotations

import logging
import re

from common.cache import cache_dir
from common.download import PATIENCE, Patience, Progress
from trainer.families import FAMILIES, family_of_variant
from trainer.published import Published, WeightsFile, fetch_published

log = logging.getLogger(__name__)


def _published(url: str) -> Published:
    """A name that ends in "-" and hexadecimal digits gives the beginning of the file's sha256, as torch.hub reads it."""
    digits = re.search(r"-([0-9a-f]{8,})\.pth$", url)
    return Published(url, digits.group(1) if digits else None)


PUBLISHED: dict[str, Published] = {
    variant: _published(url) for family in FAMILIES.values() for variant, url in family.urls.items()
}


def fetch_encoder(variant: str, *, patience: Patience = PATIENCE, progress: Progress | None = None) -> WeightsFile:
    """The cached file of a published encoder, downloaded if need be. Without `progress` the download has a display of its own.

    Raises ValueError for a variant without published weights or a file whose sha256 is not the recorded one, and OSError
    saying what to fetch by hand, and where to, when the network does not give it or the file is given out on request only.
    """
    if variant not in PUBLISHED:
        raise ValueError(
            f"{variant} has no published weights; known: {', '.join(PUBLISHED)}. Use init='random' or the path of a file"
        )
    source = PUBLISHED[variant]
    path = cache_dir() / source.file_name
    family = family_of_variant(variant)
    if (
        family is not None and not family.request and not path.exists()
    ):  # a warning: seen where nobody has set up logging
        limits = ": no commercial use" if family.non_commercial else ""
        log.warning("fetching the weights of %s: licence %s%s", variant, family.licence, limits)
    if family is not None and family.request and not path.exists():
        raise OSError(
            f"the weights of {variant} are given out on request: accept the {family.licence} at {family.request}, put "
            f"{path.name} at {path}, or give its place (init=PATH, encoder.weights=PATH in a config), or try without: "
            "init='random'"
        )
    otherwise = "give its place (init=PATH, encoder.weights=PATH in a config), or try without: init='random' (encoder.init=random)"
    return fetch_published(variant, source, path, otherwise=otherwise, patience=patience, progress=progress)
