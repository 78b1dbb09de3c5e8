"""Which samples of a set a run trains on, and which it holds out to be evaluated on.

The indices of one or several shard sets and a config come in; an order over what is left goes out (`trainer.order`,
`trainer.mixed_order`, `trainer.block_order`). Whole videos are held out: a video's other anchors show nearly the same pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shards.index_arrays import Names
from shards.reader import ShardSet
from shards.sample import Member, OptionalMember
from trainer.batch import FRAME_AND_FLOW
from trainer.block_order import BlockOrder
from trainer.config import Config
from trainer.mixed_order import MixedOrder
from trainer.order import SampleOrder
from trainer.preference import Preference, edges_within, motion_weights, sample_weights
from trainer.shard_sets import ShardSets

KEEP_OPTION: dict[OptionalMember, str] = {"neighbour": "--keep-neighbours", "confidence": "--keep-confidence"}


def held_out_mask(videos: Sequence[str], seed: int, share: float) -> NDArray[np.bool_]:
    """Whether each sample's video is held out: a hash of (seed, video id) in [0, 1) lies below `share`.

    It does not depend on the other videos, so a set that grows holds out the same ones, and a larger share holds out more.
    """
    if isinstance(videos, Names):  # as a set has them: each name once, and a number per sample
        return held_out_mask(videos.distinct.to_pylist(), seed, share)[videos.codes]
    chosen = {video: _fraction(f"{seed}:{video}") < share for video in set(videos)}
    return np.array([chosen[video] for video in videos], bool)


def _fraction(text: str) -> float:
    """53 bits of a hash as a number in [0, 1): as many as a float holds."""
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11) * 2.0**-53


def sample_order(
    shards: ShardSet | ShardSets, config: Config, members: frozenset[Member] = FRAME_AND_FLOW
) -> SampleOrder:
    """The training's order over its sets: pairs with usable flow that hold all optional members of `members`, without the
    videos that data.holdout keeps apart.

    ValueError where data.offsets names neighbours, or the objective members, that the set does not hold.
    """
    sets = ShardSets.of(shards)
    usable, columns = _usable(sets, config, members)
    if config.data.holdout:
        usable = usable & ~_held_out(sets, config)[:, None]
    chosen = usable if columns is None else usable[:, columns]
    for one, mine in zip(sets.sets, np.split(chosen, np.cumsum(sets.sizes)[:-1]), strict=True):
        if not mine.any():
            reason = (
                f"no sample of the set at {one.place} can be trained on: {len(mine)} samples, none with usable flow"
            )
            offsets = f" at offsets {list(config.data.offsets)}" if config.data.offsets else ""
            apart = f" outside the share of videos held out (data.holdout = {config.data.holdout:g})"
            raise ValueError(reason + offsets + (apart if config.data.holdout else ""))
    _check_neighbours(sets, config, members, usable.shape[1] if columns is None else len(columns))
    order = _order(sets, usable, columns, config.train.seed)
    order.preference = _preference(sets, config, order, chosen=usable, columns=columns)
    return order


def _check_neighbours(sets: ShardSets, config: Config, members: frozenset[Member], most: int) -> None:
    """ValueError where a sample cannot have data.neighbours neighbours."""
    asked = config.data.neighbours
    if asked > most:
        raise ValueError(f"data.neighbours = {asked}: samples of {sets.place} have {most} neighbours to draw from")
    if asked > 1 and "neighbour" in members:
        raise ValueError(
            f"data.neighbours = {asked}: the training objective reads one neighbour's frame, so it takes 1"
        )


def _preference(
    sets: ShardSets, config: Config, order: SampleOrder, *, chosen: NDArray[np.bool_], columns: list[int] | None
) -> Preference | None:
    """By motion, as data.motion_samples and data.motion_neighbours say; None where both are 0.

    Where samples are read in blocks they are preferred within their block only, so that the blocks are read as evenly as ever.
    """
    by_sample, by_neighbour = config.data.motion_samples, config.data.motion_neighbours
    if not (by_sample or by_neighbour):
        return None
    usable = chosen.copy()
    if columns is not None:
        usable[:, [k for k in range(usable.shape[1]) if k not in columns]] = False
    usable, std_px = usable[order.samples], sets.std_px[order.samples]
    edges = None
    if by_sample:
        set_of_row = np.repeat(np.arange(len(sets.sizes)), sets.sizes)
        groups = (sets.blocks if sets.window_blocks else set_of_row)[order.samples]
        edges = edges_within(sample_weights(motion_weights(std_px, usable, by_sample)), groups)
    return Preference(edges, motion_weights(std_px, usable, by_neighbour) if by_neighbour else None)


def _order(sets: ShardSets, usable: NDArray[np.bool_], columns: list[int] | None, seed: int) -> SampleOrder:
    """Over one set, or several without weights, one permutation of all samples; else see the modules of the other orders."""
    if sets.window_blocks:
        return BlockOrder(
            usable,
            seed=seed,
            columns=columns,
            blocks=sets.blocks,
            window_blocks=sets.window_blocks,
            set_sizes=sets.sizes,
            weights=sets.weights,
        )
    if sets.weights:
        return MixedOrder(usable, seed=seed, columns=columns, set_sizes=sets.sizes, weights=sets.weights)
    return SampleOrder(usable, seed=seed, columns=columns)


def held_out_order(
    shards: ShardSet | ShardSets, config: Config, members: frozenset[Member] = FRAME_AND_FLOW
) -> SampleOrder | None:
    """The order over the held-out samples; None where data.holdout is 0. ValueError where it leaves no sample.

    Always the plain one, so that the same samples are evaluated whatever the weights and wherever the sets lie.
    """
    if not config.data.holdout:
        return None
    sets = ShardSets.of(shards)
    usable, columns = _usable(sets, config, members)
    order = SampleOrder(usable & _held_out(sets, config)[:, None], seed=config.train.seed, columns=columns)
    if not len(order):
        raise ValueError(
            f"data.holdout = {config.data.holdout:g} holds out no usable sample of the {len(set(sets.video))} videos at "
            f"{sets.place}: choose a larger share, or 0 for none"
        )
    return order


def _held_out(sets: ShardSets, config: Config) -> NDArray[np.bool_]:
    return held_out_mask(sets.video, config.train.seed, config.data.holdout)


def _usable(sets: ShardSets, config: Config, members: frozenset[Member]) -> tuple[NDArray[np.bool_], list[int] | None]:
    """Which pairs [samples, K] may be used at all, and the columns that data.offsets allows (None: all)."""
    wanted, stored = config.data.offsets, sets.offsets
    for one in sets.sets:
        strangers = [offset for offset in wanted if offset not in stored]
        if strangers or (wanted and not set(wanted) & set(one.offsets)):
            raise ValueError(f"data.offsets = {list(wanted)}: the set at {one.place} stores {list(one.offsets)}")
        if config.data.passes > one.manifest.passes:
            raise ValueError(
                f"data.passes = {config.data.passes}: the set at {one.place} has {one.manifest.passes}; extend it with "
                f"PASSES={config.data.passes} (--passes {config.data.passes})"
            )
    columns = [k for k, offset in enumerate(stored) if offset in wanted] if wanted else None
    usable = sets.trainable_mask
    if config.data.passes:
        usable = usable & (sets.pass_index < config.data.passes)[:, None]
    for member, option in KEEP_OPTION.items():
        if member in members:
            usable = usable & sets.stored_mask(member)
            if not usable.any():
                raise ValueError(
                    f"the training objective reads {member} members, and the set at {sets.place} holds none beside usable "
                    f"flow: extract it with {option}"
                )
    return usable, columns
