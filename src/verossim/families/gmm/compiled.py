"""One compiled pass over records of few numbers (numba): the E-step's sums without writing responsibilities anywhere.

A slab of records goes block by block through buffers that stay in the first-level cache, feature by feature, so that
every inner loop runs over records and becomes vector instructions. In bits, for one of the two `forms` of the log density:

    log p_k = theta_k . phi(x)      r_k = p_k / sum_j p_j      sums of r, r phi      quadratic
    y = W_k x + b_k     log p_k = c_k - |y|^2          sums of r, r y, r y y'      whitened; W, b over (2 ln 2)^(1/2)

The compiled pass holds no lock, so slabs run on threads side by side; what is added up over blocks is float64.
Import this module only where numba is there.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...nn.jit import elementwise, summing
from .forms import LOG2_E, NOTHING, Quadratic, Whitened
from .slabs import over_slabs, slabs

__all__ = ["log_density", "sums"]

SLAB = 1 << 17  # numbers of a slab's records
CACHE = 1 << 15  # bytes of a block's buffers
BLOCK = 32, 512  # records
ALONE = 1 << 18  # multiplications that a linear algebra library does without threads of its own
SQUARED = math.sqrt(0.5 * LOG2_E)  # y times it has squares in bits
Array = NDArray[Any]
T = TypeVar("T")
NONE = np.empty(0)

#: 2^x: the least x and 2^x, smaller ones come to the same (such a share counts as none; subnormal numbers would be slow); then
#: a number that adding and taking away rounds to whole, and Taylor's ln(2)^n / n!. Constants come as arrays of the type that is
#: computed in: a literal would turn float32 into float64. |rest| <= 1/2, so that 8 terms leave 5e-9 and 12 leave 6e-15.
TAYLOR = [math.log(2) ** n / math.factorial(n) for n in range(12)]
EXP2 = {torch.float32: np.array([NOTHING, 2 ** NOTHING, 1.5 * 2 ** 23, *TAYLOR[:8]], np.float32),
        torch.float64: np.array([NOTHING, 2 ** NOTHING, 1.5 * 2 ** 52, *TAYLOR], np.float64)}
#: The place of the exponent's lowest bit, to add to it.
PLACE = {torch.float32: np.array([2 ** 23], np.int32), torch.float64: np.array([2 ** 52], np.int64)}


def sums(numbers: Tensor, units: Tensor | None, form: Quadratic | Whitened) -> tuple[list[Tensor], Tensor]:
    """What `form.sums` takes: the sums that it gathers, float64, and the sum of units log2 p(x), ().

    numbers (B, D); units (B,) or None, one each.
    """
    compiled = _compiled(form, numbers.dtype)
    weights = NONE if units is None else units.double().contiguous().numpy()

    def slab(rows: slice, x: Array) -> tuple[Array, Array]:
        found, bits = np.zeros(compiled.moments), np.zeros(1)
        compiled.run(x, weights[rows], found, bits, NONE)
        return found, bits
    found, bits = np.zeros(compiled.moments), np.zeros(1)
    for more in _over(slab, numbers):
        found += more[0]
        bits += more[1]
    return compiled.gathered(torch.from_numpy(found)), torch.from_numpy(bits)[0]


def log_density(numbers: Tensor, form: Quadratic | Whitened, out: Tensor) -> None:
    """log2 p(x) into `out` (B,) float64."""
    compiled = _compiled(form, numbers.dtype)
    density = out.numpy()
    list(_over(lambda rows, x: compiled.run(x, NONE, NONE[:, None], np.zeros(1), density[rows]), numbers))


def _over(work: Callable[[slice, Array], T], numbers: Tensor) -> Iterator[T]:
    x = numbers.contiguous().numpy()
    return over_slabs(lambda rows: work(rows, x[rows]), slabs(len(x), SLAB // x.shape[1]))


class _Compiled:
    """A form's parameters as its compiled `function` takes them; the sums that it finds have the shape `moments`."""

    function: Any
    moments: tuple[int, int]

    def __init__(self, form: Any, given: torch.dtype, fits: int, *parts: Tensor):
        self.form, (least, most) = form, BLOCK
        block = max(least, min(most, fits // least * least))
        shift = form.shift.to(torch.promote_types(given, form.dtype))
        self.parameters = *(part.numpy() for part in (shift, *parts)), EXP2[form.dtype], PLACE[form.dtype], block

    def run(self, x: Array, units: Array, found: Array, bits: Array, density: Array) -> None:
        """Adds a slab of records to found (moments) and bits (1,), or writes density (b,) where that is not empty."""
        self.function(x, units, *self.parameters, found, bits, density)


class _CompiledQuadratic(_Compiled):
    def __init__(self, form: Quadratic, given: torch.dtype):
        (K, P), self.function = form.theta.shape, _quadratic
        fits = min(CACHE // (form.dtype.itemsize * (P + 2 * K)), ALONE // (P * K))
        super().__init__(form, given, fits, form.theta, torch.stack([form.i, form.j]))
        self.moments = P, K

    def gathered(self, found: Tensor) -> list[Tensor]:
        """What was found as the form's own `gathered` gives it."""
        return [found]


class _CompiledWhitened(_Compiled):
    def __init__(self, form: Whitened, given: torch.dtype):
        K, D, self.function = form.K, form.D, _whitened
        W, bias = form.W.view(K, D, -1) * SQUARED, form.bias.view(K, D) * SQUARED
        super().__init__(form, given, CACHE // (form.dtype.itemsize * 2 * (D + K)), form.constants[:, 0], W, bias)
        self.moments = K, 1 + D + D * W.shape[2]

    def gathered(self, found: Tensor) -> list[Tensor]:
        """What was found as the form's own `gathered` gives it."""
        D = self.form.D
        second = found[:, 1 + D:]
        if self.form.full:
            lower = second.view(-1, D, D)
            second = lower + lower.tril(-1).mT
        return [found[:, 0], found[:, 1:1 + D] / SQUARED, second / SQUARED ** 2, found.new_zeros(len(found), 0)]


def _compiled(form: Quadratic | Whitened, given: torch.dtype) -> _CompiledQuadratic | _CompiledWhitened:
    return _CompiledQuadratic(form, given) if isinstance(form, Quadratic) else _CompiledWhitened(form, given)




@elementwise
def _exp2(x: Array, whole: Array, e: Array, place: Array) -> None:
    """2^x in place, for x (b,) <= 0: 2^n 2^rest, n = round(x), which is added to the exponent's bits. whole (b,): room."""
    least, magic, a0, a1, a2, a3, a4, a5, a6, a7 = e[0], e[2], e[3], e[4], e[5], e[6], e[7], e[8], e[9], e[10]
    lowest = place[0]
    x_bits, whole_bits = x.view(place.dtype), whole.view(place.dtype)
    for i in range(len(x)):
        x[i] = least if x[i] < least else x[i]
        whole[i] = x[i] + magic
    if len(e) == 11:
        for i in range(len(x)):
            r = x[i] - (whole[i] - magic)
            r2 = r * r
            low, high = (a0 + r * a1) + r2 * (a2 + r * a3), (a4 + r * a5) + r2 * (a6 + r * a7)
            x[i] = low + r2 * r2 * high
    else:
        a8, a9, a10, a11 = e[11], e[12], e[13], e[14]
        for i in range(len(x)):
            r = x[i] - (whole[i] - magic)
            low = a0 + r * (a1 + r * (a2 + r * (a3 + r * (a4 + r * a5))))
            high = a6 + r * (a7 + r * (a8 + r * (a9 + r * (a10 + r * a11))))
            r2 = r * r
            x[i] = low + r2 * r2 * r2 * high
    for i in range(len(x)):
        x_bits[i] += whole_bits[i] * lowest


@elementwise
def _centred(numbers: Array, shift: Array, x: Array) -> None:
    """x (D, b) = numbers (b, D) - shift."""
    D, b = x.shape
    for d in range(D):
        for i in range(b):
            x[d, i] = numbers[i, d] - shift[d]


@elementwise
def _features(x: Array, pairs: Array, one: float, phi: Array) -> None:
    """phi = (x_i x_j, x, 1), for x (D, b), pairs (2, Q) of i and j."""
    (D, b), Q = x.shape, pairs.shape[1]
    for q in range(Q):
        left, right = x[pairs[0, q]], x[pairs[1, q]]
        for i in range(b):
            phi[q, i] = left[i] * right[i]
    phi[Q:Q + D] = x
    phi[Q + D] = one


@elementwise
def _whitening(x: Array, W: Array, bias: Array, y: Array) -> None:
    """y = W x + bias, for x, y (D, b), W (D, D) lower triangular, or its diagonal (D, 1)."""
    D, b = x.shape
    full = W.shape[1] > 1
    for d in range(D):
        w = W[d, d if full else 0]
        for i in range(b):
            y[d, i] = w * x[d, i] + bias[d]
        for j in range(d if full else 0):
            for i in range(b):
                y[d, i] += W[d, j] * x[j, i]


@summing
def _whitened_sums(r: Array, y: Array, width: int, found: Array) -> None:
    """Adds sums of r, r y and r y y' (lower triangle where width is D, the diagonal where it is 1), for r (b,), y (D, b)."""
    (D, b), z = y.shape, np.empty_like(r)
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
        for j in range(0 if width > 1 else d, d + 1):
            s = r[0] - r[0]
            for i in range(b):
                s += z[i] * y[j, i]
            found[1 + D + d * width + (j if width > 1 else 0)] += s


@summing
def _sum_of_logs(top: Array, total: Array) -> float:
    """Sum of top + log2(total), with one logarithm for 32 totals: each is from 1 to K, so that their product is in range."""
    found = 0.0
    for i in range(len(top)):
        found += top[i]
    for first in range(0, len(total), 32):
        product = 1.0
        for i in range(first, min(first + 32, len(total))):
            product *= total[i]
        found += math.log2(product)
    return found


@elementwise
def _shares(p: Array, units: Array, e: Array, place: Array, density: Array) -> float:
    """log2 p_k (K, b) become units p_k / sum_j p_j; returns the sum of units log2 p(x), or writes density."""
    (K, b), kind = p.shape, p.dtype
    top, total = p[0].copy(), np.empty(b, kind)
    for k in range(1, K):
        for i in range(b):
            top[i] = top[i] if p[k, i] <= top[i] else p[k, i]
    for k in range(K):
        for i in range(b):
            p[k, i] -= top[i]
    _exp2(p.reshape(-1), np.empty(K * b, kind), e, place)
    total[:] = p[0]
    for k in range(1, K):
        for i in range(b):
            total[i] += p[k, i]
    found, nothing = 0.0, e[0] - e[0]
    if len(density):
        for i in range(b):
            density[i] = top[i] + math.log2(total[i])
    elif len(units):
        for i in range(b):
            found += units[i] * (top[i] + math.log2(total[i]))
            total[i] = units[i] / total[i]
    else:
        found = _sum_of_logs(top, total)
        for i in range(b):
            total[i] = e[3] / total[i]
    for k in range(0 if len(density) else K):
        for i in range(b):
            p[k, i] = p[k, i] * total[i] if p[k, i] > e[1] else nothing
    return found


@elementwise
def _quadratic(numbers: Array, units: Array, shift: Array, theta: Array, pairs: Array, e: Array, place: Array, block: int,
               found: Array, bits: Array, density: Array) -> None:
    """The records of a slab, block by block; found (P, K), bits (1,), or density (b,) where not empty."""
    (K, P), D, kind = theta.shape, len(shift), theta.dtype
    part = np.empty((P, K), kind)
    for first in range(0, len(numbers), block):
        b = min(block, len(numbers) - first)
        here = slice(first, first + b)
        x, phi, p = np.empty((D, b), kind), np.empty((P, b), kind), np.empty((K, b), kind)
        _centred(numbers[here], shift, x)
        _features(x, pairs, e[3], phi)
        np.dot(theta, phi, p)
        bits[0] += _shares(p, units[here], e, place, density[here])
        if not len(density):
            np.dot(phi, p.T, part)
            for f in range(P):
                for k in range(K):
                    found[f, k] += part[f, k]


@elementwise
def _whitened(numbers: Array, units: Array, shift: Array, constants: Array, W: Array, bias: Array, e: Array, place: Array,
              block: int, found: Array, bits: Array, density: Array) -> None:
    """The records of a slab, block by block; found (K, 1 + D + D width), bits (1,), or density (b,) where not empty."""
    (K, D, width), kind = W.shape, W.dtype
    for first in range(0, len(numbers), block):
        b = min(block, len(numbers) - first)
        here = slice(first, first + b)
        x, y, p = np.empty((D, b), kind), np.empty((D, b), kind), np.empty((K, b), kind)
        _centred(numbers[here], shift, x)
        for k in range(K):
            _whitening(x, W[k], bias[k], y)
            p[k] = constants[k]
            for d in range(D):
                for i in range(b):
                    p[k, i] -= y[d, i] * y[d, i]
        bits[0] += _shares(p, units[here], e, place, density[here])
        for k in range(0 if len(density) else K):
            _whitening(x, W[k], bias[k], y)
            _whitened_sums(p[k], y, width, found[k])
