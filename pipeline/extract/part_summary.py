"""What a person or a machine is told at the end of a part: what became of its videos, and what the set still lacks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict

from common.command import tell
from common.printable import printable
from pipeline.extract.accounts import Accounts
from pipeline.extract.at_work import PartEnd
from pipeline.extract.parts import Part
from pipeline.extract.plan import ChunkPlan
from shards.counting import counted


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
