"""Samples in tar order through `webdataset`, for remote or sequential storage; checked against each sample's own `.json`."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from shards.codec import decode_flow
from shards.sample import OptionalMember, Sample, decode_confidence, decode_image, optional_name
from shards.schema import SampleError, Settings, read_manifest
from shards.storage import inside, is_url


def stream(
    root: Path | str,
    urls: Sequence[str] | None = None,
    shuffle_shards: bool | int = False,
    optional: Collection[OptionalMember] = (),
) -> Iterator[Sample]:
    """Samples in tar order through `webdataset`, every stored neighbour in turn; for remote or sequential storage.

    urls: anything webdataset opens (default: every shard of the set at root); only the small manifest is read from
    `root`. Members are checked against the CRCs in the sample's own `.json`. optional: members that are read as well. Raises SampleError
    on damage, and where an optional member that is asked for is not there; ValueError for an address that webdataset cannot open.
    """
    import webdataset as wds

    scheme = str(root).partition("://")[0]
    if urls is None and is_url(root) and scheme not in ("file", *wds.gopen_schemes):
        raise ValueError(
            f"webdataset opens no {scheme}:// addresses such as {root}: read the set with ShardSet, or give urls of its shards that it "
            f"does open, such as 'pipe:aws s3 cp {inside(root, 'pass-00/000000.tar')} -'"
        )
    manifest = read_manifest(root)
    settings = manifest.settings
    sources = list(urls) if urls is not None else [inside(root, s.path) for s in manifest.shards]
    for raw in wds.WebDataset(sources, shardshuffle=shuffle_shards, empty_check=False):
        yield from _stream_sample(raw, settings, optional)


def _stream_sample(
    raw: Mapping[str, Any], settings: Settings, optional: Collection[OptionalMember]
) -> Iterator[Sample]:
    key, size = raw["__key__"], (settings.flow_size, settings.flow_size)
    try:
        note = json.loads(raw["json"])
        image = decode_image(_checked(raw, "jpg", note["image_crc32"]), settings.image_size)
        for label, neighbour in note["neighbours"].items():
            if neighbour["crc32"] is not None:
                data = _checked(raw, f"{label}.flow", neighbour["crc32"])
                flow = decode_flow(data, size)
                found = {m: _optional(raw, note, m, neighbour["offset"]) for m in optional}
                yield Sample(
                    key,
                    image,
                    flow.values_chw,
                    flow.quantum_px,
                    neighbour["offset"],
                    decode_image(found["neighbour"], settings.image_size) if "neighbour" in found else None,
                    decode_confidence(found["confidence"], settings.flow_size) if "confidence" in found else None,
                    decode_flow(found["reverse"], size) if "reverse" in found else None,
                )
    except (KeyError, ValueError) as error:
        if isinstance(error, SampleError):
            raise
        raise SampleError(f"{key} in {raw.get('__url__')}: {error}") from error


def _optional(raw: Mapping[str, Any], note: Mapping[str, Any], member: OptionalMember, offset: int) -> bytes:
    name = optional_name(member, offset)
    if name not in note["optional_crc32"]:
        raise SampleError(f"{raw['__key__']} holds no {name}: extraction was not told to keep it, or had none to keep")
    return _checked(raw, name, note["optional_crc32"][name])


def _checked(raw: Mapping[str, Any], member: str, crc32: int) -> bytes:
    data: bytes = raw[member]
    if zlib.crc32(data) != crc32:
        raise SampleError(
            f"{raw['__key__']}.{member} in {raw.get('__url__')} is damaged: its CRC-32 does not match its .json"
        )
    return data
