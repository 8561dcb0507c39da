"""Products of a few rows with a large matrix (numba): y_r += x_r W, the same bits for a row whatever other rows there are.

With one row such a product takes as long as the memory needs to deliver W; with several it should take hardly longer. So W
lies in panels of PANEL outputs each, (P, K, PANEL), which are read from front to back once; a panel meets ROWS rows at a time,
whose sums stay in vector registers:

    y_rj <- y_rj + x_rk w_kj        k = 0, 1, ..., K - 1 in this order, for every row and however many rows there are

Import this module only where numba is there.
"""

from typing import Any

import llvmlite.binding as binding
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from .jit import serial

__all__ = ["LINE", "PANEL", "STRIP", "Array", "in_panels", "panel", "product", "put", "strips"]

Array = NDArray[Any]
WIDE = bool(binding.get_host_cpu_features().get("avx512f", False))
VECTOR = 16 if WIDE else 8  # numbers of a register
PANEL, ROWS = (64, 4) if WIDE else (32, 2)  # their sums fill half the registers
STRIP = 32  # outputs of a panel of values: heads may be as small
LINE = 16  # numbers of a line of the cache
DEPTH = 128  # inputs that all rows meet before the next ones: so much of a panel stays in the first-level cache


def in_panels(matrices: list[Array]) -> tuple[int, int, int]:
    """The shape that matrices (out, in), all of one shape, have as panels: (len(matrices) P, in, PANEL)."""
    N, K = matrices[0].shape
    return len(matrices) * -(-N // PANEL), K, PANEL


def put(matrices: list[Array], panels: Array) -> None:
    """Fills panels of the shape above, with zeros where out is no multiple of PANEL."""
    for W, to in zip(matrices, panels.reshape(len(matrices), -1, *panels.shape[1:]), strict=True):
        _pack(W, to)


@serial
def _pack(W: Array, to: Array) -> None:
    N, K = W.shape
    for row in range(0, len(to) * PANEL, LINE):  # of W; with more at a time lines of the cache may push each other out
        p, n, count = row // PANEL, row % PANEL, max(0, min(LINE, N - row))
        if count == LINE:
            for k in range(K):
                for i in range(LINE):
                    to[p, k, n + i] = W[row + i, k]
        else:
            for k in range(K):
                to[p, k, n + count:n + LINE] = 0
                for i in range(count):
                    to[p, k, n + i] = W[row + i, k]


def _tile(R: int, J: int) -> Any:
    """Compiles y_rj += sum_k x_rk w_kj for R rows and J outputs, both fixed, so that y stays in registers.

    Arguments: x, where in it and from row to row; w (K, J) and where in it; y as x; K.
    """
    vector, count = ir.VectorType(ir.FloatType(), VECTOR), J // VECTOR
    integer, index = ir.IntType(32), ir.IntType(64)

    @intrinsic
    def tile(_, x, x_at, x_row, w, w_at, y, y_at, y_row, K):
        def code(context, builder, signature, given):
            def pointer(which: int, at: Any) -> Any:
                return builder.gep(context.make_array(signature.args[which])(context, builder, given[which]).data, [at])

            def place(base: Any, c: int) -> Any:
                return builder.bitcast(builder.gep(base, [index(c * VECTOR)]), vector.as_pointer())
            xs = [pointer(0, builder.add(given[1], builder.mul(index(r), given[2]))) for r in range(R)]
            ys = [pointer(5, builder.add(given[6], builder.mul(index(r), given[7]))) for r in range(R)]
            ws = pointer(3, given[4])
            product = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3),
                                                     f"llvm.fmuladd.v{VECTOR}f32")
            sums = [[cgutils.alloca_once_value(builder, builder.load(place(y, c), align=4)) for c in range(count)] for y in ys]
            nothing, same = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(integer, VECTOR), [0] * VECTOR)
            with cgutils.for_range(builder, given[8]) as loop:
                row = builder.gep(ws, [builder.mul(loop.index, index(J))])
                w_k = [builder.load(place(row, c), align=4) for c in range(count)]
                for x, y in zip(xs, sums, strict=True):
                    x_k = builder.insert_element(nothing, builder.load(builder.gep(x, [loop.index])), integer(0))
                    x_k = builder.shuffle_vector(x_k, nothing, same)
                    for w_kj, y_j in zip(w_k, y, strict=True):
                        builder.store(builder.call(product, (x_k, w_kj, builder.load(y_j))), y_j)
            for base, y in zip(ys, sums, strict=True):
                for c, y_j in enumerate(y):
                    builder.store(builder.load(y_j), place(base, c), align=4)
            return context.get_dummy_value()
        return types.void(x, types.int64, types.int64, w, types.int64, y, types.int64, types.int64, types.int64), code
    return tile


_several, _single, _strip = _tile(ROWS, PANEL), _tile(1, PANEL), _tile(1, STRIP)


@serial
def panel(x: Array, w: Array, p: int, y: Array, first: int) -> None:
    """y[:, first:first + PANEL] += x w, for x (R, >= K), the p-th panel w (K, PANEL) of (..., K, PANEL), and y (R, >= first +
    PANEL), each contiguous."""
    (R, x_row), y_row, K = x.shape, y.shape[1], w.shape[-2]
    for k in range(0, K, DEPTH):
        n, at = min(DEPTH, K - k), (p * K + k) * PANEL
        for r in range(0, R // ROWS * ROWS, ROWS):
            _several(x, r * x_row + k, x_row, w, at, y, r * y_row + first, y_row, n)
        for r in range(R // ROWS * ROWS, R):
            _single(x, r * x_row + k, x_row, w, at, y, r * y_row + first, y_row, n)


@serial
def strips(x: Array, w: Array, p: int, y: Array, K: int) -> None:
    """y (R, P STRIP) += x (R, >= K) w, for P strips w (K, STRIP) from the p-th one of (..., >= K, STRIP) on."""
    (R, x_row), depth, y_row = x.shape, w.shape[-2], y.shape[1]
    for n in range(y_row // STRIP):
        for r in range(R):
            _strip(x, r * x_row, x_row, w, (p + n) * depth * STRIP, y, r * y_row + n * STRIP, y_row, K)


@serial
def product(x: Array, w: Array, bias: Array, begin: int, first: int, end: int, y: Array, anew: bool) -> None:
    """y's panels from the first one to the end = x w + bias, by the panels begin + first, ... of w (P, K, PANEL) and bias
    (P, PANEL); added to what is there if not anew."""
    for p in range(first, end):
        for r in range(len(x)):
            if anew:
                for n in range(PANEL):
                    y[r, p * PANEL + n] = bias[begin + p, n]
            else:
                for n in range(PANEL):
                    y[r, p * PANEL + n] += bias[begin + p, n]
        panel(x, w, begin + p, y, p * PANEL)
