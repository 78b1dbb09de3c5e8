"""A model as an ONNX file with dynamic batch, height and width, checked against ONNX Runtime before it gets its name.

Input `images` [B, 3, H, W] float32, normalised, H and W multiples of twice the patch; outputs `low` [B, D, H/p, W/p] and `high`
[B, C, H, W], as the plain call gives them. What a user of the file must know is in its metadata. `trainer.onnx_command` is
the command over it; onnx and onnxruntime are an extra and are loaded only here.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shards.files import atomic_path
from trainer.encoder import FrozenViT
from trainer.images import IMAGENET_MEAN, IMAGENET_STD
from trainer.model import EncoderDecoder
from trainer.onnx_positions import ResizableViT
from trainer.tensor_file import first_line

TOLERANCE = 1e-4
"""Largest difference to the plain call that a file may show, as a share of the largest value. Measured: docs/models.md."""
OPSET = 18
AXES = {
    "images": {0: "batch", 2: "height", 3: "width"},
    "low": {0: "batch", 2: "rows", 3: "columns"},
    "high": {0: "batch", 2: "height", 3: "width"},
}


@dataclass(frozen=True)
class Difference:
    """How far ONNX Runtime is from the plain call at one size [B, 3, H, W]: the larger one of both maps, of its largest value."""

    size: tuple[int, int, int, int]
    relative: float


def export_onnx(model: EncoderDecoder, path: Path, *, name: str, licence: str) -> list[Difference]:
    """Write `path` and return what the check found. name, licence: for the metadata.

    Raises ValueError where onnx or onnxruntime is missing, the model is not on the CPU in float32, it cannot be traced, or the
    file's outputs differ by more than `TOLERANCE` at one of the sizes; then nothing is written.
    """
    onnx, runtime = _packages()
    weight = next(model.parameters())
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        raise ValueError(
            f"export works on the CPU in float32, not on {weight.device} in {weight.dtype}: model.cpu().float()"
        )
    plain = _Plain(model)
    with atomic_path(path, keep_suffix=True) as temporary:
        _trace(plain, model.size_multiple, temporary, model.variant)
        graph = onnx.load(temporary)
        for key, value in metadata(model, name=name, licence=licence).items():
            entry = graph.metadata_props.add()
            entry.key, entry.value = key, value
        onnx.save(graph, temporary)
        del graph
        found = [_difference(runtime, temporary, model, size) for size in checked_sizes(model)]
        worst = max(found, key=lambda one: one.relative)
        if not worst.relative <= TOLERANCE:
            raise ValueError(
                f"{model.variant} cannot be exported: ONNX Runtime differs by {worst.relative:.2g} of the largest value "
                f"(at most {TOLERANCE:g}) for images of {list(worst.size)}"
            )
    return found


def metadata(model: EncoderDecoder, *, name: str, licence: str) -> dict[str, str]:
    """What a user of the file must know, as texts (JSON where it is more than one word)."""
    return {
        "name": name,
        "encoder": model.variant,
        "encoder_source": model.encoder_source,
        "licence": licence,
        "mean": json.dumps(IMAGENET_MEAN),
        "std": json.dumps(IMAGENET_STD),
        "colors": "RGB from 0 to 1, minus mean, over std",
        "patch": str(model.patch_size),
        "size_multiple": str(model.size_multiple),
        "feature_dim": str(model.feature_dim),
    }


def checked_sizes(model: EncoderDecoder) -> list[tuple[int, int, int, int]]:
    """Sizes at which a file is checked: none is the traced one, and the encoder's native one is among them where it can be had."""
    step = model.size_multiple
    sizes = [(1, 3, 2 * step, 2 * step), (3, 3, 5 * step, step), (1, 3, 4 * step, 7 * step)]
    if isinstance(model.encoder, FrozenViT):
        rows, columns = model.encoder.spec.grid
        native = (rows * model.patch_size, columns * model.patch_size)
        sizes += [(1, 3, *native)] if not (native[0] % step or native[1] % step) else []
    return sizes


class _Plain(nn.Module):
    """The plain call without its checks of sizes, which a trace would freeze."""

    def __init__(self, model: EncoderDecoder) -> None:
        super().__init__()
        self.encoder: nn.Module = model.encoder
        if isinstance(model.encoder, FrozenViT):
            with torch.device("meta"):
                resizable = ResizableViT(model.encoder.spec)
            resizable.load_state_dict(model.encoder.state_dict(), assign=True)
            self.encoder = resizable
        self.decoder = model.decoder
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        low, maps = self.encoder(images)
        return low, self.decoder(maps, (images.shape[-2], images.shape[-1]))


def _trace(plain: _Plain, step: int, path: Path, variant: str) -> None:
    images = torch.randn(2, 3, 3 * step, 4 * step, generator=torch.Generator().manual_seed(0))
    torch._C._jit_set_onnx_log_enabled(False)  # else a trace that fails prints its whole graph to standard output
    with warnings.catch_warnings(), torch.no_grad():
        # Of the tracing exporter: that it is the older one (the newer takes 50 times as long), and what it holds constant.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                plain,
                (images,),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["low", "high"],
                dynamic_axes=AXES,
            )
        except (torch.onnx.errors.OnnxExporterError, TypeError) as error:
            raise ValueError(f"{variant} cannot be exported: {first_line(error)}") from error


def _difference(runtime: Any, path: Path, model: EncoderDecoder, size: tuple[int, int, int, int]) -> Difference:
    images = torch.randn(size, generator=torch.Generator().manual_seed(1))
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what goes wrong is told by the exception
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        found = [torch.from_numpy(one) for one in session.run(["low", "high"], {"images": images.numpy()})]
    except Exception as error:  # its classes have no common base but this one
        raise ValueError(f"ONNX Runtime cannot run {model.variant} on {list(size)}: {first_line(error)}") from error
    relative = 0.0
    for ours, theirs in zip(model(images), found, strict=True):
        if ours.shape != theirs.shape:
            raise ValueError(
                f"{model.variant} cannot be exported: for images of {list(size)} ONNX Runtime gives {list(theirs.shape)}, "
                f"not {list(ours.shape)}"
            )
        relative = max(relative, float((ours - theirs).abs().max() / ours.abs().max()))
    return Difference(size, relative)


def _packages() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ValueError(
            f"ONNX export needs the packages onnx and onnxruntime ({error}): pip install 'flowfeat-shards[onnx]'"
        ) from error
    return onnx, onnxruntime
