"""From file names to the ids of videos: UTF-8 whatever the names are, and never the same for two of them.

Comes in: names relative to a data set's base, as the operating system gave them. Goes out: one id for each. Nothing is opened.

An id goes into Parquet and JSON, so bytes of a name that are no UTF-8 are written as escapes (caf\\xe9). The bytes count and not what
the locale makes of them, so a set that is begun under one locale continues under another.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import PurePath

VIDEO_EXTENSIONS = frozenset(
    {
        ".mp4",
        ".m4v",
        ".mov",
        ".webm",
        ".mkv",
        ".avi",
        ".mpg",
        ".mpeg",
        ".m2ts",
        ".mts",
        ".ts",
        ".wmv",
        ".flv",
        ".3gp",
        ".ogv",
    }
)


def utf8_name(name: str) -> str:
    """A file name as text that every file format takes: what is no UTF-8 becomes an escape."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def ids_of(names: Sequence[str], *, extensions: bool) -> list[str]:
    """An id for each of some distinct names, in their order. extensions: names of files, whose extension is left out.

    Files that would share an id without extension keep it; repeated until all ids differ. Where a name with escapes reads like another
    one, it gets a digest of its bytes.
    """
    texts = [utf8_name(name) for name in names]
    count = Counter(texts)
    texts = [
        _with_digest(text, name) if count[text] > 1 and os.fsencode(name) != text.encode() else text
        for name, text in zip(names, texts, strict=True)
    ]
    ids = [without_extension(text) for text in texts] if extensions else list(texts)
    while True:
        count = Counter(ids)
        clashing = [place for place, one in enumerate(ids) if count[one] > 1 and one != texts[place]]
        if not clashing:
            return ids
        for place in clashing:
            ids[place] = texts[place]


def _with_digest(text: str, name: str) -> str:
    stem, extension = os.path.splitext(text)
    return f"{stem}~{blake2b(os.fsencode(name), digest_size=4).hexdigest()}{extension}"


def without_extension(name: str) -> str:
    """A name without a video's extension; other endings stay."""
    suffix = PurePath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in VIDEO_EXTENSIONS else name
