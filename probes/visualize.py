"""Features of pictures and videos of your own: a file or a directory in, one PNG per picture and one mp4 per video out.

Each shows, side by side, the input, the encoder's token grid and the decoder's map, the two as three principal components in
red, green and blue; given the label map of the first picture, also what a linear probe fitted to it finds. All frames of a
video have the colours of its middle frame (a first frame is often black). Pictures are turned as their EXIF says, and videos as
their container does.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.clip import VIDEO_SUFFIXES, VideoFile, write_clip
from common.feature_colors import ColorBasis
from common.progress import ProgressDisplay
from probes.data.images import SUFFIXES, batch_of, input_size, list_images, open_rgb
from probes.drawing import feature_picture, overlay, shown_map
from probes.heads import linear
from probes.sources.features import Features, features_of
from probes.sources.flowfeat import Checkpoint
from probes.sources.table import create_sources
from probes.tasks.vos import labels_for
from shards.files import write_atomic

SHOWN = ("encoder", "flowfeat")
GAP_PX = 6


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def find_inputs(path: Path) -> list[Path]:
    """The file itself, or the pictures and videos of a directory.

    Raises ValueError when there is none, and for two whose outputs would have one name.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"no picture, video or directory {path}")
    suffixes = (*SUFFIXES, *VIDEO_SUFFIXES)
    found = list(list_images(path, suffixes))
    if not found:
        raise ValueError(f"no pictures or videos ({', '.join(suffixes)}) in {path}")
    for kind, files in (("pictures", [f for f in found if not is_video(f)]), ("videos", list(filter(is_video, found)))):
        stems = [file.stem for file in files]
        if len(set(stems)) < len(stems):
            twice = next(stem for stem in stems if stems.count(stem) > 1)
            raise ValueError(f"two {kind} in {path} are called {twice!r}: their outputs would overwrite each other")
    return found


@dataclass(frozen=True)
class Seen:
    """One picture, the size (height, width) that the networks saw, and its features by source."""

    image: Image.Image
    size_hw: tuple[int, int]
    features: dict[str, Features]


@dataclass
class Strips:
    """Panels side by side, and what is fitted once for several of them: colours by source, and a linear probe.

    height_px: of the networks' input. labels_hw: the label map of the first picture that is looked at, or None.
    """

    checkpoint: Checkpoint
    height_px: int
    labels_hw: NDArray[np.uint8] | None = None
    bases: dict[str, ColorBasis] = field(default_factory=dict)
    probe: linear.LinearProbe | None = None

    def look(self, image: Image.Image) -> Seen:
        """Run the networks. Raises ValueError for a height that the encoder does not take."""
        size_hw = input_size(self.height_px, image.height, image.width, self.checkpoint.encoder.size_multiple)
        device = next(self.checkpoint.model.parameters()).device
        sources = create_sources(SHOWN, self.checkpoint)
        found = features_of(sources, batch_of([image], size_hw, device))
        features = {source.name: features for source, features in found}
        for one in features.values():
            one.require_finite()
        return Seen(image, size_hw, features)

    def fit_colors(self, seen: Seen) -> None:
        """Take the colours of this picture from here on."""
        self.bases = {name: ColorBasis.fit(shown_map(features)) for name, features in seen.features.items()}

    def draw(self, seen: Seen) -> Image.Image:
        """The panels of one picture. Raises ValueError for labels that are not the first picture's."""
        size = (seen.size_hw[1], seen.size_hw[0])
        panels = [seen.image.resize(size, Image.Resampling.BILINEAR)]
        panels += [feature_picture(self.bases[name], shown_map(found), size) for name, found in seen.features.items()]
        if self.labels_hw is not None:
            self.probe = self.probe or self._fit_probe(seen, self.labels_hw)
            predicted = self.probe.predict(seen.features["flowfeat"], *seen.size_hw)[0]
            panels.append(overlay(seen.image, predicted.cpu().numpy(), size))
        return _beside(panels)

    def _fit_probe(self, seen: Seen, labels_hw: NDArray[np.uint8]) -> linear.LinearProbe:
        height, width = labels_hw.shape
        if (width, height) != seen.image.size:
            raise ValueError(
                f"the label map is {width}x{height}, the first picture {seen.image.width}x{seen.image.height}: "
                "give the label map of the first picture"
            )
        labels = labels_for(seen.features["flowfeat"], np.where(labels_hw == 255, 0, labels_hw).astype(np.uint8))
        if not bool(labels.any()):
            raise ValueError(
                f"the label map holds no object at {seen.size_hw[0]}x{seen.size_hw[1]}: use a larger --height"
            )
        return linear.fit(seen.features["flowfeat"], labels, int(labels.max()) + 1)


def draw(
    strips: Strips,
    files: Sequence[Path],
    out: Path,
    *,
    joint: bool = False,
    display: ProgressDisplay,
) -> list[Path]:
    """Write `<out>/<stem>_features.png` for every picture, `.mp4` for every video, and return the files written.

    What cannot be decoded is named on the display and left out. joint: take the colours of the first file for all.

    Raises
    ------
    ValueError: a result that would be written over an input, a height that the encoder does not take, labels that do not fit,
    a first picture of labels that cannot be decoded.
    OSError: a result that cannot be written.
    """
    targets = [out / f"{file.stem}_features{'.mp4' if is_video(file) else '.png'}" for file in files]
    given = {file.resolve() for file in files}
    for target in targets:
        if target.resolve() in given:
            raise ValueError(f"{target} is one of the files given: choose another --out")
    written = []
    display.begin(sum(VideoFile(file).claimed_frames() if is_video(file) else 1 for file in files))
    for file, target in zip(files, targets, strict=True):
        try:
            image = _image(VideoFile(file).middle_frame()) if is_video(file) else open_rgb(file, upright=True)
        except ValueError as error:
            if strips.labels_hw is not None and strips.probe is None:
                raise ValueError(f"{error}; the label map belongs to this one") from error
            display.say(f"skipped: {error}")
            display.advance()
            continue
        seen = strips.look(image)
        if not (joint and strips.bases):
            strips.fit_colors(seen)
        if is_video(file):
            _draw_video(strips, VideoFile(file), target, display)
        else:
            buffer = io.BytesIO()
            strips.draw(seen).save(buffer, "PNG")
            write_atomic(target, buffer.getvalue())
            display.advance()
        written.append(target)
    return written


def _draw_video(strips: Strips, video: VideoFile, target: Path, display: ProgressDisplay) -> None:
    """One strip per frame, as a video of the same rate. Frames stream: none is held longer than it takes to draw it."""

    def drawn() -> Iterator[NDArray[np.uint8]]:
        for frame_hwc in video.frames():
            yield np.asarray(strips.draw(strips.look(_image(frame_hwc))))
            display.advance()

    done, claimed = write_clip(target, drawn(), video.fps()), video.claimed_frames()
    if done < claimed:
        display.say(f"{video.path}: {done} frames could be read of {claimed} that it claims to have")


def _image(frame_hwc: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(frame_hwc)


def _beside(panels: list[Image.Image]) -> Image.Image:
    width, height = panels[0].size
    canvas = Image.new("RGB", (len(panels) * (width + GAP_PX) - GAP_PX, height), "white")
    for number, panel in enumerate(panels):
        canvas.paste(panel, (number * (width + GAP_PX), 0))
    return canvas
