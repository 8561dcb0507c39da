"""Threads that go through one compiled function side by side and wait for each other at points in it (numba).

    for _ in prange(threads):        # each thread
        me, size = joined(team, threads)
        if size:
            first, end = part(count, me, size)
            ...                      # its part
            met(team, size, 1)       # all are here for the first time

Setting threads to work takes microseconds; to meet takes threads that run already a twentieth of one. What shares out the loop
need not run all of its turns at once, so nobody waits within it for a thread that has not come: who is there when the door
closes is the team, if need be one thread alone, and who comes later goes home. Only the end of the loop waits for all. Between
joining and the last meeting nothing may raise, for the others would wait for ever. Import this module only where numba is
there.
"""

import platform
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from .jit import serial

__all__ = ["PATIENCE", "SIZE", "joined", "met", "part", "team"]

APART = 16  # numbers between two that different threads wait for: lines of the cache come in pairs
DOOR, SIZE, MET = 0, APART, 2 * APART
CLOSED = 1 << 32  # the door's count from then on
PATIENCE = 1000  # looks at the door: some tens of microseconds
X86 = platform.machine().lower() in ("x86_64", "amd64")


def _place(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [at])


def _compiled_add(_, array, at, n):
    """array[at] += n for all threads to see; returns what it was."""
    def code(context, builder, signature, given):
        return builder.atomic_rmw("add", _place(context, builder, signature.args[0], *given[:2]), given[2], "seq_cst")
    return types.int64(array, types.int64, types.int64), code


def _compiled_seen(_, array, at):
    """array[at] as it is now."""
    def code(context, builder, signature, given):
        return builder.load_atomic(_place(context, builder, signature.args[0], *given), "seq_cst", 8)
    return types.int64(array, types.int64), code


def _compiled_rest(_):
    """A moment in which a thread that shares the core gets on."""
    def code(context, builder, signature, given):
        if X86:
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), ir.FunctionType(ir.VoidType(), [])), [])
        return context.get_dummy_value()
    return types.void(), code


_add: Any = intrinsic(_compiled_add)
_seen: Any = intrinsic(_compiled_seen)
_rest: Any = intrinsic(_compiled_rest)


@serial
def team() -> NDArray[np.int64]:
    """A team that nobody has joined."""
    return np.zeros(3 * APART, np.int64)


@serial
def joined(team: NDArray[np.int64], wanted: int, patience: int = PATIENCE) -> tuple[int, int]:
    """Which one of how many this thread is; of 0 where it came too late. The first one waits a little for as many as wanted."""
    me = _add(team, DOOR, 1)
    if me == 0:
        for _ in range(patience):
            if _seen(team, DOOR) >= wanted:
                break
            _rest()
        size = _add(team, DOOR, CLOSED)
        _add(team, SIZE, size)
        return me, size
    if me >= CLOSED:
        return me, 0
    while _seen(team, SIZE) == 0:
        _rest()
    return me, _seen(team, SIZE)


@serial
def met(team: NDArray[np.int64], size: int, times: int) -> None:
    """Waits until all of the team have been here so many times; what each wrote before that, all see."""
    if size > 1:
        _add(team, MET, 1)
        while _seen(team, MET) < times * size:
            _rest()


@serial
def part(count: int, me: int, size: int) -> tuple[int, int]:
    """The first one of so many that is this thread's, and where its part ends."""
    return count * me // size, count * (me + 1) // size
