"""Which weights there are, and what `--weights` may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.flow.networks.table import NETWORKS
from pipeline.flow.weights.catalogue import DEFAULTS, KNOWN, find, resolve


def test_every_network_has_known_weights_and_names_are_unique() -> None:
    assert {entry.network for entry in KNOWN} == {"raft", "raft-small", "sea-raft-s", "sea-raft-m", "smurf"}
    assert len({entry.name for entry in KNOWN}) == len(KNOWN) == len({entry.file for entry in KNOWN})
    assert all((entry.url is None) == (entry.make_from is not None) for entry in KNOWN)
    assert find("flow-anything-432").network == "sea-raft-m" and find("flow-anything-432").sha256_prefix == "0beef53e"
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
    official = find("raft-sintel-official").path
    official.parent.mkdir(parents=True)
    official.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no weights for raft at .*weights get raft-sintel`.*; or .* take --flow dis"):
        resolve("raft", None)  # the default does not depend on what else lies in the cache
    find("raft-sintel").path.write_bytes(b"")
    assert resolve("raft", None).path == find("raft-sintel").path
    assert resolve("raft", "raft-sintel-official").path == official
    assert resolve("raft", str(official)).path == official


def test_every_network_has_one_default() -> None:
    assert DEFAULTS.keys() == NETWORKS.keys()
    assert all(find(name).network == network for network, name in DEFAULTS.items())
