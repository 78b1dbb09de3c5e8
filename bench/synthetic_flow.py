"""End-point error of DIS on synthetic video against the generator's exact flow, both through shards, at 224 px.

python bench/synthetic_flow.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.record import record
from pipeline.extract.local import LocalRunner
from pipeline.extract.run import ExtractionRequest, extract, stated
from pipeline.flow.estimator import choose
from pipeline.synth import write_videos
from shards.codec import decode_flow
from shards.reader import ShardSet
from shards.schema import Settings


@click.command()
@click.option("--videos", default=32, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(videos: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        write_videos(home / "videos", videos, seed)
        sets = {flow: _extract(home, flow) for flow in ("dis", "truth")}
        errors: dict[int, list[float]] = {}
        quantised: list[float] = []
        for i in range(len(sets["dis"])):
            for k, offset in enumerate(sets["dis"].offsets):
                dis, truth = (decode_flow(s.flow_bytes(i, k)) for s in (sets["dis"], sets["truth"]))
                difference = dis.values_chw * dis.quantum_px - truth.values_chw * truth.quantum_px
                errors.setdefault(abs(offset), []).append(float(np.hypot(*difference).mean()))
                quantised.append(truth.quantum_px / 2)
        for distance, values in sorted(errors.items()):
            note = f"{len(values)} pairs of {videos} videos, all pixels, occlusions included"
            record("synthetic", f"dis_epe_offset_{distance}", float(np.mean(values)), "px", note)
        record(
            "synthetic",
            "stored_flow_error_bound_mean",
            float(np.mean(quantised)),
            "px",
            "half a quantum, mean over pairs",
        )


def _extract(home: Path, flow: str) -> ShardSet:
    estimator = choose(flow)
    settings = Settings(dataset="synthetic", estimator=stated(estimator))
    request = ExtractionRequest(home / "videos", home / flow, settings, estimator, passes=3)
    extract(request, LocalRunner(2, estimator), lambda event, tally: None, lambda plan, tally: None)
    return ShardSet(home / flow)


if __name__ == "__main__":
    main()
