"""Where downloaded files live: `$FLOWFEAT_CACHE`, by default `~/.cache/flowfeat`. Nothing is created here."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir(*parts: str) -> Path:
    """The cache directory, or a folder inside it: cache_dir("flow") holds the flow networks' weights."""
    named = os.environ.get("FLOWFEAT_CACHE")
    root = Path(named).expanduser() if named else Path.home() / ".cache" / "flowfeat"
    return root.joinpath(*parts)
