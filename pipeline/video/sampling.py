"""Which frames make a window: from time stamps to anchors and neighbours, and from (seed, video, pass) to one anchor.

Comes in: the presentation time stamps of a video's frames and the nominal offsets (-2, -1, +1, +2).
Goes out: every anchor whose neighbours exist, and a draw among them. Pure functions, nothing is read or kept.

An offset means a number of *nominal frame intervals*, found by time stamp and not by index, so that a variable frame rate or
a dropped frame does not stretch it. At a constant frame rate neighbour k of frame t is exactly frame t+k, and the valid
anchors of n frames are {2, ..., n-3} for offsets up to ±2: the window of five frames of FlowFeat (NeurIPS 2025).

The draw is a keyed permutation (a Feistel network on BLAKE2b, with cycle walking): the anchors of passes 0, 1, 2, ... of a
video are distinct until all have been taken, then a fresh permutation starts. It depends on (seed, video id, pass, number of valid
anchors) alone: not on the machine, the process, the order of videos, Python's hash seed or a library's random stream.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from shards.offsets import check_offsets

FEISTEL_ROUNDS = 6
CONSTANT_RATE_SHARE = 0.9
"""Of all steps between frames: so many must be alike for a rate to be called constant."""
ROUNDING_S = 1.5e-3
"""Two neighbouring stamps in milliseconds are each off by half of one; the rest is for 32-bit floats, which decord gives stamps in."""


def nominal_interval_s(times_s: NDArray[np.float64]) -> float:
    """Median of the positive differences of consecutive time stamps, in seconds; 0.0 when there is none."""
    steps_s = np.diff(np.asarray(times_s, dtype=np.float64))
    positive = steps_s[steps_s > 0]
    return float(np.median(positive)) if len(positive) else 0.0


def rate_interval_s(times_s: NDArray[np.float64]) -> float:
    """The interval of the frame rate behind rounded stamps, in seconds: as `nominal_interval_s`, and right over many frames.

    Matroska rounds stamps to milliseconds, so at 29.97 frames per second most steps are 33 ms and the median is 0.37 ms short: at 45
    frames that is half a frame. The mean of the steps that rounding alone can tell from the median has an error that falls with
    their number. Steps that differ by more (a dropped frame) do not enter; where many do, the rate varies and the median is as good.
    """
    steps_s = np.diff(np.asarray(times_s, dtype=np.float64))
    median_s = nominal_interval_s(times_s)
    like = steps_s[np.abs(steps_s - median_s) <= min(ROUNDING_S, median_s / 3)]
    return float(like.mean()) if len(like) > CONSTANT_RATE_SHARE * len(steps_s) else median_s


def valid_anchors(times_s: NDArray[np.float64], offsets: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Anchors with all their neighbours.

    times_s: [n] presentation times in seconds, never decreasing (equal stamps are allowed). offsets: K distinct non-zero integers.
    Returns (anchors [A], neighbours [A, K]): frame indices, anchors ascending.

    With D the interval of the frame rate, neighbour k of anchor a is the frame whose stamp is nearest to times_s[a] + k*D (the earlier one
    of two that are equally near, the first of several with the same stamp). The anchor is valid if for every k the stamp is at most D/2
    off, the neighbour lies on the side that the sign of k says, and all frames of the window are distinct.

    Raises ValueError for decreasing or non-finite stamps (whoever reads the video must sort or replace them first: a permuted
    order here would silently pair wrong frames), and for offsets that are empty, zero or repeated.
    """
    times_s = np.asarray(times_s, dtype=np.float64)
    wanted = check_offsets(offsets)
    n = len(times_s)
    if not np.isfinite(times_s).all():
        raise ValueError(f"{int((~np.isfinite(times_s)).sum())} of {n} time stamps are not finite")
    if n > 1 and np.diff(times_s).min() < 0:
        where = int(np.argmax(np.diff(times_s) < 0))
        raise ValueError(
            f"time stamps decrease after frame {where} ({times_s[where]:.6f} s, then {times_s[where + 1]:.6f} s); sort frames by time first"
        )
    interval_s = rate_interval_s(times_s)
    if interval_s == 0.0:
        return np.empty(0, np.int64), np.empty((0, len(wanted)), np.int64)

    targets_s = times_s[:, None] + interval_s * np.asarray(wanted, np.float64)[None, :]
    nearest = _nearest(times_s, targets_s)
    own = np.arange(n)[:, None]
    in_time = np.abs(times_s[nearest] - targets_s) <= interval_s / 2
    right_side = np.where(np.asarray(wanted)[None, :] > 0, nearest > own, nearest < own)
    window = np.sort(np.concatenate([own, nearest], axis=1), axis=1)
    distinct = (np.diff(window, axis=1) > 0).all(axis=1)
    anchors = np.flatnonzero((in_time & right_side).all(axis=1) & distinct)
    return anchors.astype(np.int64), nearest[anchors].astype(np.int64)


def _nearest(sorted_s: NDArray[np.float64], targets_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the stamp nearest to each target; ties go to the earlier stamp, equal stamps to the first of them."""
    after = np.clip(np.searchsorted(sorted_s, targets_s, side="left"), 0, len(sorted_s) - 1)
    before = np.maximum(after - 1, 0)
    take_before = np.abs(targets_s - sorted_s[before]) <= np.abs(sorted_s[after] - targets_s)
    chosen = np.where(take_before, before, after)
    return np.searchsorted(sorted_s, sorted_s[chosen], side="left").astype(np.int64)


def draw_anchor(seed: int, video_id: str, pass_index: int, n_valid: int) -> int:
    """Position, in [0, n_valid), of the anchor that `video_id` gives to pass `pass_index`.

    Passes c*n_valid ... (c+1)*n_valid - 1 visit every position once, in the order of the c-th permutation.
    Raises ValueError if there is nothing to draw from or the pass is negative.
    """
    if n_valid < 1:
        raise ValueError(f"video {video_id!r} has no valid anchor to draw from (n_valid={n_valid})")
    if pass_index < 0:
        raise ValueError(f"pass_index must be 0 or more, got {pass_index}")
    cycle, position = divmod(pass_index, n_valid)
    key = blake2b(f"{seed}|{cycle}|{video_id}".encode("utf-8", "surrogatepass"), digest_size=32).digest()
    return _permuted(key, position, n_valid)


def _permuted(key: bytes, position: int, n: int) -> int:
    """Image of `position` under the permutation of [0, n) that `key` names.

    A balanced Feistel network permutes [0, 4**h) with 4**h >= n; following its cycle until it re-enters [0, n) permutes that
    range, in fewer than four steps on average since 4**h < 4n.
    """
    half_bits = max(1, ((n - 1).bit_length() + 1) // 2)
    value = position
    while True:
        value = _feistel(key, value, half_bits)
        if value < n:
            return value


def _feistel(key: bytes, value: int, half_bits: int) -> int:
    mask = (1 << half_bits) - 1
    left, right = value >> half_bits, value & mask
    for round_index in range(FEISTEL_ROUNDS):
        digest = blake2b(struct.pack("<BQ", round_index, right), key=key, digest_size=8).digest()
        left, right = right, left ^ (int.from_bytes(digest, "little") & mask)
    return (left << half_bits) | right
