"""Which weight files exist, where they live here, and what `--weights` may say.

Nothing is downloaded unless asked for (`python -m pipeline weights get NAME`). Files live in
`$FLOWFEAT_CACHE/flow` (default `~/.cache/flowfeat/flow`); fill that directory by hand and no
network is ever needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from common.cache import cache_dir
from common.command import nearest

_TORCHVISION = "https://download.pytorch.org/models/"
_RAFT_ZIP = "https://dl.dropboxusercontent.com/s/4j4z58wuv8o0mfz/models.zip"
_HUB = "https://huggingface.co/MemorySlices/{}/resolve/main/model.safetensors"
_SMURF = "https://console.cloud.google.com/storage/browser/gresearch/smurf"
_PTLFLOW = "https://github.com/hmorimitsu/ptlflow/releases/download/weights1/"
_UNSTATED = "none stated for the weights (code: {})"


@dataclass(frozen=True)
class KnownWeights:
    """A published file. sha256_prefix: as much of the hash as its publisher tells. member: path inside a zip archive.

    url is None for files that the user makes (`make_from` says where from). about_mb: rounded, for the reader.
    """

    name: str
    network: str
    file: str
    url: str | None
    licence: str
    about_mb: float
    trained_on: str
    sha256_prefix: str | None = None
    member: str | None = None
    make_from: str | None = None

    @property
    def path(self) -> Path:
        """Where the file is, or would be."""
        return cache_dir("flow") / self.file


def _torchvision(name: str, network: str, file: str, mb: float, trained_on: str) -> KnownWeights:
    prefix = file.rsplit("-", 1)[1].removesuffix(".pth")
    licence = _UNSTATED.format("BSD-3-Clause")
    return KnownWeights(name, network, file, _TORCHVISION + file, licence, mb, trained_on, prefix)


def _official(name: str, network: str, mb: float, trained_on: str) -> KnownWeights:
    file = f"{name.removesuffix('-official')}.pth"
    licence = _UNSTATED.format("BSD-3-Clause")
    return KnownWeights(name, network, file, _RAFT_ZIP, licence, mb, trained_on, member=f"models/{file}")


def _hub(name: str, network: str, repository: str, mb: float, trained_on: str) -> KnownWeights:
    return KnownWeights(
        name, network, f"{repository}.safetensors", _HUB.format(repository), "BSD-3-Clause", mb, trained_on
    )


def _smurf(which: str) -> KnownWeights:
    licence = _UNSTATED.format("Apache-2.0")
    where = f"{_SMURF} → {which}-smurf, then: python -m pipeline weights convert-smurf CHECKPOINT OUT.pt"
    name = f"smurf-{which}"
    return KnownWeights(name, "smurf", f"{name}.pt", None, licence, 21.0, f"{which}, self-supervised", make_from=where)


def _flow_anything(name: str, which: str, sha256_prefix: str, trained_on: str) -> KnownWeights:
    """ptlflow's copies: its checkpoints hold SEA-RAFT-M's own keys, and their names the first digits of their hash."""
    file = f"flow_anything-{which}-{sha256_prefix}.ckpt"
    licence = _UNSTATED.format("BSD-3-Clause")
    return KnownWeights(name, "sea-raft-m", file, _PTLFLOW + file, licence, 78.8, trained_on, sha256_prefix)


KNOWN = (
    _hub("sea-raft-m-spring", "sea-raft-m", "Tartan-C-T-TSKH-spring540x960-M", 78.8, "Tartan, C, T, TSKH, Spring"),
    _hub("sea-raft-m-sintel", "sea-raft-m", "Tartan-C-T-TSKH432x960-M", 78.8, "Tartan, C, T, TSKH"),
    _hub("sea-raft-m-kitti", "sea-raft-m", "Tartan-C-T-TSKH-kitti432x960-M", 78.8, "Tartan, C, T, TSKH, KITTI"),
    _hub("sea-raft-m-things", "sea-raft-m", "Tartan-C-T432x960-M", 78.8, "Tartan, C, T"),
    _hub("sea-raft-m-tartan", "sea-raft-m", "Tartan480x640-M", 78.8, "Tartan"),
    _flow_anything("flow-anything-288", "mixed288", "821b5025", "pairs made from real images"),
    _flow_anything("flow-anything-432", "mixed432", "0beef53e", "pairs made from real images"),
    _flow_anything("flow-anything-tskh", "mixed_tskh432", "4786f170", "the same, then TSKH"),
    _hub("sea-raft-s-spring", "sea-raft-s", "Tartan-C-T-TSKH-spring540x960-S", 35.6, "Tartan, C, T, TSKH, Spring"),
    _torchvision("raft-sintel", "raft", "raft_large_C_T_SKHT_V1-0b8c9e55.pth", 21.1, "C, T, Sintel+KITTI+HD1K+T"),
    _torchvision("raft-things", "raft", "raft_large_C_T_V1-22a6c225.pth", 21.1, "C, T"),
    _torchvision("raft-kitti", "raft", "raft_large_C_T_SKHT_K_V1-4a6a5039.pth", 21.1, "C, T, SKHT, KITTI"),
    _official("raft-chairs-official", "raft", 21.1, "C"),
    _official("raft-things-official", "raft", 21.1, "C, T"),
    _official("raft-sintel-official", "raft", 21.1, "C, T, Sintel+KITTI+HD1K+T"),
    _official("raft-kitti-official", "raft", 21.1, "C, T, SKHT, KITTI"),
    _torchvision("raft-small-things", "raft-small", "raft_small_C_T_V1-ad48884c.pth", 4.0, "C, T"),
    _official("raft-small-official", "raft-small", 4.0, "C, T"),
    _smurf("kitti"),
    _smurf("sintel"),
    _smurf("chairs"),
)


DEFAULTS = {
    "sea-raft-m": "sea-raft-m-spring",
    "sea-raft-s": "sea-raft-s-spring",
    "raft": "raft-sintel",
    "raft-small": "raft-small-things",
    "smurf": "smurf-kitti",
}
"""What a network uses when `--weights` says nothing."""


@dataclass(frozen=True)
class WeightSource:
    """Either a file or the seed of random weights."""

    path: Path | None = None
    seed: int | None = None


def find(name: str) -> KnownWeights:
    """The entry of that name. Raises ValueError with the nearest names."""
    by_name = {entry.name: entry for entry in KNOWN}
    if name not in by_name:
        raise ValueError(f"no weights are called {name!r}; {nearest(name, by_name)}")
    return by_name[name]


def resolve(network: str, wanted: str | None) -> WeightSource:
    """What `--weights` means for a network: nothing (the network's default, whatever else is here), `random:SEED`, a path or a name.

    Raises ValueError saying how to get the file when it is not there.
    """
    if wanted is None:
        return WeightSource(path=present(find(DEFAULTS[network])))
    source = given(wanted)
    if source is not None:
        return source
    entry = find(wanted)
    if entry.network != network:
        raise ValueError(f"weights {wanted!r} are for {entry.network}, not for {network}")
    return WeightSource(path=present(entry))


def given(wanted: str) -> WeightSource | None:
    """What `--weights` means for any network: `random:SEED` or a path; None for a name. Raises ValueError for a file that is not there."""
    if re.match(r"random\b", wanted):
        return WeightSource(seed=_seed(wanted))
    path = Path(wanted).expanduser()
    if path.is_file():
        return WeightSource(path=path)
    if any(separator in wanted for separator in "/\\") or path.suffix in {".pth", ".pt", ".safetensors", ".ckpt"}:
        raise ValueError(f"no weights file at {wanted}")
    return None


def _seed(wanted: str) -> int:
    match = re.fullmatch(r"random:(\d{1,9})", wanted)
    if match is None:
        raise ValueError(f"random weights are asked for as random:SEED, such as random:0, not {wanted!r}")
    return int(match[1])


def present(entry: KnownWeights) -> Path:
    """Path of the file. Raises ValueError saying how to get it when it is not there."""
    if entry.path.is_file():
        return entry.path
    how = entry.make_from or f"fetch it with `python -m pipeline weights get {entry.name}`"
    raise ValueError(
        f"no weights for {entry.network} at {entry.path}: {how}; "
        f"or give --weights PATH (WEIGHTS=PATH with make; random:SEED for a dry run without meaning), "
        f"or take --flow dis (FLOW=dis), which needs none"
    )
