"""What learns: the FlowFeat model (frozen encoder, student decoder), its teacher and the optimiser; one update at a time.

Views with their flows come in from `trainer.feed`. The encoder sees both views without gradient, the teacher decodes the
first, the student the second; `trainer.distill` compares and the student takes one AdamW step; then the teacher follows.
State goes out as a snapshot, the student as a model file.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainer.config import Config
from trainer.distill import Distilled, distill
from trainer.ema import Teacher
from trainer.feed import Views
from trainer.flowfeat import FlowFeat

PARTS = ("flow", "grad", "total")


class Update(NamedTuple):
    """What one optimiser step did: losses and the gradient's norm as numbers, the teacher's decay (None: it stayed),
    the flow predicted for the second view and the student's features there (of the last part of the batch)."""

    losses: dict[str, float]
    grad_norm: float
    decay: float | None
    predicted_b2hw: Tensor
    student_bchw: Tensor


def pick_device(name: str) -> torch.device:
    """ "auto" is CUDA where there is one, else the CPU. ValueError for a device that torch does not know or cannot use."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"train.device = {name!r} is no device: use auto, cpu, cuda or cuda:0") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"train.device = {name!r}: training runs on cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"train.device = {name!r}, but torch sees {torch.cuda.device_count()} CUDA devices")
    return device


def keep_freed_memory() -> None:
    """Have glibc keep large freed blocks instead of handing them back: on the CPU a step allocates the same hundreds of
    megabytes every time, and clearing returned pages costs a fifth of it (measured at 128 pixels, batch 8)."""
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of <malloc.h>
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "gnu_get_libc_version"):
            libc.mallopt(mmap_threshold, 1 << 30)
            libc.mallopt(trim_threshold, (1 << 31) - 1)


def set_precision(config: Config, device: torch.device) -> None:
    """Process-wide switches of `train.precision`. TF32 is only ever allowed for convolutions, never for the ridge."""
    if config.train.precision != "float32" and device.type != "cuda":
        raise ValueError(f"train.precision = {config.train.precision!r} needs CUDA; on {device} use float32")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = config.train.precision != "float32"


def check_sizes(model: FlowFeat, config: Config, stored_size: int) -> int:
    """Side in pixels of the frames that views are cut from. ValueError where the sizes do not fit together."""
    view, multiple = config.views.image_size, model.size_multiple
    if view % multiple:
        down, up = view // multiple * multiple, -(-view // multiple) * multiple
        near = " or ".join(str(n) for n in (down, up) if n)
        raise ValueError(
            f"views.image_size = {view} does not suit {model.variant}: it must be a multiple of {multiple} "
            f"(twice the patch of {model.patch_size}), such as {near}"
        )
    source = config.data.source_size or min(2 * view, stored_size)
    if source > stored_size:
        raise ValueError(f"data.source_size = {source} is larger than the frames in the set ({stored_size} pixels)")
    return source


class Learner:
    """Model, teacher and optimiser of a run. `model.decoder` is the student; only its parameters are trained."""

    def __init__(self, config: Config, device: torch.device, state: dict[str, Any] | None = None) -> None:
        """A new run's learner, or with `state` (from `state_dict`) one that continues; then no encoder file is needed."""
        self.config, self.device = config, device
        set_precision(config, device)
        init: str | Path = Path(config.encoder.weights) if config.encoder.weights else config.encoder.init
        self.model = FlowFeat.create(
            config.encoder.variant, init="random" if state else init, seed=config.train.seed
        ).to(device)
        self.model.encoder.requires_grad_(False)
        self.teacher = Teacher(self.model.decoder, max_decay=config.teacher.max_decay, every=config.teacher.every)
        self.parameters = list(self.model.decoder.parameters())
        self.optimiser = torch.optim.AdamW(
            self.parameters,
            lr=config.train.lr,
            betas=config.train.betas,
            weight_decay=config.train.weight_decay,
            fused=True if device.type == "cuda" else None,
        )
        wrap: Callable[[Any], Any] = torch.compile if config.train.compile else lambda f: f
        self._encode, self._teach, self._study = (
            wrap(part) for part in (self.model.encode, self.teacher.decoder, self.model.decoder)
        )
        if state:
            self.load_state_dict(state)
            self.model.encoder_source = state["encoder_source"]

    def features(self, views: Views) -> tuple[Tensor, Tensor]:
        """Teacher features of view 1 (no gradient) and student features of view 2, [b, 128, h, w]."""
        size = (views.image1.shape[-2], views.image1.shape[-1])
        half = len(views.image1)
        bf16 = self.config.train.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            with torch.no_grad():
                maps = self._encode(torch.cat((views.image1, views.image2))).maps_bdhw
                taught: Tensor = self._teach(tuple(m[:half] for m in maps), size)
            studied: Tensor = self._study(tuple(m[half:] for m in maps), size)
        return taught, studied

    def compare(self, views: Views) -> tuple[Distilled, Tensor]:
        """Losses of one part of a batch, differentiable in the student, and the student's features."""
        loss = self.config.loss
        taught, studied = self.features(views)
        compared = distill(
            taught,
            studied,
            views.u1,
            views.u2,
            alpha=loss.alpha,
            sigma=loss.sigma,
            flow_weight=loss.flow_weight,
            grad_weight=loss.grad_weight,
            flow_kind=loss.flow_kind,
        )
        return compared, studied

    def learn(self, views: Views) -> Update:
        """One optimiser step on one batch, and the teacher's. Waits for the device once, at the end."""
        parts = self.config.train.accumulate
        share = len(views.image1) // parts
        self.optimiser.zero_grad(set_to_none=True)
        sums = torch.zeros(len(PARTS), device=self.device)
        for start in range(0, share * parts, share):
            compared, studied = self.compare(Views(*(v[start : start + share] for v in views)))
            (compared.total / parts).backward()
            sums += torch.stack([compared.flow, compared.grad, compared.total]).detach() / parts
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        self.optimiser.step()
        decay = self.teacher.update(self.model.decoder)
        *losses, grad_norm = torch.cat((sums, norm[None])).tolist()
        return Update(
            dict(zip(PARTS, losses, strict=True)), grad_norm, decay, compared.predicted_b2hw.detach(), studied.detach()
        )

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers from which `load_state_dict` continues exactly; "model" is a complete published layout."""
        teacher = {f"decoder_ema.{key}": value for key, value in self.teacher.state_dict().items()}
        return {
            "encoder_source": self.model.encoder_source,
            "model": {**self.model.state_dict(), **teacher},
            "optim": self.optimiser.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`'s content."""
        prefix = "decoder_ema."
        tensors: dict[str, Tensor] = state["model"]
        self.teacher.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        self.model.load_state_dict({k: v for k, v in tensors.items() if not k.startswith(prefix)})
        self.optimiser.load_state_dict(state["optim"])
