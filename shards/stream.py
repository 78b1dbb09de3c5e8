"""Samples in tar order through `webdataset`, for remote or sequential storage; checked against each sample's own `.json`."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from shards.codec import decode_flow
from shards.sample import Sample, decode_image
from shards.schema import SampleError, read_manifest
from shards.storage import inside


def stream(root: Path | str, urls: Sequence[str] | None = None, shuffle_shards: bool | int = False) -> Iterator[Sample]:
    """Samples in tar order through `webdataset`, every stored neighbour in turn; for remote or sequential storage.

    urls: anything webdataset opens (default: every shard of the set at root); only the small manifest is read from
    `root`. Members are checked against the CRCs in the sample's own `.json`. Raises SampleError on damage.
    """
    import webdataset as wds

    manifest = read_manifest(root)
    settings = manifest.settings
    sources = list(urls) if urls is not None else [inside(root, s.path) for s in manifest.shards]
    for raw in wds.WebDataset(sources, shardshuffle=shuffle_shards, empty_check=False):
        yield from _stream_sample(raw, settings.image_size, settings.flow_size)


def _stream_sample(raw: Mapping[str, Any], image_size: int, flow_size: int) -> Iterator[Sample]:
    key = raw["__key__"]
    try:
        note = json.loads(raw["json"])
        image = decode_image(_checked(raw, "jpg", note["image_crc32"]), image_size)
        for label, neighbour in note["neighbours"].items():
            if neighbour["crc32"] is not None:
                data = _checked(raw, f"{label}.flow", neighbour["crc32"])
                flow = decode_flow(data, (flow_size, flow_size))
                yield Sample(key, image, flow.values_chw, flow.quantum_px, neighbour["offset"])
    except (KeyError, ValueError) as error:
        if isinstance(error, SampleError):
            raise
        raise SampleError(f"{key} in {raw.get('__url__')}: {error}") from error


def _checked(raw: Mapping[str, Any], member: str, crc32: int) -> bytes:
    data: bytes = raw[member]
    if zlib.crc32(data) != crc32:
        raise SampleError(
            f"{raw['__key__']}.{member} in {raw.get('__url__')} is damaged: its CRC-32 does not match its .json"
        )
    return data
