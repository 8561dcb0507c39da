"""Memory that stays at hand while a network learns.

A step frees its activations and asks for as many bytes a moment later. glibc gives large blocks back to the system in between,
which fills them with zeros, page by page, when they are next touched. While `kept` holds, they stay in the heap, and a step of
the same shapes takes no new page; afterwards what is free goes back. Elsewhere than on glibc nothing is changed.

malloc's parameters: mallopt(3).
"""

import contextlib
import ctypes
import platform
from collections.abc import Iterator

__all__ = ["kept"]

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # malloc.h
SETTLED = {TRIM_THRESHOLD: 64 << 20, MMAP_THRESHOLD: 32 << 20, MMAP_MAX: 1 << 16}  # where glibc's own adapting ends


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """While the `with` block runs, freed memory stays with the process, which holds at its end what it held at its peak."""
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    _set(libc, {TRIM_THRESHOLD: -1, MMAP_MAX: 0})  # -1: never
    try:
        yield
    finally:
        _set(libc, SETTLED)
        libc.malloc_trim(0)


def _set(libc: ctypes.CDLL, options: dict[int, int]) -> None:
    for option, value in options.items():
        libc.mallopt(option, value)
