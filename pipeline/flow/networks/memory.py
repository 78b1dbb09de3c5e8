"""How much memory a pair takes in a network of the RAFT family: a bound that was measured, for `pipeline/flow/batching.py`."""

from __future__ import annotations

from pipeline.flow.networks.upsample import STRIDE

# Bytes per pixel of a frame that one pair adds to the peak beside the correlation volume, in float32: at most 798
# were measured with `bench/flow_peak_memory.py` (SEA-RAFT, one neighbour, both directions), the rest is for workspaces.
_BYTES_PER_PIXEL = 900
_VOLUME_LEVELS = 1 + 1 / 4 + 1 / 16 + 1 / 64


def pair_bytes(rows: int, columns: int, directions: int = 1) -> int:
    """Upper bound of what one pair of rows×columns frames adds to the peak, in any precision.

    directions: 2 where the way back is computed too. The all-pairs volume grows with the square of the
    area (3.3 MB a direction at 224×224, 223 MB at 432×960); the rest, mostly the encoders' first maps, with the area.
    """
    cells = -(-rows // STRIDE) * -(-columns // STRIDE)
    return int(directions * 4 * cells * cells * _VOLUME_LEVELS + _BYTES_PER_PIXEL * rows * columns)
