"""Frozen features kept between runs: a picture's features are made once for a source, whatever probe asks for them.

A file per picture and source, `<key>.features`: a safetensors file of the float32 maps, exactly as they were made. The key is
the SHA-256 of the source (weights, code, declaration), the picture's pixels at the size the network takes, and the kind of
device and the torch release, which round differently: features of anything else are never taken for these. Maps are as they
came out of the batch that they were made in; another batch size may round their last bit differently.

Files take their names in one rename, so several processes may use one directory; a file that is damaged is made anew. When
the directory holds more than its bound, the files that were used longest ago go first.
"""

from __future__ import annotations

import hashlib
import logging
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from probes.sources.features import Features, Source
from probes.sources.identity import identity_sha256
from shards.files import atomic_file

log = logging.getLogger(__name__)
FORMAT = 1
SUFFIX = ".features"
CRC_BYTES = 4


@dataclass
class FeatureCache:
    """A directory of features of at most `limit_bytes`. hits, misses: pictures that were and were not found."""

    root: Path
    limit_bytes: int
    hits: int = 0
    misses: int = 0
    _told: set[str] = field(default_factory=set, repr=False)

    def read(self, key: str) -> dict[str, Tensor] | None:
        """The maps under a key, on the CPU; None where they are not there whole."""
        path = self._path(key)
        try:
            data = path.read_bytes()
            os.utime(path)  # used now: what was used longest ago goes first
        except FileNotFoundError:
            return None
        body, checksum = data[:-CRC_BYTES], data[-CRC_BYTES:]
        try:
            if zlib.crc32(body).to_bytes(CRC_BYTES, "big") != checksum:
                raise ValueError("its checksum does not fit")
            return load(body)
        except (SafetensorError, ValueError) as error:
            log.warning("%s is damaged (%s) and made anew", path, error)
            path.unlink(missing_ok=True)
            return None

    def write(self, key: str, maps: dict[str, Tensor]) -> None:
        """Keep maps under a key, and make room for them. A disk that is full ends the run like any other write to it."""
        body = save({name: one.detach().cpu().contiguous() for name, one in maps.items()})
        size = len(body) + CRC_BYTES
        if size > self.limit_bytes:
            self._say(f"features of one picture take {size / 1e9:.2g} GB: --feature-cache-gb is too small to keep any")
            return
        self._make_room(self.limit_bytes - size)
        with atomic_file(self._path(key)) as stream:
            stream.write(body)
            stream.write(zlib.crc32(body).to_bytes(CRC_BYTES, "big"))
        self._make_room(self.limit_bytes)  # another process may have written meanwhile

    def _path(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}{SUFFIX}"

    def _make_room(self, most_bytes: int) -> None:
        """Remove what was used longest ago until no more than `most_bytes` are left."""
        found = []
        for path in self.root.glob(f"*/*{SUFFIX}"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # another process has removed it
            found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= most_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size

    def _say(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            log.warning("%s", text)


@dataclass(frozen=True)
class SourceStore:
    """The part of a cache that belongs to one source. identity: all that decides its features besides the picture."""

    cache: FeatureCache
    identity: str

    def load(self, images_bhwc: Tensor) -> Features | None:
        """The features of these very pictures, on their device; None unless all of them are kept."""
        found = []
        for key in self._keys(images_bhwc):
            maps = self.cache.read(key)
            if maps is None:
                self.cache.misses += len(images_bhwc)
                return None
            found.append(maps)
        self.cache.hits += len(images_bhwc)
        joined = {name: torch.cat([maps[name] for maps in found]).to(images_bhwc.device) for name in found[0]}
        low, high = (_unpacked(joined, name) for name in ("low", "high"))
        assert low is not None
        return Features(low, high, dense_alone="alone" in joined)

    def keep(self, images_bhwc: Tensor, features: Features) -> None:
        for index, key in enumerate(self._keys(images_bhwc)):
            one = features.picture(index)
            maps = _packed("low", one.low_bdgf)
            if one.high_bkhw is not None:
                maps |= _packed("high", one.high_bkhw)
            if one.dense_alone:
                maps["alone"] = torch.ones(1)
            self.cache.write(key, maps)

    def _keys(self, images_bhwc: Tensor) -> list[str]:
        surroundings = f"{FORMAT} {self.identity} {images_bhwc.device.type} {torch.__version__}"
        keys = []
        for image in images_bhwc.cpu().contiguous():
            digest = hashlib.sha256(f"{surroundings} {list(image.shape)}\n".encode())
            digest.update(image.numpy().tobytes())
            keys.append(digest.hexdigest())
        return keys


LAST = "_channels_last"


def _packed(name: str, map_bchw: Tensor) -> dict[str, Tensor]:
    """A map by its name and its layout in memory: sums over it are rounded differently in another layout."""
    if not map_bchw.is_contiguous() and map_bchw.movedim(1, -1).is_contiguous():
        return {name + LAST: map_bchw.movedim(1, -1)}
    return {name: map_bchw}


def _unpacked(maps: dict[str, Tensor], name: str) -> Tensor | None:
    last = maps.get(name + LAST)
    return maps.get(name) if last is None else last.movedim(-1, 1)


def with_cache(sources: Sequence[Source], cache: FeatureCache) -> list[Source]:
    """The same sources, their features kept in `cache`. Their networks may not change from here on."""
    return [replace(source, store=SourceStore(cache, identity_sha256(source))) for source in sources]
