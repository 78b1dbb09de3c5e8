"""The whole models that FlowFeat's authors publish: a name -> a file in the cache, whose licence is told when it is fetched.

Names are those of the official repository's hub: a variant of `trainer.encoder_table.ENCODERS`, then yt (trained on YouTube-VOS) or
kt (Kinetics-400). What is in a file is read by `trainer.model_file`; `FlowFeat.from_pretrained` and `hubconf.py` ask here.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from common.cache import cache_dir
from common.command import nearest
from common.download import PATIENCE, Patience, Progress
from trainer.families import family_of_variant
from trainer.model import EncoderDecoder
from trainer.published import Published, WeightsFile, fetch_published

log = logging.getLogger(__name__)
_LICENCE = "Apache-2.0"
_FOLDER = "https://cvg.cit.tum.de/webshare/g/papers/flowfeat"
# No hashes are published, so each is recorded when the file is first seen.
OFFICIAL_MODELS: dict[str, Published] = {
    "dino_vits16_yt": Published(f"{_FOLDER}/dino_s16_flowfeat_yt.pth"),
    "dino_vitb16_yt": Published(f"{_FOLDER}/dino_b16_flowfeat_yt.pth"),
    "dino_vitb16_kt": Published(f"{_FOLDER}/dino_b16_flowfeat_kt.pth"),
    "dinov2_vits14_yt": Published(f"{_FOLDER}/dino2_s14_flowfeat_yt.pth"),
    "dinov2_vitb14_yt": Published(f"{_FOLDER}/dino2_b14_flowfeat_yt.pth"),
    "dinov2_vitb14_kt": Published(f"{_FOLDER}/dino2_b14_flowfeat_kt.pth"),
    "mae_vitb16_kt": Published(f"{_FOLDER}/mae_b16_flowfeat_kt.pth"),
}


@dataclass(frozen=True)
class Official(WeightsFile):
    """An official model that is here. variant: the encoder it was made with."""

    name: str
    variant: str


def variant_of(name: str) -> str:
    """dinov2_vits14_yt -> dinov2_vits14. Raises ValueError naming the nearest official names for an unknown one."""
    if name not in OFFICIAL_MODELS:
        raise ValueError(
            f"no official model is called {name!r}, and no file of that name is here; {nearest(name, OFFICIAL_MODELS)}"
        )
    return name.rpartition("_")[0]


def licence_of(name: str) -> str:
    """Of an official model's file, which holds the encoder as well as the decoder."""
    family = family_of_variant(variant_of(name))
    if family is not None and family.non_commercial:
        return f"{_LICENCE} (decoder) and {family.licence} (the {family.title} encoder in the same file): no commercial use"
    return _LICENCE


def licence_of_model(model: EncoderDecoder) -> str:
    """Of the weights of any model that was loaded: an official one's, else the encoder's, as the rest is its trainer's own."""
    words = model.encoder_source.split()
    if words[:2] == ["official", "model"] and words[2] in OFFICIAL_MODELS:
        return licence_of(words[2])
    return model.encoder_licence


def fetch_official(name: str, *, patience: Patience = PATIENCE, progress: Progress | None = None) -> Official:
    """The cached file of an official model, downloaded if need be; where it is here already, no network is needed.

    Raises ValueError for an unknown name or a file whose sha256 is not the recorded one, OSError as `fetch_published` does.
    """
    variant, source = variant_of(name), OFFICIAL_MODELS[name]
    path = cache_dir("models") / source.file_name
    if not path.exists():  # a warning, so that it is seen where nobody has set up logging
        log.warning("fetching the official FlowFeat model %s: licence %s", name, licence_of(name))
    otherwise = "load a model file of your own: FlowFeat.from_pretrained(PATH), --model PATH"
    file = fetch_published(name, source, path, otherwise=otherwise, patience=patience, progress=progress)
    return Official(file.path, file.sha256, name, variant)


def find_model(text: str) -> Path | Official:
    """What a text that was given for a model means: an official one, fetched if need be, where it looks like a name and no file is
    called like it; else a path, of which nothing is known yet. Raises as `fetch_official` does."""
    path = Path(text)
    is_name = path.name == text and not path.suffix and not path.exists()
    return fetch_official(text) if is_name else path
