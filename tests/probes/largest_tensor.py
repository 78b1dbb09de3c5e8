"""The largest tensor that a piece of code makes: what its stated memory bound is about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode


class LargestTensor(TorchFunctionMode):
    """Context in which the bytes of the largest tensor returned by any torch function are noted in `bytes`.

    Views count with their own elements, expanded ones with the elements behind them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                size = min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())
                self.bytes = max(self.bytes, size)
        return result
