"""Whole models as files: any published, exported or checkpoint layout in, the two distributed forms out.

`read_model_file` strips nesting, prefixes and what only training needs, finds the variant that the shapes fit, and says
which keys do not. `export_model` writes the official flat `.pth`, or `.safetensors` with its variant, spec and provenance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from shards.files import write_atomic
from trainer.encoder_file import encoder_facts, facts_of, stored_grids
from trainer.encoder_reference import check_permitted, describe, is_reference
from trainer.encoder_table import ENCODERS, EncoderSpec
from trainer.families import FAMILIES, Grid
from trainer.model import EncoderDecoder
from trainer.outside_encoder import OutsideSpec
from trainer.tensor_file import (
    DIGEST_KEY,
    check_values,
    compare,
    content_digest,
    first_line,
    read_tensor_file,
    save_tensors,
    unwrap,
)

# What a training checkpoint holds beside the model: teacher, probes, running norms. The published files were cut this way.
CHECKPOINT_ONLY = ("bases", "layer_norm", "decoder_ema", "mlp_head_err", "objective.")
TEACHER = "decoder_ema.ema_model."
EXPORT_FORMAT = "1"


@dataclass(frozen=True)
class ModelFile:
    """A model file understood: the variant and spec its shapes fit, tensors under official keys, metadata as found."""

    variant: str
    spec: EncoderSpec | OutsideSpec
    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read_model_file(
    path: Path,
    *,
    variant: str | None = None,
    teacher: bool = False,
    grid: Grid | None = None,
    finite: bool = True,
) -> ModelFile:
    """Read a whole model (see `FlowFeat.from_pretrained`). finite: refuse NaN and infinity. Raises ValueError naming the keys or
    shapes that do not fit, or the first tensor that cannot be used."""
    payload, metadata = read_tensor_file(path)
    tensors = unwrap(payload)
    if teacher:
        tensors = _with_teacher(tensors, path)
    tensors = {key: value for key, value in tensors.items() if not key.startswith(CHECKPOINT_ONLY)}
    if not any(key.startswith("encoder.") for key in tensors):
        hint = (
            "an encoder file? Then FlowFeat.create(variant, init=path)"
            if "patch_embed.proj.weight" in tensors
            else "another model?"
        )
        raise ValueError(
            f"{path} holds no encoder.* keys (first: {', '.join(list(tensors)[:3]) or 'none'}): is it {hint}"
        )
    try:
        check_values(tensors, path, finite=finite)
    except ValueError as error:
        raise ValueError(f"{error}; get the file again, or use another checkpoint of the run") from error
    name, spec = _identify(tensors, metadata, variant or _outside_variant(payload, metadata, path), grid, path)
    differences = compare(tensors, expected_shapes(spec))
    if differences:
        raise ValueError(f"{path} does not fit {name}: {differences}")
    return ModelFile(name, spec, tensors, metadata)


def training_set(path: Path) -> str | None:
    """Digest of the index of the shard set that a model was trained on (`train.export` and checkpoints note it), or None.

    Raises as `read_tensor_file`.
    """
    payload, metadata = read_tensor_file(path)
    noted = json.loads(metadata["provenance"]) if "provenance" in metadata else payload
    digest = noted.get("shards") if isinstance(noted, Mapping) else None
    return digest if isinstance(digest, str) else None


def expected_shapes(spec: EncoderSpec | OutsideSpec) -> dict[str, tuple[int, ...]]:
    """Official keys of a whole model and their shapes."""
    if isinstance(spec, OutsideSpec):
        model = EncoderDecoder.blank(spec)
    else:
        with torch.device("meta"):
            model = EncoderDecoder(spec)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def _outside_variant(payload: Mapping[str, Any], metadata: Mapping[str, str], path: Path) -> str | None:
    """The encoder that is not ours on which a file says it stands, once its code is permitted to run; else None."""
    recorded = payload.get("variant", metadata.get("variant"))
    if not isinstance(recorded, str) or not is_reference(recorded):
        return None
    check_permitted(recorded, path)
    return recorded


def _identify(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], variant: str | None, grid: Grid | None, path: Path
) -> tuple[str, EncoderSpec | OutsideSpec]:
    """Name and spec: as asked, as our metadata says, or as the shapes fit (then feature width and MAE's grid are read off too)."""
    if variant is None and "spec" in metadata:
        held = _spec_from_json(metadata["spec"], path)
        return metadata.get("variant", "custom"), held if grid is None else replace(held, grid=grid)
    name = variant or _fitting_variant(tensors, path)
    spec = describe(name)
    if "decoder.norm.norm.weight" in tensors:
        spec = replace(spec, feature_dim=len(tensors["decoder.norm.norm.weight"]))
    if isinstance(spec, OutsideSpec):
        return name, spec
    if grid is not None:
        return name, replace(spec, grid=grid)
    if spec.rules.grid_of is not None and "encoder.pos_embed" in tensors:
        recorded = _spec_from_json(metadata["spec"], path).grid if "spec" in metadata else None
        spec = replace(spec, grid=recorded or _stored_grid(tensors["encoder.pos_embed"], spec, path))
    return name, spec


def _stored_grid(position_1pd: Tensor, spec: EncoderSpec, path: Path) -> Grid:
    """The layout of a position table whose file does not record it: what the table shows, else the variant's own.

    The official MAE model stores the grid it was trained with, of any shape; a number of tokens alone does not tell which.
    """
    shown = stored_grids(position_1pd, spec)
    if len(shown) == 1:
        return shown[0]
    count = position_1pd.shape[1] - 1
    if count == spec.grid[0] * spec.grid[1] and spec.grid in (shown or [spec.grid]):
        return spec.grid
    layouts = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    raise ValueError(
        f"{path} stores positions of {count} tokens, and neither its metadata nor the position table says in which grid "
        f"({', '.join(f'{r}x{c}' for r, c in shown or layouts)}): give it, rows first, "
        "as FlowFeat.from_pretrained(path, grid=(rows, columns))"
    )


def _fitting_variant(tensors: Mapping[str, Tensor], path: Path) -> str:
    """Shapes tell variants apart: MAE from DINO by the decoder's level widths, the others by keys of their own."""
    inner = {key.removeprefix("encoder."): value for key, value in tensors.items() if key.startswith("encoder.")}
    try:
        facts = encoder_facts(inner)
        widths = tuple(len(tensors[f"decoder.act_postprocess{level}.post.0.bias"]) for level in range(1, 5))
    except KeyError as error:
        raise ValueError(
            f"{path} is not a FlowFeat model: key {error} is missing, with {len(tensors)} others present"
        ) from error
    for name, spec in ENCODERS.items():
        if facts == facts_of(spec) and widths == spec.widths:
            return name
    alike = "- or ".join(family.title for family in FAMILIES.values() if family.marks == facts.marks)
    raise ValueError(
        f"{path} fits no registered variant: {f'{alike}-like' if alike else 'of no known family'}, dim {facts.dim}, "
        f"depth {facts.depth}, patch {facts.patch}, widths {widths}; known: {', '.join(ENCODERS)}"
    )


def _spec_from_json(text: str, path: Path) -> EncoderSpec:
    try:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()}
        return EncoderSpec(**fields)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: the metadata's spec cannot be read: {first_line(error)}") from error


def _with_teacher(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    ema = {f"decoder.{key.removeprefix(TEACHER)}": value for key, value in tensors.items() if key.startswith(TEACHER)}
    if not ema:
        raise ValueError(f"{path} holds no EMA decoder ({TEACHER}*): exported models hold the student only")
    return {**tensors, **ema}


def export_model(model: EncoderDecoder, path: Path, provenance: Mapping[str, Any] | None = None) -> None:
    """Write the model for distribution: `.safetensors` (with metadata) or `.pth` (the official flat dict, tensors only).

    provenance: JSON-able facts about the training, kept in the safetensors metadata. Equal models give equal bytes.
    """
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    if path.suffix not in (".safetensors", ".pth"):
        raise ValueError(f"cannot tell the format from {path.name}: name it .safetensors or .pth")
    if path.suffix == ".pth":
        save_tensors(tensors, path)
        return
    metadata = {
        "format": "pt",
        "flowfeat_format": EXPORT_FORMAT,
        "variant": model.variant,
        "spec": json.dumps(asdict(model.spec)),
        "encoder_source": model.encoder_source,
        "encoder_licence": model.encoder_licence,
        "provenance": json.dumps(dict(provenance or {}), sort_keys=True),
    }
    metadata[DIGEST_KEY] = content_digest(tensors, metadata)
    write_atomic(path, _with_metadata(save(tensors), metadata))


def _with_metadata(data: bytes, metadata: dict[str, str]) -> bytes:
    """Put metadata into a safetensors file's header in sorted order.

    The library (0.8.0 as well) writes it in an order that changes from process to process, and equal models must give
    equal bytes: digests of model files are how runs are compared.
    """
    length = int.from_bytes(data[:8], "little")
    header = json.dumps({"__metadata__": dict(sorted(metadata.items())), **json.loads(data[8 : 8 + length])}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]
