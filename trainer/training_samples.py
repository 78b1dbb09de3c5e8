"""Which samples of a set a run trains on, and which it holds out to be evaluated on.

A shard set's index and a config come in; `trainer.order` goes over what is left. Whole videos are held out: a video's other
anchors show nearly the same pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shards.reader import ShardSet
from shards.sample import Member, OptionalMember
from trainer.batch import FRAME_AND_FLOW
from trainer.config import Config
from trainer.order import SampleOrder

KEEP_OPTION: dict[OptionalMember, str] = {"neighbour": "--keep-neighbours", "confidence": "--keep-confidence"}


def held_out_mask(videos: Sequence[str], seed: int, share: float) -> NDArray[np.bool_]:
    """Whether each sample's video is held out: a hash of (seed, video id) in [0, 1) lies below `share`.

    It does not depend on the other videos, so a set that grows holds out the same ones, and a larger share holds out more.
    """
    chosen = {video: _fraction(f"{seed}:{video}") < share for video in set(videos)}
    return np.array([chosen[video] for video in videos], bool)


def _fraction(text: str) -> float:
    """53 bits of a hash as a number in [0, 1): as many as a float holds."""
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11) * 2.0**-53


def sample_order(shards: ShardSet, config: Config, members: frozenset[Member] = FRAME_AND_FLOW) -> SampleOrder:
    """The training's order over a set: pairs with usable flow that hold all optional members of `members`, without the
    videos that data.holdout keeps apart.

    ValueError where data.offsets names neighbours, or the objective members, that the set does not hold.
    """
    usable, columns = _usable(shards, config, members)
    if config.data.holdout:
        usable = usable & ~_held_out(shards, config)[:, None]
    order = SampleOrder(usable, seed=config.train.seed, columns=columns)
    if not len(order):
        reason = (
            f"no sample of the set at {shards.root} can be trained on: {len(shards)} samples, none with usable flow"
        )
        offsets = f" at offsets {list(config.data.offsets)}" if config.data.offsets else ""
        apart = f" outside the share of videos held out (data.holdout = {config.data.holdout:g})"
        raise ValueError(reason + offsets + (apart if config.data.holdout else ""))
    return order


def held_out_order(shards: ShardSet, config: Config, members: frozenset[Member] = FRAME_AND_FLOW) -> SampleOrder | None:
    """The order over the held-out samples; None where data.holdout is 0. ValueError where it leaves no sample."""
    if not config.data.holdout:
        return None
    usable, columns = _usable(shards, config, members)
    order = SampleOrder(usable & _held_out(shards, config)[:, None], seed=config.train.seed, columns=columns)
    if not len(order):
        raise ValueError(
            f"data.holdout = {config.data.holdout:g} holds out no usable sample of the {len(set(shards.video))} videos at "
            f"{shards.root}: choose a larger share, or 0 for none"
        )
    return order


def _held_out(shards: ShardSet, config: Config) -> NDArray[np.bool_]:
    return held_out_mask(shards.video, config.train.seed, config.data.holdout)


def _usable(shards: ShardSet, config: Config, members: frozenset[Member]) -> tuple[NDArray[np.bool_], list[int] | None]:
    """Which pairs [samples, K] may be used at all, and the columns that data.offsets allows (None: all)."""
    stored = shards.manifest.settings.offsets
    strangers = [offset for offset in config.data.offsets if offset not in stored]
    if strangers:
        raise ValueError(f"data.offsets = {list(config.data.offsets)}: the set at {shards.root} stores {list(stored)}")
    columns = [k for k, offset in enumerate(stored) if offset in config.data.offsets] if config.data.offsets else None
    usable = shards.trainable_mask
    if config.data.passes:
        if config.data.passes > shards.manifest.passes:
            raise ValueError(
                f"data.passes = {config.data.passes}: the set at {shards.root} has {shards.manifest.passes}; extend it with "
                f"PASSES={config.data.passes} (--passes {config.data.passes})"
            )
        usable = usable & (shards.pass_index < config.data.passes)[:, None]
    for member, option in KEEP_OPTION.items():
        if member in members:
            usable = usable & shards.stored_mask(member)
            if not usable.any():
                raise ValueError(
                    f"the training objective reads {member} members, and the set at {shards.root} holds none beside usable "
                    f"flow: extract it with {option}"
                )
    return usable, columns
