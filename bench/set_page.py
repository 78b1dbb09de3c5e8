"""What the page of a large set costs: a made-up index of many shards (bench/made_up_set.py) summed up, and the page's size.

    python bench/set_page.py --videos 120000 --passes 16 [--record]

The shards are sparse files without samples, so the windows are left out: of members a page reads those of a few samples, whatever
the set's size.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.cost import cost_of
from bench.made_up_set import CHUNK_VIDEOS, write_set
from bench.record import record
from pipeline.inspect.set_page import PAGE, write_set_page
from pipeline.inspect.shard_table import CSV
from shards.reader import ShardSet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=25_600)
    parser.add_argument("--passes", type=int, default=8)
    parser.add_argument("--record", action="store_true", help="append the figures to bench/results.csv")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "set", Path(folder) / "page"
        write_set(root, asked.videos, asked.passes)
        cost = cost_of(lambda: write_set_page(ShardSet(root), [], out))
        size = f"{asked.videos} videos x {asked.passes} passes, {-(-asked.videos // CHUNK_VIDEOS) * asked.passes} shards; windows left out"
        rows = (
            ("page_cpu_s", cost.cpu_s, "s"),
            ("page_peak_mib", cost.grown_bytes / 2**20, "MiB"),
            ("page_kib", (out / PAGE).stat().st_size / 1024, "KiB"),
            ("page_csv_kib", (out / CSV).stat().st_size / 1024, "KiB"),
        )
        for name, value, unit in rows:
            if asked.record:
                record("set_page", name, value, unit, size)
            else:
                print(f"{name:16s} {value:10.1f} {unit}  {size}", flush=True)


if __name__ == "__main__":
    main()
