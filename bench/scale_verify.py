"""What `verify --deep` costs per sample however many there are, and how often it reads each.

    python bench/scale_verify.py --samples 10000 50000 200000 [--record]

Real sets of small samples (32 and 16 pixels: what grows with a set would show beside so little decoding), 256 to a shard as by default,
are written to a temporary folder one after the other (200,000 take 1.6 GiB), and verified in a process of its own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import simplejpeg

from bench.cost import cost_of
from bench.made_up_set import FACTS
from bench.record import record
from shards import schema
from shards.codec import channel_std_px, encode_flow, pair_exponent
from shards.schema import Settings
from shards.storage import LocalFolder
from shards.verify import verify
from shards.writer import ChunkWriter, EncodedSample, finalize

SETTINGS = Settings("folder", {"name": "none"}, image_size=32, flow_size=16, chunk_videos=256)
PASSES = 4


def sample() -> EncodedSample:
    """One for all places: a picture and four flows."""
    draw, k = np.random.default_rng(0), len(SETTINGS.offsets)
    y, x = np.mgrid[0:16, 0:16] / 16
    flow = np.stack([3 * x + y, np.sin(3 * x) + 2 * y]).astype(np.float32)
    (std_dx, std_dy), mean = channel_std_px(flow).tolist(), flow.reshape(2, -1).mean(axis=1).tolist()
    columns: dict[str, Sequence[object]] = {
        "neighbour_frame": [10 + offset for offset in SETTINGS.offsets],
        "neighbour_time_s": [1.0 + 0.1 * offset for offset in SETTINGS.offsets],
        "status": [schema.STORED] * k,
        "quantum_exponent": [pair_exponent(flow)] * k,
        "mean_dx_px": [mean[0]] * k,
        "mean_dy_px": [mean[1]] * k,
        "std_dx_px": [std_dx] * k,
        "std_dy_px": [std_dy] * k,
        "max_px": [float(np.hypot(*flow).max())] * k,
        "confidence": [None] * k,
    }
    picture = draw.integers(0, 255, (32, 32, 3), np.uint8)
    image = simplejpeg.encode_jpeg(picture, quality=90, colorspace="RGB")
    return EncodedSample("", 10, 1.0, image, [encode_flow(flow)] * k, columns, {})


def write_real_set(root: Path, chunks: int) -> int:
    """PASSES shards per chunk, every place taken. Returns the number of samples."""
    one, plan = sample(), []
    for chunk in range(chunks):
        names = [f"video-{chunk:06d}-{position:03d}" for position in range(SETTINGS.chunk_videos)]
        writer = ChunkWriter(root, SETTINGS, chunk, range(PASSES))
        for position, name in enumerate(names):
            plan.append({"video": name, "path": f"{name}.mp4", "chunk": chunk, "position": position})
            for pass_index in range(PASSES):
                writer.add(pass_index, position, replace(one, video=name))
        writer.commit([{"video": name, **FACTS} for name in names])
    (root / schema.PLAN).write_text("{}")  # the pipeline's: without one a set counts as one that cannot be continued
    finalize(root, SETTINGS, chunks, PASSES, plan)
    return len(plan) * PASSES


def verified(root: Path) -> int:
    """How many ranges of shards were read. Counting them is a small part of what is measured."""
    reads, read_range = 0, LocalFolder.read_range

    def counted(folder: LocalFolder, name: str, offset: int, size: int) -> bytes:
        nonlocal reads
        reads += 1
        return read_range(folder, name, offset, size)

    LocalFolder.read_range = counted  # type: ignore[method-assign, assignment]
    problems = verify(root, deep=True)
    assert problems == [], problems[:3]
    return reads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[10_000, 50_000, 200_000])
    parser.add_argument("--record", action="store_true", help="append the figures to bench/results.csv")
    asked = parser.parse_args()
    base = 0.0
    for wanted in asked.samples:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "set"
            samples = write_real_set(root, round(wanted / SETTINGS.chunk_videos / PASSES))
            cost = cost_of(lambda: verified(root))  # noqa: B023  runs at once
        each = 1e6 * cost.cpu_s / samples
        base = base or each
        note = f"{samples} samples in {samples // SETTINGS.chunk_videos} shards; x{each / base:.2f}; {cost.note()}"
        print(
            f"{samples:7d} samples {each:8.1f} CPU-us per sample, {cost.found / samples:.2f} reads each  {note}",
            flush=True,
        )
        if asked.record:
            record("scale", f"verify_deep_cpu_us_per_sample_of_{wanted}", each, "us", note)
            record("scale", f"verify_deep_reads_per_sample_of_{wanted}", cost.found / samples, "1", note)


if __name__ == "__main__":
    main()
