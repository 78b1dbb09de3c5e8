"""What people and machines are told at the end of a run: what a set holds, what became of the videos of a part, what is still lacking."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from common.command import tell
from common.printable import printable
from pipeline.extract.accounts import Accounts
from pipeline.extract.at_work import PartEnd
from pipeline.extract.forecast_beside import Beside
from pipeline.extract.parts import Part
from pipeline.extract.plan import ChunkPlan
from shards import schema
from shards.counting import counted, plural
from shards.schema import Manifest


def summarise_run(
    out: str,
    plan: ChunkPlan,
    part: Part,
    ended: PartEnd,
    of_list: Accounts,
    compared: Beside | None,
    max_reject_share: float,
    as_json: bool,
) -> bool:
    """Say what came of a run; whether that is enough."""
    manifest = ended.manifest
    if manifest is None or not part.whole:
        return summarise_part(out, plan, part, ended, of_list, max_reject_share, as_json)
    summarise(manifest, out, as_json, of_list, compared)
    rejected = sum(manifest.counts["rejected"].values())
    if rejected > max_reject_share * manifest.counts["videos"] or manifest.counts["samples"] == 0:
        of_all = counted(manifest.counts["videos"], "video was", "videos were")
        tell(f"Error: {rejected} of {of_all} rejected; see {schema.VIDEOS} in {out}", err=True)
        return False
    return True


def summarise(
    manifest: Manifest,
    out: Path | str,
    as_json: bool,
    of_list: Accounts | None = None,
    compared: Beside | None = None,
) -> None:
    """Print what a set holds, what became of a run's list, and how that compares with the forecast."""
    counts = dict(manifest.counts)
    size = sum(s.bytes for s in manifest.shards)
    if as_json:
        more = {"of_list": asdict(of_list)} if of_list else {}
        more |= {"forecast": asdict(compared)} if compared else {}
        body = {**counts, "bytes": size, "shards": len(manifest.shards), "complete": manifest.complete, **more}
        tell(json.dumps(body, sort_keys=True))
        return
    if of_list:
        said = [f"{of_list.ok} ok", *(f"{reason} {n}" for reason, n in of_list.rejected.items())]
        said += [f"{of_list.pending} pending"] if of_list.pending else []
        gone = f"; {of_list.gone} of the set {plural(of_list.gone, 'is', 'are')} not in it" if of_list.gone else ""
        tell(f"list of {counted(of_list.listed, 'video')} = {' + '.join(said)}{gone}")
    rejected = ", ".join(f"{reason} {n}" for reason, n in sorted(counts["rejected"].items())) or "none"
    by_status = ((status, counts["pairs"].get(status)) for status in schema.PAIR_STATUS)
    pairs = ", ".join(f"{status} {n}" for status, n in by_status if n) or "none"
    across = f", {counted(counts['across_cuts'], 'anchor')} across cuts" if counts.get("across_cuts") else ""
    tell(f"{out}: {counts['ok']} of {counted(counts['videos'], 'video')}, rejected: {rejected}{across}")
    shards = counted(len(manifest.shards), "shard")
    tell(f"{counted(counts['samples'], 'sample')}, pairs: {pairs}; {shards}, {size / 2**20:.1f} MiB")
    for line in compared.lines() if compared else ():
        tell(line)


def summarise_part(
    out: str, plan: ChunkPlan, part: Part, ended: PartEnd, found: Accounts, max_reject_share: float, as_json: bool
) -> bool:
    """Print it. found: the accounts of the part. False where more of the part's videos were rejected than may be."""
    rejected = sum(found.rejected.values())
    shards = sum(len(passes) for passes in ended.missing.values())
    if as_json:
        of_list = {"of_list": asdict(found)}
        complete = ended.manifest is not None and ended.manifest.complete
        tell(json.dumps({"part": str(part), **of_list, "shards_out": shards, "complete": complete}))
    else:
        outcomes = [f"{found.ok} ok", *(f"{reason} {n}" for reason, n in found.rejected.items())]
        outcomes += [f"{found.pending} pending"] if found.pending else []
        tell(f"part {part}: {found.listed} of the list's {counted(len(plan.listed), 'video')} = {' + '.join(outcomes)}")
        if not shards:
            tell(f"{out}: every chunk has landed; the set is complete")
        else:
            of_all = counted(plan.chunks * plan.passes, "shard is", "shards are")
            lacking = f"{shards} of {of_all} still out: {', '.join(_still_out(part, ended))}"
            tell(printable(f"{out}: {lacking}"))
    if rejected > max_reject_share * found.listed:
        of_part = counted(found.listed, f"video of part {part} was", f"videos of part {part} were")
        tell(f"Error: {rejected} of {of_part} rejected; see above", err=True)
        return False
    return True


def _still_out(part: Part, ended: PartEnd) -> Iterator[str]:
    """Shards that are missing, by parts that count to the same n, and whether anybody is at work on them."""
    out = Counter[int]()
    for chunk, passes in ended.missing.items():
        out[chunk % part.of + 1] += len(passes)
    for index, count in sorted(out.items()):
        other = Part(index, part.of)
        who = [holder for at_work, holder in ended.at_work.items() if at_work.meets(other)]
        yield f"{count} of part {other} ({'; '.join(who) + ' is at work' if who else 'nobody is at work on it: run it'})"
