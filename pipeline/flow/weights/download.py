"""A known weights file, from its publisher into the cache: a file of its own, or a member of a zip archive."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from common.download import PATIENCE, Patience, Progress, fetch
from pipeline.flow.weights.catalogue import KnownWeights
from shards.files import atomic_file


def get(entry: KnownWeights, *, patience: Patience = PATIENCE, progress: Progress | None = None) -> Path:
    """Bring a known file into the cache unless it is there, and return its path. Raises ValueError or OSError if it cannot be had."""
    if entry.member is not None and entry.path.is_file():
        return entry.path
    if entry.url is None:
        if entry.path.is_file():  # the user has made it
            return entry.path
        raise ValueError(f"{entry.name} cannot be downloaded as a file: {entry.make_from}")
    if entry.member is None:
        fetch(entry.url, entry.path, sha256=entry.sha256_prefix, patience=patience, progress=progress)
        return entry.path
    archive = entry.path.with_name(entry.url.rsplit("/", 1)[1])
    fetch(entry.url, archive, patience=patience, progress=progress)
    _extract(archive, entry.member, entry.path)
    return entry.path


def _extract(archive: Path, member: str, target: Path) -> None:
    """One file out of a zip archive. zipfile checks the CRC."""
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(member) as source, atomic_file(target) as file:
            shutil.copyfileobj(source, file)
    except (zipfile.BadZipFile, KeyError) as broken:
        raise ValueError(
            f"{archive} is no zip archive with {member} inside ({broken}); delete it and {archive.name}.sha256 to fetch it again"
        ) from broken
