"""Known weights: how they get into the cache, and what `--weights` means."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from common.cache import cache_dir
from pipeline.flow.weights.catalogue import KNOWN, KnownWeights, find, resolve
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


def test_every_network_has_known_weights_and_names_are_unique() -> None:
    assert {entry.network for entry in KNOWN} == {"raft", "raft-small", "sea-raft-s", "sea-raft-m", "smurf"}
    assert len({entry.name for entry in KNOWN}) == len(KNOWN) == len({entry.file for entry in KNOWN})
    assert all((entry.url is None) == (entry.make_from is not None) for entry in KNOWN)
    assert find("raft-sintel").sha256_prefix == "0b8c9e55" and find("raft-sintel").url is not None


def test_what_the_weights_option_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWFEAT_CACHE", str(tmp_path))
    assert resolve("raft", "random:7").seed == 7
    for wrong in ("random", "random:", "random:-1", "random:x"):
        with pytest.raises(ValueError, match="random:SEED"):
            resolve("raft", wrong)
    with pytest.raises(ValueError, match=r"weights get raft-sintel"):
        resolve("raft", None)
    with pytest.raises(ValueError, match=r"no weights for smurf .*convert-smurf"):
        resolve("smurf", None)
    with pytest.raises(ValueError, match=r"no weights file at /no/such\.pth"):
        resolve("raft", "/no/such.pth")
    with pytest.raises(ValueError, match="did you mean raft-sintel"):
        resolve("raft", "raft-sintl")
    with pytest.raises(ValueError, match="are for raft, not for smurf"):
        resolve("smurf", "raft-things")
    cache_dir("flow").mkdir(parents=True)
    official = find("raft-sintel-official").path
    official.write_bytes(b"")
    assert resolve("raft", None).path == official, "any known file of the network serves as its default"
    find("raft-sintel").path.write_bytes(b"")
    assert resolve("raft", None).path == find("raft-sintel").path
    assert resolve("raft", "raft-sintel-official").path == official
    assert resolve("raft", str(official)).path == official
