"""A set whose content is known for ever: exact flow of synthetic scenes, compared with a digest that is committed here.

It covers all that no library's version decides: which frames are drawn, how samples are laid out, the integers of every flow. JPEG and
MP4 bytes and compressed bytes are left out, and floats are compared with a tolerance. If this test fails, sets made before and after
the change are not the same set: either undo it, or raise the format's version.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.synth import write_videos
from shards import schema
from shards.codec import decode_flow
from shards.reader import ShardSet
from tests.pipeline.extract.in_process import run_here
from tests.pipeline.extract.small_extraction import request

DIGEST = "6462bd1cd150defe1ba9e0177e0ddef1502259801a255c5895241450ed291116"
MEAN_MAGNITUDES = {
    "mean_dx_px": 0.329217288,
    "mean_dy_px": 0.099785676,
    "std_dx_px": 0.251413023,
    "std_dy_px": 0.181936797,
    "max_px": 1.573315876,
}


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("golden")
    write_videos(home / "videos", 5, 11, frames=16, size=(120, 160))
    (home / "videos" / "synth-00002.mp4").write_bytes(b"")
    content = {"image_size": 112, "flow_size": 56, "chunk_videos": 2, "seed": 7, "keep_neighbours": True}
    run_here(request(home / "videos", home / "set", dataset="synthetic", flow="truth", passes=3, content=content))
    return home / "set"


def test_the_content_is_what_it_always_was(golden: Path) -> None:
    data, digest = ShardSet(golden), hashlib.sha256()

    def add(value: object) -> None:
        digest.update(json.dumps(value, sort_keys=True).encode() + b"\n")

    add(data.manifest.settings.to_json())
    add(dict(data.manifest.counts))
    for video in pq.read_table(golden / schema.VIDEOS).to_pylist():
        add({**video, "fps": round(video["fps"] or 0, 3)})
    for i, row in enumerate(pq.read_table(golden / schema.INDEX).to_pylist()):
        add([row[name] for name in ("key", "pass", "shard", "video", "frame", "neighbour_frame", "status")])
        add([row["quantum_exponent"], [member["name"] for member in row["optional_members"]]])
        add([round(time_s, 3) for time_s in (row["time_s"], *row["neighbour_time_s"])])
        for k in range(len(data.offsets)):
            flow = decode_flow(data.flow_bytes(i, k), (56, 56))
            digest.update(np.ascontiguousarray(flow.values_chw, dtype="<i2").tobytes())
    assert digest.hexdigest() == DIGEST


def test_the_statistics_are_what_they_always_were(golden: Path) -> None:
    index = pq.read_table(golden / schema.INDEX)
    means = {name: float(np.abs(index.column(name).to_pylist()).mean()) for name in MEAN_MAGNITUDES}
    assert means == pytest.approx(MEAN_MAGNITUDES, rel=1e-5)
