"""A probe in one file, as anyone would add it: how large tokens are, on any folder of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import click
from PIL import Image

from probes.data.images import batch_of, list_images, open_rgb
from probes.options import option
from probes.sources.features import Source, features_of
from probes.task import Context, Metric, Noun, Reference, Row, Settings, Task


@dataclass(frozen=True)
class TokenSize(Task):
    name: ClassVar = "tokens"
    title: ClassVar = "Size of tokens"
    description: ClassVar = "The mean size of the tokens <of> each third of a picture."
    unit: ClassVar = Noun("picture", "pictures")
    part: ClassVar = Noun("third", "thirds")
    step: ClassVar = Noun("map", "maps")
    metrics: ClassVar = (
        Metric("level", "level", suffix="au", higher_is_better=False, decimals=2),
        Metric("positive", "positive share", percent=True),
    )
    headline: ClassVar = "level"

    folder: Path | None = field(default=None, metadata=option("--pictures", click.Path(path_type=Path), "", data=True))
    height_px: int = field(default=48, metadata=option("--height", int, "Input height, px."))
    gain: float = field(default=1.0, metadata=option("--gain", float, "Multiplies the level."))

    def settings(self) -> Settings:
        return {"height": self.height_px, "gain": self.gain}

    def units(self) -> list[Picture]:
        assert self.folder is not None
        return [Picture(path, self) for path in list_images(self.folder)]

    @classmethod
    def references(cls, settings: Settings, units: int) -> list[Reference]:
        return [Reference("Elsewhere", f"Over {units} pictures.", ["who", "level"], [["somebody", "0.5"]])]


@dataclass(frozen=True)
class Picture:
    path: Path
    task: TokenSize
    steps: ClassVar = 1

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def facts(self) -> Mapping[str, int]:
        return {"bytes": self.path.stat().st_size}

    def fingerprint(self) -> str:
        return str(self.path.stat().st_size)

    def evaluate(self, sources: Sequence[Source], context: Context) -> dict[str, list[Row]]:
        size = self.task.height_px
        batch = batch_of([open_rgb(self.path)], (size, size), context.device)
        rows = {}
        for source, features in features_of(sources, batch):
            thirds = features.low_bdgf.chunk(3, dim=-1)
            rows[source.name] = [
                Row(
                    part,
                    {
                        "level": self.task.gain * float(third.abs().mean()),
                        "positive": float((third > 0).float().mean()),
                    },
                )
                for part, third in zip(("left", "middle", "right"), thirds, strict=True)
            ]
            context.pictures.save("whole", "thumbnail", Image.new("RGB", (32, 32), "olive"), source)
            context.step(1)
        return rows
