"""The sections of a config: every setting with its type, its default (the paper's) and its bounds.

`trainer.config` puts them together, reads them from TOML and checks what several of them must agree on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trainer.config_field import setting


@dataclass(frozen=True)
class EncoderConfig:
    """The frozen encoder. `variant`: a name of the table, "timm:NAME", or "package.module:factory" (docs/models.md). `init` "random"
    needs no file; "pretrained" reads `weights`, or fetches the published file."""

    variant: str = "dinov2_vits14"
    init: Literal["pretrained", "random"] = "pretrained"
    weights: str = ""


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is trained for. `name` "flowfeat": a linear map is fitted per image; "naive": one for all images is learned (an ablation)."""

    name: Literal["flowfeat", "naive"] = "flowfeat"


@dataclass(frozen=True)
class DataConfig:
    """The shard sets and how they are read (docs/data.md). `shards`: a folder or an address, or a list of them; `weights`: one per
    set, how often its samples are seen against the others' (empty: every sample once per epoch). `offsets` empty: every stored
    neighbour. `passes` 0: all; n: the first n anchors of every video. `source_size` 0: twice the view size, at most what is stored
    (the paper crops 224 out of 448). `block_samples`: samples that are read in one go and shuffled with those of `window_blocks`
    such blocks (0: 64 where a set is read from an address, else none; -1: none). `allow_partial`: accept a set that is still
    growing. `workers`: processes that decode, per rank; `prefetch_batches`: how many batches they are ahead at most. `timeout_s`:
    their longest silence; `max_failed_share`: past this share of unreadable samples a run stops. `holdout`: share of the videos
    that are never trained on, for figures while the training runs (0: none). Beyond the paper (docs/ahead.md): `neighbours` of each
    sample that a step compares with; `motion_samples`, `motion_neighbours`: samples, or a sample's neighbours, are drawn in
    proportion to this power of their motion (0: all alike)."""

    shards: str | tuple[str, ...] = ""
    weights: tuple[float, ...] = setting((), above=0)
    offsets: tuple[int, ...] = ()
    passes: int = setting(0, low=0)
    source_size: int = setting(0, low=0)
    workers: int = setting(2, low=0, high=512)
    prefetch_batches: int = setting(4, low=1, high=64)
    block_samples: int = setting(0, low=-1, high=65536)
    window_blocks: int = setting(64, low=1, high=65536)
    timeout_s: float = setting(300.0, above=0)
    max_failed_share: float = setting(0.5, low=0, high=1)
    allow_partial: bool = False
    holdout: float = setting(0.0, low=0, high=0.9)
    neighbours: int = setting(1, low=1, high=64)
    motion_samples: float = setting(0.0, low=-4, high=4)
    motion_neighbours: float = setting(0.0, low=-4, high=4)

    @property
    def sets(self) -> tuple[str, ...]:
        """Folder or address of each shard set."""
        given = (self.shards,) if isinstance(self.shards, str) else self.shards
        return tuple(place for place in given if place)


@dataclass(frozen=True)
class ViewsConfig:
    """Two square views per frame. `image_size`: their side in pixels; `crop_scale`: the range that their share of the source's
    height and width is drawn from."""

    image_size: int = setting(224, low=16, high=4096)
    crop_scale: tuple[float, float] = setting((0.5, 0.75), above=0, high=1)


@dataclass(frozen=True)
class LossConfig:
    """`alpha`: strength of the ridge (with the Gram matrix divided by N). `sigma`: that of the focal weight in the gradient term.
    `flow_weight`, `grad_weight`: weights of the two terms. `flow_kind`: how flow is compared in the flow term. `grad_kind`: the gradient
    term compares the "magnitude" of differences (the published code) or the differences with their sign, "signed", which leaves
    no patch lattice (docs/ahead.md). `confidence`: pixels count in ridge and losses as much as the flow is trusted there; for
    sets extracted with --keep-confidence."""

    alpha: float = setting(1.0, above=0)
    sigma: float = setting(0.1, above=0)
    flow_weight: float = setting(0.1, low=0)
    grad_weight: float = setting(1.0, low=0)
    flow_kind: Literal["l1", "l2", "smooth_l1", "huber"] = "l1"
    grad_kind: Literal["magnitude", "signed"] = "magnitude"
    confidence: bool = False


@dataclass(frozen=True)
class TrainConfig:
    """`seed`: of initial weights, order of samples and views. `steps`: optimiser steps in all. `lr`, `betas`, `weight_decay`: of
    AdamW. `device`: auto, cpu, cuda or cuda:N. `compile`: the networks through `torch.compile`. `precision`: "fp32"; "tf32" lets
    convolutions use TF32 (CUDA); "bf16" runs both networks in bfloat16 autocast (CUDA, or a processor with bf16 instructions).
    `batch_size` is that of all ranks together; `accumulate` splits each rank's share into equal parts (same gradient, less memory).
    `threads` of torch on the CPU, 0: what the run began with, at first all cores that are there for it (docs/training.md).
    `schedule`, `warmup_steps`: how `lr` rises and falls over the run (`trainer.schedule`). `max_minutes` 0: no limit."""

    seed: int = setting(0, low=0, high=2**31 - 1)
    steps: int = setting(115_300, low=1)
    batch_size: int = setting(128, low=1)
    accumulate: int = setting(1, low=1)
    lr: float = setting(1e-4, above=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = setting(0, low=0)
    betas: tuple[float, float] = setting((0.9, 0.999), low=0, high=0.9999999)
    weight_decay: float = setting(0.0, low=0)
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    compile: bool = False
    device: str = "auto"
    threads: int = setting(0, low=0, high=1024)
    max_minutes: float = setting(0.0, low=0)


@dataclass(frozen=True)
class TeacherConfig:
    """The EMA of the decoder. `max_decay`: cap of its decay; `every`: optimiser steps between its updates. `export`: the model file
    holds the teacher's decoder instead of the student's."""

    max_decay: float = setting(0.999, low=0, high=1)
    every: int = setting(5, low=1)
    export: bool = False


@dataclass(frozen=True)
class LogConfig:
    """Steps between log lines (`every`), pictures (`pictures_every`, 0: never), checkpoints (`checkpoint_every`) and evaluations of the
    held-out videos (`holdout_every`, of at most `holdout_batches` batches). `keep_checkpoints`: how many stay. `tensorboard`: on or off."""

    every: int = setting(10, low=1)
    pictures_every: int = setting(1000, low=0)
    checkpoint_every: int = setting(1000, low=1)
    keep_checkpoints: int = setting(2, low=1)
    holdout_every: int = setting(1000, low=1)
    holdout_batches: int = setting(8, low=1)
    tensorboard: bool = True
