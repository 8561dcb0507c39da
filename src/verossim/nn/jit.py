"""numba's compiler as this house uses it; for modules that are imported only where numba is."""

from collections.abc import Callable
from typing import Any

import numba

__all__ = ["elementwise", "jit", "serial", "summing", "together"]


def jit(**flags: Any) -> Callable[[Callable[..., Any]], Any]:
    """numba's compiler, without Python's lock, kept on disk between runs where there is a place for it. A division by zero is
    an infinity or no number, as in numpy: a loop that may raise is not made of vector instructions, and a thread that raised
    would leave others waiting."""
    def compiled(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, nogil=True, error_model="numpy", **flags)(function)
        except RuntimeError:  # numba found no folder that it may write to
            return numba.njit(nogil=True, error_model="numpy", **flags)(function)
    return compiled


serial = jit()
elementwise = jit(fastmath={"contract"})
summing = jit(fastmath={"contract", "reassoc", "nsz"})  # sums in another order, so that they become vector instructions
together = jit(fastmath={"contract"}, parallel=True)
