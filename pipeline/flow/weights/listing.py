"""The known weight files as text: rows by network, never wider than a terminal of 80 columns. URLs in full are in `--json`."""

from __future__ import annotations

from itertools import groupby
from textwrap import fill

from common.cache import cache_dir
from pipeline.flow.weights.catalogue import DEFAULTS, KNOWN, KnownWeights

_WIDTH = 80


def listing() -> str:
    """Every known file with what it was trained on, and below where each comes from and under what licence."""
    origins = {origin: chr(ord("a") + i) for i, origin in enumerate(dict.fromkeys(map(_origin, KNOWN)))}
    lines = [
        f"Weights, kept in {cache_dir('flow')}",
        f"  {'name':20s}  here     MB  from  {'sha256':8s}  trained on",
    ]
    for network, entries in groupby(KNOWN, key=lambda entry: entry.network):
        lines.append(f"{network} (default: {DEFAULTS[network]})")
        lines += [_row(entry, origins[_origin(entry)]) for entry in entries]
    legend = [fill(f"{letter}  {origin}", _WIDTH, subsequent_indent="   ") for origin, letter in origins.items()]
    return "\n".join([*lines, "", *legend])


def _row(entry: KnownWeights, letter: str) -> str:
    here = "yes" if entry.path.is_file() else "no"
    known_hash = entry.sha256_prefix or "-"
    return f"  {entry.name:20s}  {here:4s}  {entry.about_mb:5g}  {letter:4s}  {known_hash:8s}  {entry.trained_on}"


def _origin(entry: KnownWeights) -> str:
    """Site and first folder, licence, and what is to be done by hand."""
    site = "/".join((entry.url or entry.make_from or "").split("/")[2:4])
    by_hand = "" if entry.url else "; by hand, then `weights convert-smurf`"
    return f"{site}; licence: {entry.licence}{by_hand}"
