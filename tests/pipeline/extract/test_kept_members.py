"""--keep-confidence and --keep-reverse: what is asked for is computed, once, and stored; what cannot be is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from pipeline.cli import main
from pipeline.extract.worker import flow_bytes
from pipeline.flow.dis import DisFlow
from pipeline.flow.estimator import EstimatorOptions, choose
from shards.codec import decode_flow
from shards.reader import ShardSet
from shards.schema import Settings
from shards.verify import verify
from tests.pipeline.extract.small_extraction import SMALL, digests, make_videos, request, run


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos"), 2)


def extract(videos: Path, out: Path, *more: str, flow: str = "dis") -> Result:
    options = f"--dataset synthetic --root {videos} --out {out} --image-size 64 --flow-size 32 --passes 1 --workers 1 --flow {flow}"
    return CliRunner().invoke(main, ["extract", *options.split(), *more])


def test_plain_dis_gives_the_confidence_that_is_to_be_kept(videos: Path, tmp_path: Path) -> None:
    assert extract(videos, tmp_path / "set", "--keep-confidence").exit_code == 0
    data = ShardSet(tmp_path / "set")
    assert data.manifest.settings.estimator["confidence"] == "round-trip"
    assert data.stored_mask("confidence").all()
    switched = choose("dis", EstimatorOptions(extra={"confidence": "true"}))
    assert choose("dis", EstimatorOptions(keep_confidence=True)) == switched
    off = EstimatorOptions(extra={"confidence": "false"}, keep_confidence=True)
    assert choose("dis", off) == choose("dis"), "what is said outright counts: sets from before can be continued"


def test_a_network_without_uncertainty_gives_its_round_trip(videos: Path) -> None:
    kept = EstimatorOptions("random:0", keep_confidence=True)
    assert {name: choose(name, kept).statement()["confidence"] for name in ("raft-small", "smurf", "sea-raft-s")} == {
        "raft-small": "round-trip",
        "smurf": "round-trip",
        "sea-raft-s": "network",
    }


def test_exact_flow_has_no_confidence_to_keep(videos: Path, tmp_path: Path) -> None:
    refused = extract(videos, tmp_path / "set", "--keep-confidence", flow="truth")
    assert refused.exit_code == 1 and "gives no confidence; leave --keep-confidence out" in refused.output
    assert not (tmp_path / "set").exists()


def test_reverse_flow_of_exact_flow_leads_back(videos: Path, tmp_path: Path) -> None:
    """Where the round trip of exact flow stays inside and is not hidden, it ends where it began: grid and sign are right."""
    assert extract(videos, tmp_path / "set", "--keep-reverse", flow="truth").exit_code == 0
    data = ShardSet(tmp_path / "set")
    assert (
        data.manifest.settings.keep_reverse and data.stored_mask("reverse").all() and verify(data.root, deep=True) == []
    )
    missed, moved = [], []
    for i in range(len(data)):
        for k in range(len(data.offsets)):
            sample = data.read(i, k, optional=["reverse"])
            assert sample.reverse is not None
            forward = sample.flow_chw * np.float32(sample.quantum_px)
            back = sample.reverse.values_chw * np.float32(sample.reverse.quantum_px)
            y, x = np.mgrid[0:32, 0:32].astype(np.float32)
            there = cv2.remap(back.transpose(1, 2, 0), x + forward[0], y + forward[1], cv2.INTER_LINEAR)
            missed.append(np.hypot(*(forward + there.transpose(2, 0, 1)))[4:-4, 4:-4])
            moved.append(np.hypot(*forward)[4:-4, 4:-4])
    assert np.median(missed) < 0.05 < np.median(moved)


def test_reverse_flow_is_computed_once_for_confidence_and_shard(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    class Counting:
        def calc(self, one: np.ndarray, other: np.ndarray, start: None) -> np.ndarray:
            calls.append(1)
            return np.full((*one.shape, 2), 0.5, np.float32)

    monkeypatch.setattr(cv2.DISOpticalFlow, "create", lambda preset: Counting())
    from tests.pipeline.flow.test_dis import window

    asked = {
        "confidence": dict(confidence=True),
        "reverse": dict(reverse=True),
        "both": dict(confidence=True, reverse=True),
    }
    found = {}
    for name, keep in asked.items():
        calls.clear()
        (result,) = DisFlow("medium", **keep).estimate([window([(1, 0), (2, 0)], side=32)])
        assert len(calls) == 4
        found[name] = (result.confidence_khw is not None, result.reverse_kchw is not None)
    assert found == {"confidence": (True, False), "reverse": (False, True), "both": (True, True)}


def test_sets_with_and_without_agree_in_all_else(videos: Path, tmp_path: Path) -> None:
    plain, both = tmp_path / "plain", tmp_path / "both"
    run(request(videos, plain))
    kept = {"keep_confidence": True, "keep_reverse": True}
    run(request(videos, both, content=kept, options=kept))
    here, there = ShardSet(plain), ShardSet(both)
    for i in range(len(here)):
        assert here.image_bytes(i) == there.image_bytes(i)
        for k in range(len(here.offsets)):
            assert here.flow_bytes(i, k) == there.flow_bytes(i, k)
            assert decode_flow(there.optional_bytes(i, k, "reverse")).values_chw.shape == (2, 32, 32)
    assert not here.stored_mask("reverse").any() and there.stored_mask("reverse").all()
    names = digests(plain)
    run(request(videos, tmp_path / "again"))
    assert digests(tmp_path / "again") == names
    refused = extract(videos, plain, "--keep-reverse", flow="dis")
    assert refused.exit_code == 1 and "keep_reverse: None in the set, True asked for" in refused.output


def test_the_engine_makes_room_for_it() -> None:
    one = Settings(dataset="folder", estimator={"name": "dis"}, **SMALL)
    both = Settings(dataset="folder", estimator={"name": "dis"}, keep_reverse=True, **SMALL)
    assert flow_bytes(both) - flow_bytes(one) == 4 * 2 * 32 * 32 * 4


def test_inspect_says_what_is_kept_beside_the_flow(videos: Path, tmp_path: Path) -> None:
    assert extract(videos, tmp_path / "set", "--keep-reverse", "--keep-neighbours").exit_code == 0
    said = CliRunner().invoke(main, ["inspect", str(tmp_path / "set"), "--out", str(tmp_path / "sheet.png")])
    assert said.exit_code == 0
    (line,) = [line for line in said.output.splitlines() if line.startswith("kept: ")]
    data = ShardSet(tmp_path / "set")
    size = sum(m.size for i in range(len(data)) for m in data.members(i) if m.name.endswith(".reverse"))
    assert f"reverse 8 ({size / 2**20:.1f} MiB)" in line and "neighbour 8 (" in line and "confidence" not in line
    page = CliRunner().invoke(main, ["inspect", str(tmp_path / "set"), "--page", str(tmp_path / "page")])
    html = (tmp_path / "page" / "index.html").read_text()
    assert page.exit_code == 0 and line in page.output.splitlines()
    assert html.count("flow back from +1, on its own grid</figcaption>") == 2 and "kept of neighbours: reverse" in html
    assert json.loads((tmp_path / "set" / "manifest.json").read_bytes())["settings"]["keep_reverse"] is True
