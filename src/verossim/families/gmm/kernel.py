"""The sums of the E-step, fast: `reference` with the same signatures, as matrix products over chunks that stay in cache.

A Gaussian log density is linear in the products of the numbers, so all components are one product (the quadratic form):

    log w_k p_k(x) = theta_k . phi(x)        phi(x) = (x_i x_j for i <= j, x, x_s, 1)        x about `shift`
    theta_k = (-Lambda_ij, or -Lambda_ii / 2; Lambda_k m_k; logits_k; c_k)       Lambda_k = R_k R_k', m_k = mu_k - shift

and so are the sums of the M-step, sum_b r_bk phi(x_b). It takes half the operations of the textbook form, but cancels: with
u the unit roundoff (6e-8 in float32, 1.1e-16 in float64) a log density errs at random, about a mean of zero, by

    u |Lambda_ij (|m_i m_j| + s_i s_j)|   quadratic, the norm over (i, j); s_i^2 = Sigma_ii; the largest over components
    u |R_ij sqrt(m_i^2 + s_i^2)|          whitened: log w_k p_k(x) = c_k - |y|^2 / 2, y = R_k'x - R_k'm_k, and sums of r y y'

The same numbers bound the relative error of a covariance that is made from the sums, seen along its own axes. Where the
first is too much, because a component is thin and far from the middle, the second or float64 takes over; of the ways that
are good enough the cheapest is taken, by operations counted. Large D goes whitened as phi grows out of the cache.
With D <= 4 and many records one compiled pass (`compiled`, with numba) does it without writing responsibilities anywhere.

Products are float32 or float64; whatever is added up over chunks is float64. Inside, logarithms are to base 2: exp2 is three
times as fast as exp, and thirty times where its result vanishes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor

from .reference import Components, Sums

__all__ = ["Components", "Sums", "log_density", "log_joint", "sums"]

F32, F64 = torch.float32, torch.float64
TOLERANCE = {F32: 1e-4, F64: 1e-8}  # nats of random error in one log density
LOG2_E = 1 / math.log(2)
CHUNK_BYTES = 2 << 20  # of the buffers of a chunk: they stay in the second-level cache
CHUNK_ROWS = 128, 16_384
FLUSH_ROWS = 2048  # after so many records sums of products move over to float64
BUILDING, SPILLED = 40.0, 100.0  # what one entry of phi takes, in operations of a matrix product: in the cache, and beyond
WALKING = 60.0  # the same for the passes over one entry of y
IN_CACHE, AT_MOST = 1 << 13, 1 << 15  # entries of phi: beyond the second they take too much memory
COMPILED_ROWS, COMPILED_D = 1 << 17, 4  # fewer records do not repay loading the compiler
GROWTH_ENTRIES = 1 << 22  # of the matrices that are looked at in one go
EXACT_ROWS = 256  # this few are done in float64, centred, without a thought
NEVER = -1e30  # nats: stands for log 0, which may not meet the zeros of a product


def sums(numbers: Tensor, onehots: Tensor | None, units: Tensor | None, components: Components,
         precision: str = "auto") -> Sums:
    """The sums over B records that count `units` (B,) each, or one each; all float64.

    numbers (B, D) float32 or float64; onehots (B, S) or None. precision "float32" or "float64" is the type of the products;
    "auto" takes float64 for float64 numbers, and for float32 numbers the cheapest that errs by less than 1e-4 nats.
    """
    way = _Way.best(numbers, components, precision, passes=2)
    if way.compiled(onehots):
        return _checked(_compiled_sums(numbers, units, components, way.dtype), numbers, onehots, units, components, way)
    form = way.form(components, len(numbers))
    log_likelihood = numbers.new_zeros((), dtype=F64)
    for rows, log_p in _chunks(form, numbers, onehots):
        bits, total = _exponentials(log_p)
        share = total.reciprocal_()
        if units is None:
            log_likelihood += bits.sum(dtype=F64) / LOG2_E
        else:
            log_likelihood += bits.double() @ units[rows].double() / LOG2_E
            share *= units[rows]
        log_p *= share
        form.gather(log_p)
    return _checked(form.sums(log_likelihood), numbers, onehots, units, components, way)


def log_joint(numbers: Tensor, onehots: Tensor | None, components: Components, precision: str = "auto") -> Tensor:
    """log w_k + log p_k(x), (B, K) float64; arguments as for `sums`."""
    out = numbers.new_empty(len(numbers), len(components.means), dtype=F64)
    form = _Way.best(numbers, components, precision, passes=1).form(components, len(numbers))
    for rows, log_p in _chunks(form, numbers, onehots):
        out[rows] = log_p.T
    return out.div_(LOG2_E)


def log_density(numbers: Tensor, onehots: Tensor | None, components: Components, precision: str = "auto") -> Tensor:
    """log p(x) = log sum_k w_k p_k(x), (B,) float64; arguments as for `sums`."""
    out = numbers.new_empty(len(numbers), dtype=F64)
    way = _Way.best(numbers, components, precision, passes=1)
    if way.compiled(onehots):
        from . import compiled
        return compiled.log_density(numbers, components, way.dtype, out)
    for rows, log_p in _chunks(way.form(components, len(numbers)), numbers, onehots):
        out[rows] = _exponentials(log_p)[0]
    return out.div_(LOG2_E)


class _Form(Protocol):
    """A way to write the log density, with its buffers for chunks of `rows` records."""

    rows: int

    def log_joint(self, numbers: Tensor, onehots: Tensor | None) -> Tensor:
        """log2 w_k + log2 p_k(x) of a chunk, (K, b), in a buffer."""

    def gather(self, r: Tensor) -> None:
        """Adds the chunk just seen to the sums, by its responsibilities r (K, b)."""

    def sums(self, log_likelihood: Tensor) -> Sums:
        """What was gathered."""


def _chunks(form: _Form, numbers: Tensor, onehots: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
    """Slices of the records with their log joint (K, b) to base 2, which the reader may overwrite before it goes on."""
    for first in range(0, len(numbers), form.rows):
        rows = slice(first, min(first + form.rows, len(numbers)))
        yield rows, form.log_joint(numbers[rows], None if onehots is None else onehots[rows])


def _exponentials(log_p: Tensor) -> tuple[Tensor, Tensor]:
    """log2 sum_k p_k, (b,), and sum_k p_k / max_k p_k, (b,); log_p (K, b), to base 2, becomes p_k / max_k p_k."""
    top = log_p.amax(dim=0)
    total = log_p.sub_(top).exp2_().sum(dim=0)
    return total.log2().add_(top), total


def _checked(found: Sums, numbers: Tensor, onehots: Tensor | None, units: Tensor | None, components: Components,
             way: "_Way") -> Sums:
    """`found`, or the sums again in float64 where a record is so far away that its float32 squares overflowed."""
    if way.dtype == F64 or found.log_likelihood.isfinite():
        return found
    return sums(numbers, onehots, units, components, "float64")


@dataclass(frozen=True)
class _Way:
    """How the products are to be done: quadratic or whitened, in which type."""

    quadratic: bool
    dtype: torch.dtype
    B: int
    D: int

    @staticmethod
    def best(numbers: Tensor, components: Components, precision: str, passes: int) -> "_Way":
        """The cheapest way that is accurate enough; passes: 1 for densities, 2 where sums are gathered too."""
        (B, D), K = numbers.shape, len(components.means)
        if B <= EXACT_ROWS:
            return _Way(False, F64, B, D)
        if precision == "auto":
            dtypes = (F32, F64) if numbers.dtype == F32 else (F64,)
        else:
            dtypes = ({"float32": F32, "float64": F64}[precision],)
        full = components.roots.ndim == 3
        P = D * (D + 1) // 2 if full else D
        work = {True: P * (2 * K * passes + (BUILDING if P <= IN_CACHE else SPILLED)) if P <= AT_MOST else math.inf,
                False: K * D * passes * (2 * D * full + WALKING)}
        growth = dict(zip((True, False), _growth(components), strict=True))
        ways = [(work[quadratic] * dtype.itemsize, _Way(quadratic, dtype, B, D)) for dtype in dtypes for quadratic in work
                if growth[quadratic] * torch.finfo(dtype).eps / 2 <= TOLERANCE[dtype]]
        return min(ways, key=lambda way: way[0])[1] if ways else _Way(False, dtypes[-1], B, D)

    def compiled(self, onehots: Tensor | None) -> bool:
        """Whether the compiled pass is to do it: it depends on sizes alone, so that a run repeats itself."""
        return onehots is None and self.B >= COMPILED_ROWS and 0 < self.D <= COMPILED_D and find_spec("numba") is not None

    def form(self, components: Components, B: int) -> _Form:
        """The buffers and the parameters in that form."""
        return (_Quadratic if self.quadratic else _Whitened)(components, self.dtype, B)


def _growth(components: Components) -> tuple[float, float]:
    """How much the roundoff of one product is grown in a log density: by the quadratic and by the whitened form."""
    R, m = components.roots, components.means - components.shift
    K, D = m.shape
    if R.ndim == 2:
        energy = R.square() * m.square() + 1
        return float(energy.square().sum(dim=1).sqrt().max()), float(energy.sum(dim=1).sqrt().max())
    if (some := max(1, GROWTH_ENTRIES // max(1, D * D))) < K:  # a few matrices at a time
        pairs = [_growth(components.part(slice(k, k + some))) for k in range(0, K, some)]
        return max(q for q, _ in pairs), max(w for _, w in pairs)
    variances = _deviations(R).square().sum(dim=2)
    s = variances.sqrt()
    sizes = m.abs()[:, :, None] * m.abs()[:, None, :] + s[:, :, None] * s[:, None, :]
    quadratic = (R @ R.mT * sizes).square().sum(dim=(1, 2)).sqrt().max()
    whitened = (R.square().sum(dim=2) * (m.square() + variances)).sum(dim=1).sqrt().max()
    return float(quadratic), float(whitened)


def _deviations(R: Tensor) -> Tensor:
    """L = R^-T, so that Sigma = L L' and x - mu = L y; R (K, D, D) upper triangular."""
    return torch.linalg.solve_triangular(R.mT, torch.eye(R.shape[1], dtype=R.dtype), upper=False)


def _constants(components: Components) -> Tensor:
    """log w_k - D/2 log 2 pi + 1/2 log |Lambda_k|, (K,)."""
    R = components.roots
    diagonal = R.diagonal(dim1=1, dim2=2) if R.ndim == 3 else R
    return components.log_weights - 0.5 * R.shape[1] * math.log(2 * math.pi) + diagonal.log().sum(dim=1)


def _rows(B: int, width: int, dtype: torch.dtype) -> int:
    """Records a chunk, when each takes `width` numbers of buffer."""
    least, most = CHUNK_ROWS
    return max(1, min(B, most, max(least, CHUNK_BYTES // (width * dtype.itemsize) // 64 * 64)))


def _moved(first: Tensor, second: Tensor, count: Tensor, by: Tensor) -> tuple[Tensor, Tensor]:
    """First and second moments (K, D), (K, D, D) or (K, D) of x + by, from those of x; by (D,) or (K, D)."""
    weighted = count[:, None] * by
    if second.ndim == 2:
        return first + weighted, second + 2 * first * by + weighted * by
    by = by.expand(first.shape)
    cross = first[:, :, None] * by[:, None, :]
    return first + weighted, second + cross + cross.mT + weighted[:, :, None] * by[:, None, :]


class _Quadratic:
    """theta (K, P) times phi (P, b), feature by feature; see the top of this file.

    Products x_i x_j are made `step` values of i at a time, j from the first of them: fewer, larger operations for a few
    products more. Where both (i, j) and (j, i) are made they share theta.
    """

    def __init__(self, components: Components, dtype: torch.dtype, B: int):
        self.shift = components.shift.to(dtype).double()  # the point that x is really taken about
        self.slip = self.shift - components.shift
        m, R = components.means - self.shift, components.roots
        K, D = m.shape
        self.full = R.ndim == 3
        precision = R @ R.mT if self.full else R.square()
        step = max(1, round(math.sqrt(D) / 2))
        self.steps = [(i, min(i + step, D)) for i in range(0, D, step)] if self.full else []
        if self.full:
            made = torch.arange(D) >= torch.arange(D)[:, None] // step * step
            self.i, self.j = torch.where(made)
            products = (precision * torch.where(made.T, -0.5, -1.0))[:, made]
            linear = (precision @ m[:, :, None])[:, :, 0]
        else:
            products, linear = -0.5 * precision, precision * m
        constants = _constants(components) - 0.5 * (linear * m).sum(dim=1)
        theta = torch.cat([products, linear, components.logits.clamp(min=NEVER), constants[:, None]], dim=1)
        self.theta = (theta * LOG2_E).to(dtype)
        self.Q, self.D, P = products.shape[1], D, theta.shape[1]
        self.rows = _rows(B, P + 2 * K, dtype)
        self.phi, self.log_p = torch.empty(P, self.rows, dtype=dtype), torch.empty(K, self.rows, dtype=dtype)
        self.phi[-1] = 1
        self.part, self.total = torch.zeros(P, K, dtype=dtype), torch.zeros(P, K, dtype=F64)
        self.pending = 0  # records in `part` that are not yet in `total`

    def log_joint(self, numbers: Tensor, onehots: Tensor | None) -> Tensor:
        """log2 w_k + log2 p_k(x) of a chunk, (K, b), in a buffer."""
        Q, D, b = self.Q, self.D, len(numbers)
        phi = self.phi[:, :b]
        x = phi[Q:Q + D]
        torch.sub(numbers.T, self.shift[:, None].to(torch.promote_types(numbers.dtype, x.dtype)), out=x)
        if not self.full:
            torch.mul(x, x, out=phi[:Q])
        row = 0
        for a, z in self.steps:
            n = (z - a) * (D - a)
            torch.mul(x[a:z, None], x[None, a:], out=phi[row:row + n].view(z - a, D - a, b))
            row += n
        if onehots is not None:
            phi[Q + D:-1] = onehots.T
        return torch.mm(self.theta, phi, out=self.log_p[:, :b])

    def gather(self, r: Tensor) -> None:
        """Adds the chunk just seen to the sums, by its responsibilities r (K, b)."""
        b = r.shape[1]
        self.part.addmm_(self.phi[:, :b], r.T, beta=float(self.pending > 0))
        self.pending += b
        if self.pending >= FLUSH_ROWS:
            self._flush()

    def _flush(self) -> None:
        self.total += self.part
        self.pending = 0

    def sums(self, log_likelihood: Tensor) -> Sums:
        """What was gathered."""
        if self.pending:
            self._flush()
        total, Q, D = self.total.T, self.Q, self.D
        count, products = total[:, -1].clone(), total[:, :Q]
        second = products
        if self.full:
            second = products.new_zeros(len(total), D, D)
            second[:, self.i, self.j] = products
            second[:, self.j, self.i] = products
        first, second = _moved(total[:, Q:Q + D], second, count, self.slip)
        return Sums(count, first, second, total[:, Q + D:-1].clone(), log_likelihood)


class _Whitened:
    """y = R_k'x - R_k'm_k for all components in one product; sums of r, r y, r y y' are brought back to x at the end."""

    def __init__(self, components: Components, dtype: torch.dtype, B: int):
        self.components = components
        self.shift = components.shift.to(dtype).double()
        R, m = components.roots, components.means - self.shift
        (K, D), S = m.shape, components.logits.shape[1]
        self.full = R.ndim == 3
        if self.full:
            self.W = R.mT.reshape(K * D, D).to(dtype)
            self.bias = -(R.mT @ m[:, :, None]).reshape(K * D, 1).to(dtype)
        else:
            self.W, self.bias = R[:, :, None].to(dtype), -(R * m)[:, :, None].to(dtype)
        self.constants = (_constants(components)[:, None] * LOG2_E).to(dtype)
        self.logits = (components.logits.clamp(min=NEVER) * LOG2_E).to(dtype)
        self.rows = _rows(B, 2 * K * (D + 1), dtype)
        self.x, self.log_p = torch.empty(D, self.rows, dtype=dtype), torch.empty(K, self.rows, dtype=dtype)
        self.K, self.D = K, D
        self.buffers = torch.empty(2, K * D * self.rows, dtype=dtype)
        self.count, self.first, self.categories = (torch.zeros(shape, dtype=F64) for shape in ((K,), (K, D), (K, S)))
        self.second = torch.zeros(R.shape, dtype=F64)
        self.onehots: Tensor | None = None

    def log_joint(self, numbers: Tensor, onehots: Tensor | None) -> Tensor:
        """log2 w_k + log2 p_k(x) of a chunk, (K, b), in a buffer."""
        b = len(numbers)
        x, log_p, (y, z) = self.x[:, :b], self.log_p[:, :b], self._yz(b)
        torch.sub(numbers.T, self.shift[:, None].to(torch.promote_types(numbers.dtype, x.dtype)), out=x)
        if self.full:
            torch.addmm(self.bias, self.W, x, out=y.view(self.K * self.D, b))
        else:
            torch.mul(x, self.W, out=y).add_(self.bias)
        torch.sum(torch.mul(y, y, out=z), dim=1, out=log_p).mul_(-0.5 * LOG2_E).add_(self.constants)
        self.onehots = None if onehots is None else onehots.T.to(x.dtype)
        return log_p if self.onehots is None else log_p.addmm_(self.logits, self.onehots)

    def gather(self, r: Tensor) -> None:
        """Adds the chunk just seen to the sums, by its responsibilities r (K, b)."""
        y, z = self._yz(r.shape[1])
        torch.mul(y, r[:, None, :], out=z)
        self.count += r.sum(dim=1)
        self.first += z.sum(dim=2)
        self.second += torch.bmm(z, y.mT) if self.full else z.mul_(y).sum(dim=2)
        if self.onehots is not None:
            self.categories += r @ self.onehots.T

    def _yz(self, b: int) -> tuple[Tensor, Tensor]:
        """The buffer of y and one of its size, (K, D, b)."""
        y, z = self.buffers[:, :self.K * self.D * b].view(2, self.K, self.D, b)
        return y, z

    def sums(self, log_likelihood: Tensor) -> Sums:
        """What was gathered, brought back from y to x - shift."""
        first, second = _unwhitened(self.count, self.first, self.second, self.components)
        return Sums(self.count, first, second, self.categories, log_likelihood)


def _unwhitened(count: Tensor, first: Tensor, second: Tensor, components: Components) -> tuple[Tensor, Tensor]:
    """Moments of x - shift = m + L y, from the moments of y."""
    R, m = components.roots, components.means - components.shift
    if R.ndim == 2:
        return _moved(first / R, second / R.square(), count, m)
    L = _deviations(R)
    return _moved((L @ first[:, :, None])[:, :, 0], L @ second @ L.mT, count, m)


def _compiled_sums(numbers: Tensor, units: Tensor | None, components: Components, dtype: torch.dtype) -> Sums:
    from . import compiled
    count, first, second, log_likelihood = compiled.sums(numbers, units, components, dtype)
    first, second = _unwhitened(count, first, second, components)
    return Sums(count, first, second, count.new_zeros(len(count), 0), log_likelihood)
