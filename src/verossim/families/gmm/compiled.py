"""One compiled pass over records of few numbers (numba): the E-step's sums without writing responsibilities anywhere.

A slab of records goes block by block through buffers that stay in the first-level cache, feature by feature, so that
every inner loop runs over records and becomes vector instructions:

    y = R_k'(x - mu_k)     log p_k = c_k - |y|^2 / 2     r_k = p_k / sum_j p_j     sums of r, r y, r y y'

The compiled pass holds no lock, so slabs run on threads side by side; what is added up over blocks is float64.
Import this module only where numba is there.
"""

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .forms import constants
from .reference import Components
from .slabs import over_slabs, slabs

__all__ = ["log_density", "sums"]

SLAB = 1 << 16  # records
BLOCK = 512  # records: the buffers of a block are a few KiB a component
Array = NDArray[Any]
NONE = np.empty(0)

#: exp: below the first it is e^-69, which is nothing beside 1 and no subnormal number, which would be slow; then 1 / ln 2, a
#: number that adding and taking away rounds to whole, -ln 2, Taylor's 1 / n!. Constants come as arrays of the type that is
#: computed in: a literal would turn float32 into float64. |rest| <= ln 2 / 2, so that 8 terms leave 5e-9 and 12 leave 6e-15.
TAYLOR = [1 / math.factorial(n) for n in range(12)]
EXP = {torch.float32: np.array([-69.0, 1 / math.log(2), 1.5 * 2 ** 23, -math.log(2), *TAYLOR[:8]], np.float32),
       torch.float64: np.array([-69.0, 1 / math.log(2), 1.5 * 2 ** 52, -math.log(2), *TAYLOR], np.float64)}
#: Bias of the exponent and the place of its lowest bit, to write 2^n as bits.
BITS = {torch.float32: np.array([127, 2 ** 23], np.int32), torch.float64: np.array([1023, 2 ** 52], np.int64)}


def sums(numbers: Tensor, units: Tensor | None, components: Components, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """count (K,), first (K, D), second (K, D, D) or (K, D) of y, and sum of units log p(x) (), float64.

    numbers (B, D); units (B,) or None; dtype float32 or float64 is what is computed in.
    """
    K, D = components.means.shape
    x, parameters = numbers.contiguous().numpy(), _parameters(components, dtype, numbers.dtype)
    weights = NONE if units is None else units.double().numpy()

    def slab(rows: slice) -> Array:
        found = np.zeros((K + 1, 1 + D + D * D))
        _pass(x[rows], weights[rows], *parameters, found[:K], found[K, :1], NONE)
        return found
    total = torch.from_numpy(sum(over_slabs(slab, slabs(len(x), SLAB))))
    second = total[:K, 1 + D:].view(K, D, D)
    full = components.roots.ndim == 3
    second = second.tril() + second.tril(-1).mT if full else second.diagonal(dim1=1, dim2=2)
    return total[:K, 0], total[:K, 1:1 + D], second, total[K, 0]


def log_density(numbers: Tensor, components: Components, dtype: torch.dtype, out: Tensor) -> Tensor:
    """log p(x) into `out` (B,) float64, which is returned; arguments as for `sums`."""
    x, density, parameters = numbers.contiguous().numpy(), out.numpy(), _parameters(components, dtype, numbers.dtype)

    def slab(rows: slice) -> None:
        _pass(x[rows], NONE, *parameters, NONE[:, None], np.zeros(1), density[rows])
    list(over_slabs(slab, slabs(len(x), SLAB)))
    return out


def _parameters(components: Components, dtype: torch.dtype, given: torch.dtype) -> tuple[Any, ...]:
    """Shift in the wider of `dtype` and the type `given` of the numbers; m = means - shift, lower triangular R' and c in
    `dtype`; whether R is full; and what exp needs."""
    R = components.roots
    full = R.ndim == 3
    shift = components.shift.to(dtype).double()
    arrays = components.means - shift, R.mT if full else R.diag_embed(), constants(components)
    return (shift.to(torch.promote_types(given, dtype)).numpy(), *(a.to(dtype).contiguous().numpy() for a in arrays), full,
            EXP[dtype], BITS[dtype])


def _jit(**flags: Any) -> Callable[[Callable[..., Any]], Any]:
    """numba's compiler, kept on disk between runs where there is a place for it."""
    def compiled(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, nogil=True, **flags)(function)
        except RuntimeError:  # numba found no folder that it may write to
            return numba.njit(nogil=True, **flags)(function)
    return compiled


@_jit(fastmath={"contract"})
def _exponentials(x: Array, whole: Array, power: Array, e: Array, bits: Array) -> None:
    """exp(x) in place, for x (b,) <= 0: 2^n exp(rest), n = round(x / ln 2). whole, power (b,): room to work."""
    least, per, magic, ln2 = e[0], e[1], e[2], e[3]
    a0, a1, a2, a3, a4, a5, a6, a7 = e[4], e[5], e[6], e[7], e[8], e[9], e[10], e[11]
    bias, place = bits[0], bits[1]
    whole_bits, power_bits = whole.view(bits.dtype), power.view(bits.dtype)
    for i in range(len(x)):
        x[i] = least if x[i] < least else x[i]
        whole[i] = x[i] * per + magic
    for i in range(len(x)):
        power_bits[i] = (whole_bits[i] + bias) * place
    if len(e) == 12:
        for i in range(len(x)):
            r = x[i] + (whole[i] - magic) * ln2
            r2 = r * r
            low, high = (a0 + r * a1) + r2 * (a2 + r * a3), (a4 + r * a5) + r2 * (a6 + r * a7)
            x[i] = (low + r2 * r2 * high) * power[i]
        return
    a8, a9, a10, a11 = e[12], e[13], e[14], e[15]
    for i in range(len(x)):
        r = x[i] + (whole[i] - magic) * ln2
        low = a0 + r * (a1 + r * (a2 + r * (a3 + r * (a4 + r * a5))))
        high = a6 + r * (a7 + r * (a8 + r * (a9 + r * (a10 + r * a11))))
        r2 = r * r
        x[i] = (low + r2 * r2 * r2 * high) * power[i]


@_jit(fastmath={"contract"})
def _whitened(x: Array, m: Array, root: Array, full: bool, y: Array) -> None:
    """y = R'(x - m), for x, y (D, b), m (D,), root R' (D, D) lower triangular."""
    D, b = x.shape
    for d in range(D):
        for i in range(b):
            y[d, i] = root[d, d] * (x[d, i] - m[d])
        for j in range(d if full else 0):
            for i in range(b):
                y[d, i] += root[d, j] * (x[j, i] - m[j])


@_jit(fastmath={"contract", "reassoc", "nsz"})
def _moments(r: Array, y: Array, full: bool, z: Array, found: Array) -> None:
    """Adds sums of r, r y and r y y' (lower triangle, or its diagonal), for r (b,), y (D, b); z (b,): room to work."""
    D, b = y.shape
    s = r[0] - r[0]
    for i in range(b):
        s += r[i]
    found[0] += s
    for d in range(D):
        s = r[0] - r[0]
        for i in range(b):
            z[i] = r[i] * y[d, i]
        for i in range(b):
            s += z[i]
        found[1 + d] += s
        for j in range(0 if full else d, d + 1):
            s = r[0] - r[0]
            for i in range(b):
                s += z[i] * y[j, i]
            found[1 + D + d * D + j] += s


@_jit(fastmath={"reassoc", "nsz"})
def _sum_of_logs(top: Array, total: Array) -> float:
    """Sum of top + log(total), with one logarithm for 32 totals: each is from 1 to K, so that their product is in range."""
    found = 0.0
    for i in range(len(top)):
        found += top[i]
    for first in range(0, len(total), 32):
        product = 1.0
        for i in range(first, min(first + 32, len(total))):
            product *= total[i]
        found += math.log(product)
    return found


@_jit(fastmath={"contract"})
def _pass(numbers: Array, units: Array, shift: Array, means: Array, roots: Array, constants: Array, full: bool, e: Array,
          bits: Array, found: Array, log_likelihood: Array, density: Array) -> None:
    """The records of a slab, block by block; found (K, 1 + D + D D) or empty, density (b,) or empty."""
    K, D = means.shape
    kind = means.dtype
    half = e[6]
    for first in range(0, len(numbers), BLOCK):
        b = min(BLOCK, len(numbers) - first)
        x, y, p = np.empty((D, b), kind), np.empty((D, b), kind), np.empty((K, b), kind)
        top, total, whole, power = np.empty(b, kind), np.zeros(b, kind), np.empty(b, kind), np.empty(b, kind)
        for d in range(D):
            for i in range(b):
                x[d, i] = numbers[first + i, d] - shift[d]
        for k in range(K):
            _whitened(x, means[k], roots[k], full, y)
            for i in range(b):
                p[k, i] = constants[k]
            for d in range(D):
                for i in range(b):
                    p[k, i] -= half * y[d, i] * y[d, i]
        top[:] = p[0]
        for k in range(1, K):
            for i in range(b):
                top[i] = top[i] if p[k, i] <= top[i] else p[k, i]
        for k in range(K):
            for i in range(b):
                p[k, i] -= top[i]
            _exponentials(p[k], whole, power, e, bits)
            for i in range(b):
                total[i] += p[k, i]
        if len(density):
            for i in range(b):
                density[first + i] = top[i] + math.log(total[i])
        if not len(found):
            continue
        if len(units):
            for i in range(b):
                log_likelihood[0] += units[first + i] * (top[i] + math.log(total[i]))
                total[i] = units[first + i] / total[i]
        else:
            log_likelihood[0] += _sum_of_logs(top, total)
            for i in range(b):
                total[i] = e[4] / total[i]
        for k in range(K):
            for i in range(b):
                p[k, i] *= total[i]
            _whitened(x, means[k], roots[k], full, y)
            _moments(p[k], y, full, whole, found[k])
