"""Files of weights and of training state: how they are written, and what is asked of them before they are believed.

Everything that must survive is written through `shards.files.atomic_path`. Tensor files are read by `read_tensor_file`, whose callers
are `trainer.model_file` (whole models) and `trainer.encoder_file` (published encoders); training state is a dict of plain data
(`save_training_state`, `load_training_state`). No file is ever unpickled beyond tensors and plain containers.
"""

from __future__ import annotations

import errno
import hashlib
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from shards.files import atomic_path

DIGEST_KEY = "content_sha256"
DOS_DIRECTORY = 0x10
# What zipfile and torch.load raise on bytes that are not what they were
READ_ERRORS = (
    RuntimeError, ValueError, EOFError, LookupError, AttributeError, TypeError, OverflowError,
    struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip


def read_tensor_file(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The top-level dict of a .pth or .safetensors file (told apart by content) and its metadata (safetensors only).

    Raises FileNotFoundError, or ValueError for a file that is damaged, no tensor file, or holds code instead of data.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:9] == b"{":
        return _read_safetensors(path)
    if not start.startswith((b"PK", b"\x80")):
        raise ValueError(f"{path} is neither a PyTorch nor a safetensors file (it begins with {start!r})")
    try:
        _check_records(path)
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except READ_ERRORS as error:
        raise ValueError(f"{path} is damaged: {first_line(error)}") from error
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is damaged or holds objects other than tensors and plain data: {first_line(error)}"
        ) from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: the file's own directory led to a place before its start
            raise
        raise ValueError(f"{path} is damaged: its directory of records is wrong") from error
    if not isinstance(payload, dict):
        raise ValueError(f"{path} holds a {type(payload).__name__}, not a dict of tensors")
    return payload, {}


def unwrap(payload: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of a flat dict or of the one under "model", without the "module." of data-parallel training."""
    inner = payload.get("model")
    entries = inner if isinstance(inner, Mapping) else payload
    return {str(key).removeprefix("module."): value for key, value in entries.items() if isinstance(value, Tensor)}


def check_values(tensors: Mapping[str, Tensor], path: Path, *, finite: bool = True) -> None:
    """ValueError naming the file and the first key whose tensor is sparse, has no values (meta) or, with `finite`, holds NaN or
    infinity: found out where it is read, not when a loss is no number."""
    for key, value in tensors.items():
        if value.device.type == "meta":
            raise ValueError(f"{path} holds only the shape of {key}, no values: it was saved from a meta device")
        if value.layout != torch.strided:
            layout = str(value.layout).removeprefix("torch.")
            raise ValueError(f"{path} holds {key} as a sparse ({layout}) tensor: save it as a dense one")
        if finite and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{path} holds NaN or infinity, first in {key}")


def compare(found: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> str:
    """Empty if keys and shapes agree; otherwise one line: how many are missing, unexpected, misshapen, and the first three of each."""
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    shaped = [
        f"{key} is {list(found[key].shape)}, not {list(shape)}"
        for key, shape in expected.items()
        if key in found and tuple(found[key].shape) != shape
    ]
    groups = (("missing", missing), ("unexpected", unexpected), ("of another shape", shaped))
    return "; ".join(
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})" for what, keys in groups if keys
    )


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {first_line(error)}") from error
    if DIGEST_KEY in metadata and metadata[DIGEST_KEY] != content_digest(tensors, metadata):
        raise ValueError(f"{path} is damaged: its content is not what it was written with")
    return tensors, metadata


def _check_records(path: Path) -> None:
    """Compare the records of a zipped PyTorch file with their CRCs, which torch.load does not do.

    A writer may have left every CRC out; so only records that differ while others agree count as damage.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        broken = [record.filename for record in records if not _is_intact(archive, record)]
    if broken and len(broken) < len(records):
        raise zipfile.BadZipFile(f"{len(broken)} of its records fail their checksum, first {broken[0]}")


def _is_intact(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> bool:
    if record.external_attr & DOS_DIRECTORY:  # PyTorch's reader would hand out memory it never filled
        return False
    try:
        with archive.open(record) as stream:
            while stream.read(1 << 20):
                pass
    except zipfile.BadZipFile:
        return False
    return True


def first_line(error: BaseException) -> str:
    """What a library's error says, short enough for one line of ours."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def content_digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """sha256 over tensors (keys, types, shapes, bytes) and metadata: what an exported safetensors file must still hold."""
    digest = hashlib.sha256(repr(sorted(item for item in metadata.items() if item[0] != DIGEST_KEY)).encode())
    for key in sorted(tensors):
        value = tensors[key].contiguous()
        digest.update(f"{key} {value.dtype} {list(value.shape)};".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_tensors(payload: Mapping[str, Any], path: Path) -> None:
    """torch.save, atomically; equal payloads give equal bytes. Raises OSError naming the path when the disk refuses."""
    with atomic_path(path) as temporary:
        try:
            with temporary.open("wb") as file:  # given a name instead, torch.save would write that name into the file
                torch.save(payload, file)
        except (RuntimeError, OSError) as error:  # PyTorch's zip writer reports a full disk as a RuntimeError
            raise OSError(f"cannot write {path}: {first_line(error)}; is the disk full?") from error


def save_training_state(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically. state: nested dicts and lists of tensors, numbers, text; ValueError names anything else."""
    _refuse_objects(state, "state")
    save_tensors(state, Path(path))


def load_training_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU. A damaged one is a ValueError that names the newest other one beside it."""
    path = Path(path)
    try:
        return read_tensor_file(path)[0]
    except ValueError as error:
        others = [other for other in path.parent.glob(f"*{path.suffix}") if other != path]
        newest = max(others, key=lambda other: other.stat().st_mtime, default=None)
        way_out = (
            f"use the previous one, {newest}: delete the damaged file and run the same command with --resume again"
            if newest
            else f"no other lies in {path.parent}: start again with another --out"
        )
        reason = str(error).removeprefix(f"{path} ").removeprefix("is damaged: ")
        raise ValueError(f"checkpoint {path} is damaged: {reason}; {way_out}") from error


def _refuse_objects(value: Any, place: str) -> None:
    """Only what `weights_only` loading gives back may be saved: found out now, not at resume."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_objects(item, f"{place}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(cast(list[Any], value)):
            _refuse_objects(item, f"{place}[{index}]")
    elif type(value) not in (int, float, bool, str, bytes, type(None)) and not isinstance(value, Tensor):
        raise ValueError(
            f"{place} is a {type(value).__module__}.{type(value).__name__}: turn it into tensors, numbers or text"
        )
