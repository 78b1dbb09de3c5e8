"""decord, imported so that it keeps to itself.

Goes out: the module `decord`, from the package decord2 (docs/decoders.md says why). Its import does two things that would hurt here:

- It lends its FFmpeg to the whole process (RTLD_GLOBAL). PyAV's FFmpeg, of the same major version, would then run decord's functions
  in the place of its own, and PyAV's import would silence the log that `complaints` listens to.
- Where torch is a CUDA build it loads every library below `nvidia/`, for a decoder on the GPU that its CPU build does not have. A
  decoding process has 6 GiB of address space, and there are as many of them as cores.

So for as long as the import takes, "global" means local, and there is no package `nvidia`.
"""

from __future__ import annotations

import ctypes
import sys

_nvidia, _everywhere = sys.modules.get("nvidia"), ctypes.RTLD_GLOBAL
sys.modules["nvidia"] = None  # type: ignore[assignment]  # the documented way to say that there is no such module
vars(ctypes)["RTLD_GLOBAL"] = ctypes.RTLD_LOCAL
try:
    import decord
finally:
    vars(ctypes)["RTLD_GLOBAL"] = _everywhere
    if _nvidia is None:
        del sys.modules["nvidia"]
    else:
        sys.modules["nvidia"] = _nvidia

__all__ = ["decord"]
