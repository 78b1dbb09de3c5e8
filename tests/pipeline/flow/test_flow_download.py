"""Known weights: how they get into the cache."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from pipeline.flow.weights.catalogue import KnownWeights, find
from pipeline.flow.weights.download import get
from tests.common.download_server import CONTENT, DIGEST, HASTY, serving


def test_archive_members_and_files_that_are_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWFEAT_CACHE", str(tmp_path))
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("models/raft-x.pth", b"weights")
    with serving() as server:
        server.content = packed.getvalue()
        entry = KnownWeights(
            "raft-x", "raft", "raft-x.pth", server.url, "none", 1.0, "nothing", member="models/raft-x.pth"
        )
        assert get(entry, patience=HASTY).read_bytes() == b"weights"
        assert get(entry, patience=HASTY) == tmp_path / "flow" / "raft-x.pth"
        assert len(server.ranges) == 1, "what is here is not fetched again"
        other = KnownWeights(
            "raft-y", "raft", "raft-y.pth", server.url, "none", 1.0, "nothing", member="models/raft-y.pth"
        )
        with pytest.raises(ValueError, match=r"no zip archive with models/raft-y\.pth inside"):
            get(other, patience=HASTY)
        with pytest.raises(ValueError, match=r"cannot be downloaded as a file.*convert-smurf"):
            get(find("smurf-kitti"))


def test_a_file_is_held_to_the_hash_that_its_publisher_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWFEAT_CACHE", str(tmp_path))
    with serving() as server:
        entry = KnownWeights("raft-x", "raft", "x.pth", server.url, "none", 1.0, "nothing", sha256_prefix=DIGEST[:8])
        assert get(entry, patience=HASTY).read_bytes() == CONTENT
        assert get(entry, patience=HASTY) == tmp_path / "flow" / "x.pth" and len(server.ranges) == 1
        entry.path.write_bytes(b"damaged")
        with pytest.raises(ValueError, match=rf"not {DIGEST[:8]} as published: delete it"):
            get(entry, patience=HASTY)
        made = KnownWeights("smurf-x", "smurf", "s.pt", None, "none", 1.0, "nothing", make_from="a checkpoint")
        made.path.write_bytes(b"made")
        assert get(made) == made.path
