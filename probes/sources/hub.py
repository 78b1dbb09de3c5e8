"""Networks from torch.hub, from transformers and from the user's own code: names and permissions in, sources out.

Nothing is fetched unless `SourceRequest.allow_download` says so: a repository must lie in a checkout or in torch.hub's folder,
and while its code makes the network, connections are refused (`offline.py`). Running a hub entry runs its repository's code: the
permission to download is the permission to run it; a checkout is trusted as any code on this machine is.
"""

from __future__ import annotations

import importlib
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.command import nearest
from common.memory import is_out_of_memory
from probes.sources.adapter import Call, as_source
from probes.sources.features import Source
from probes.sources.flowfeat import Checkpoint
from probes.sources.hub_table import HubEntry
from probes.sources.offline import Refused, no_connections
from probes.sources.request import SourceRequest

log = logging.getLogger(__name__)


def hub_source(entry: HubEntry, checkpoint: Checkpoint) -> Source:
    """The entry's network as a source. Raises ValueError where it is not here and may not be fetched, or cannot be made."""
    module = load_hub(entry, checkpoint.request)
    return as_source(entry.name, module, entry.call, checkpoint.encoder, checkpoint.model)


def load_hub(entry: HubEntry, request: SourceRequest) -> nn.Module:
    checkout = request.checkout(entry.name) or _fetched(entry.repository)
    if checkout is None and not request.allow_download:
        raise ValueError(
            f"{entry.name} needs the repository {entry.repository} ({entry.licence}): --allow-download fetches it and its "
            f"weights and runs its code; or give a checkout, --hub-checkout {entry.name}=DIR"
        )
    arguments: dict[str, Any] = dict(entry.arguments)
    weights = request.weights_of(entry.name)
    if weights is not None:
        if not entry.weights_argument:
            raise ValueError(f"--hub-weights {entry.name}: this source takes no file of weights")
        arguments[entry.weights_argument] = str(weights)
    elif entry.needs_weights:
        raise ValueError(
            f"{entry.name} needs a file of weights ({entry.licence}): give it as --hub-weights {entry.name}=FILE"
        )
    origin = str(checkout) if checkout is not None else f"github.com/{entry.repository}"
    log.warning("%s: running code of %s (%s)", entry.name, origin, entry.licence)
    where = {"source": "local"} if checkout is not None else {"source": "github", "trust_repo": True}
    with nullcontext() if request.allow_download else no_connections():
        made = _made(
            entry.name, lambda: torch.hub.load(str(checkout or entry.repository), entry.entry, **where, **arguments)
        )
    if entry.part is not None:
        if not isinstance(made, tuple | list) or len(made) <= entry.part:
            raise ValueError(f"{entry.name}: {entry.entry} of {origin} gives no item {entry.part}")
        made = made[entry.part]
    return _module(entry.name, made)


def _fetched(repository: str) -> Path | None:
    """A copy that torch.hub fetched earlier, of whatever branch."""
    start = repository.replace("/", "_")
    found = sorted(path for path in Path(torch.hub.get_dir()).glob(f"{start}_*") if (path / "hubconf.py").is_file())
    return found[0] if found else None


def own_source(name: str, checkpoint: Checkpoint) -> Source:
    """`module:callable`: what the callable returns, an nn.Module, as a source.

    The module takes ImageNet-normalised pictures [b, 3, h, w] and gives tokens [b, c, g, f], a dense map [b, c, h, w], or both
    as a pair. Attributes that it may have: patch_size (16), size_multiple (its patch), normalisation ("imagenet", or "unit" for
    RGB from 0 to 1). Raises ValueError saying which part of the name is wrong, or what the callable raised.
    """
    where, _, what = name.partition(":")
    with nullcontext() if checkpoint.request.allow_download else no_connections():
        try:
            home = importlib.import_module(where)
        except ModuleNotFoundError as error:
            if error.name is not None and (where == error.name or where.startswith(f"{error.name}.")):
                raise ValueError(f"source {name}: there is no module {error.name!r} here or on PYTHONPATH") from error
            raise
        if not hasattr(home, what):
            raise ValueError(f"source {name}: {where} has no {what!r}; {nearest(what, dir(home))}")
        module = _module(name, _made(name, getattr(home, what)))
    wanted: object = getattr(module, "normalisation", "imagenet")
    if wanted not in ("imagenet", "unit"):
        raise ValueError(f"source {name}: normalisation {wanted!r} must be 'imagenet' or 'unit'")
    multiple: object = getattr(module, "size_multiple", None)
    if multiple is not None and not (isinstance(multiple, int) and multiple > 0):
        raise ValueError(f"source {name}: size_multiple {multiple!r} must be a whole number above 0")
    call = Call(normalisation="unit" if wanted == "unit" else "imagenet", result="tokens or dense", multiple=multiple)
    return as_source(name, module, call, checkpoint.encoder, checkpoint.model)


def _made(name: str, make: Any) -> object:
    """What somebody else's code returns; whatever it raises becomes one line, with the cause kept."""
    try:
        return make()
    except Refused as error:
        raise ValueError(f"{name}: {error}; --allow-download lets it") from error
    except Exception as error:
        if is_out_of_memory(error):
            raise
        refused = _refusal(error)
        if refused is not None:
            raise ValueError(f"{name}: {refused}; --allow-download lets it") from error
        lines = str(error).splitlines() or [""]
        raise ValueError(f"{name} cannot be made: {type(error).__name__}: {lines[0]}") from error


def _refusal(error: BaseException | None) -> Refused | None:
    """A refused connection that a library has wrapped in an error of its own."""
    while error is not None:
        reason = getattr(error, "reason", None)
        for one in (error, reason):
            if isinstance(one, Refused):
                return one
        error = error.__cause__ or error.__context__
    return None


def _module(name: str, made: object) -> nn.Module:
    if not isinstance(made, nn.Module):
        raise ValueError(f"{name} is a {type(made).__name__} instead of an nn.Module")
    return made
