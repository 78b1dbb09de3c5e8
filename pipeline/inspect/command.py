"""python -m pipeline inspect: what a set holds, as lines, as a contact sheet or as a page."""

from __future__ import annotations

from pathlib import Path

import click

from common.command import tell
from common.place import LOCAL_PATH, PLACE
from pipeline.extract.cli import plain_errors
from pipeline.extract.summary import summarise
from pipeline.inspect.contact_sheet import choose_samples, contact_sheet, place_beside, sheet_path, write_png
from pipeline.inspect.set_page import write_set_page
from pipeline.inspect.windows import random_samples
from shards import schema
from shards.reader import ShardSet
from shards.storage import is_url


@click.command()
@click.argument("shard_set", type=PLACE)
@click.option(
    "--out",
    type=LOCAL_PATH,
    help="PNG to write; default: beside the set, as <its name>-contact-sheet.png. Never inside it.",
)
@click.option(
    "--page",
    type=LOCAL_PATH,
    help="Folder for a page instead: counts, drops, histograms, windows, shards. Never inside the set.",
)
@click.option(
    "--samples", default=6, type=click.IntRange(1, 100), help="How many; spread over the set, on a page random."
)
@click.option("--seed", default=0, type=click.IntRange(min=0), help="Of the draw of a page's samples.")
@click.option("--key", "keys", multiple=True, help="Draw this sample; may be repeated.")
@plain_errors
def inspect(
    shard_set: Path | str, out: Path | None, page: Path | None, samples: int, seed: int, keys: tuple[str, ...]
) -> None:
    """Print what a set holds and draw a contact sheet, or with --page a page: anchors, flow colour wheel, statistics.

    SHARD_SET is a folder, or an address (s3://...).
    """
    if page is not None:
        if out is not None:
            raise ValueError(f"give --out {out} for a contact sheet or --page {page} for a page, not both")
        place_beside(shard_set, page, "--page")
        data = ShardSet(shard_set, allow_partial=True)
        summarise(data.manifest, data.place, as_json=False)
        tell(_kept(data))
        chosen = choose_samples(data, samples, keys) if keys else random_samples(data, samples, seed)
        tell(f"page: {write_set_page(data, chosen, page)}")
        return
    path = sheet_path(Path(Path(shard_set).name) if is_url(shard_set) else Path(shard_set), out)
    data = ShardSet(shard_set, allow_partial=True)
    if not len(data):
        why = f"see {schema.VIDEOS} for why" if data.manifest.complete else "run the extraction again to finish it"
        raise ValueError(f"{shard_set} holds no samples{'' if data.manifest.complete else ' yet'}: {why}")
    summarise(data.manifest, shard_set, as_json=False)
    tell(_kept(data))
    write_png(path, contact_sheet(data, choose_samples(data, samples, keys)))
    tell(f"contact sheet: {path}")


def _kept(data: ShardSet) -> str:
    kinds = [f"{member} {n} ({size / 2**20:.1f} MiB)" for member, (n, size) in data.kept().items() if n]
    return f"kept: {', '.join(kinds) or 'nothing beside image and flow'}"
