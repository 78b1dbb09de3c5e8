"""Where the videos of a list really are, as a set writes it down: links resolved, relative to the root of the data set.

Videos come in, paths go out; the file system is asked once per folder, and once per video whether it is a link.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from pipeline.video.datasets import Video


def relative_paths(listing: Sequence[Video], source_root: Path) -> list[tuple[str, Video]]:
    """Each video with its path, relative where it lies inside the root, so that a set does not depend on where the data was mounted."""
    home = os.path.realpath(source_root)
    below = home.rstrip(os.sep) + os.sep
    real_folders: dict[str, str] = {}
    found = []
    for video in listing:
        given = str(video.path)
        real = _real(given, real_folders)
        found.append((real[len(below) :] if real.startswith(below) else given, video))
    return found


def _real(path: str, real_folders: dict[str, str]) -> str:
    """`os.path.realpath`, with the real paths of folders remembered."""
    folder, name = os.path.split(path)
    if name in ("", ".", "..") or _is_link(path):
        return os.path.realpath(path)
    if folder not in real_folders:
        real_folders[folder] = os.path.realpath(folder)
    return os.path.join(real_folders[folder], name)


def _is_link(path: str) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except OSError:
        return False  # what is not there is no link
