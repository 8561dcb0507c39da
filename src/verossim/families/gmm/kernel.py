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
are good enough the cheapest is taken, by operations that torch would need. Large D goes whitened as phi grows out of the cache.
Where phi is short and records are many, one compiled pass (`compiled`, with numba) does it without writing responsibilities
anywhere: torch's operations would be so short there that a second thread gives little.

Products are float32 or float64 (`forms`); what is added up over slabs of records, each on a thread (`slabs`), is float64.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .forms import LOG2_E, NOTHING, Form, Quadratic, Whitened, deviations
from .reference import Components, Sums
from .slabs import over_slabs, slabs

__all__ = ["Components", "Sums", "log_density", "log_joint", "sums"]

F32, F64 = torch.float32, torch.float64
TOLERANCE = {F32: 1e-4, F64: 1e-8}  # nats of random error in one log density
SLAB_ROWS = 2048  # of a slab, or one chunk where that is more
SLAB_SUMS = 1 << 21  # sums of which each slab may hold its own; with more there is but one slab
BUILDING, SPILLED = 40.0, 100.0  # what one entry of phi takes, in operations of a matrix product: in the cache, and beyond
WALKING = 60.0  # the same for the passes over one entry of y
IN_CACHE, AT_MOST = 1 << 13, 1 << 15  # entries of phi: beyond the second they take too much memory
COMPILED_NUMBERS = 1 << 18  # fewer do not repay loading the compiler
COMPILED_FEATURES = 1 << 6, 1 << 12  # of a component and of all: with more, products are left to torch
GROWTH_ENTRIES = 1 << 22  # of the matrices that are looked at in one go
EXACT_ROWS = 256  # this few are done in float64, centred, without a thought


def sums(numbers: Tensor, onehots: Tensor | None, units: Tensor | None, components: Components,
         precision: str = "auto") -> Sums:
    """The sums over B records that count `units` (B,) each, or one each; all float64.

    numbers (B, D) float32 or float64; onehots (B, S) or None. precision "float32" or "float64" is the type of the products;
    "auto" takes float64 for float64 numbers, and for float32 numbers the cheapest that errs by less than 1e-4 nats.
    """
    way = _Way.best(numbers, components, precision, passes=2)
    form = way.form(components)
    if _compiles(numbers, onehots, components):
        from . import compiled
        gathered, bits = compiled.sums(numbers, units, form)
    else:
        gathered, bits = _summed(form, numbers, onehots, units, components)
    found = form.sums(gathered, bits / LOG2_E)
    if way.dtype == F32 and not (found.log_likelihood.isfinite() and found.second.isfinite().all()):  # squares overflow
        return sums(numbers, onehots, units, components, "float64")
    return found


def log_joint(numbers: Tensor, onehots: Tensor | None, components: Components, precision: str = "auto") -> Tensor:
    """log w_k + log p_k(x), (B, K) float64; arguments as for `sums`."""
    way = _Way.best(numbers, components, precision, passes=1)
    form = way.form(components)
    out = numbers.new_empty(len(numbers), len(components.means), dtype=F64)

    def slab(rows: slice) -> None:
        for chunk, log_p in _chunks(form, numbers, onehots, rows):
            out[chunk] = log_p.T
    list(over_slabs(slab, _slabs(form, len(numbers), components)))
    return _mended(out.div_(LOG2_E), way, numbers, onehots, components, log_joint)


def log_density(numbers: Tensor, onehots: Tensor | None, components: Components, precision: str = "auto") -> Tensor:
    """log p(x) = log sum_k w_k p_k(x), (B,) float64; arguments as for `sums`."""
    way = _Way.best(numbers, components, precision, passes=1)
    out, form = numbers.new_empty(len(numbers), dtype=F64), way.form(components)
    if _compiles(numbers, onehots, components):
        from . import compiled
        compiled.log_density(numbers, form, out)
    else:
        def slab(rows: slice) -> None:
            for chunk, log_p in _chunks(form, numbers, onehots, rows):
                out[chunk] = _exponentials(log_p)[0]
        list(over_slabs(slab, _slabs(form, len(numbers), components)))
    return _mended(out.div_(LOG2_E), way, numbers, onehots, components, log_density)


def _mended(out: Tensor, way: "_Way", numbers: Tensor, onehots: Tensor | None, components: Components, verb: Any) -> Tensor:
    """The result, with records so far away that their squares overflow float32 done again in float64."""
    if way.dtype == F32 and not (fine := out.view(len(out), -1).isfinite().all(dim=1)).all():
        far = (~fine).nonzero()[:, 0]
        out[far] = verb(numbers[far].double(), None if onehots is None else onehots[far], components, "float64")
    return out


def _summed(form: Form, numbers: Tensor, onehots: Tensor | None, units: Tensor | None,
            components: Components) -> tuple[list[Tensor], Tensor]:
    """What `form.sums` takes, by matrix products, slab by slab: what the form gathers, and the sum of units log2 p(x)."""
    def slab(rows: slice) -> list[Tensor]:
        bits = numbers.new_zeros((), dtype=F64)
        for chunk, log_p in _chunks(form, numbers, onehots, rows):
            log_sum, total = _exponentials(log_p)
            share = total.reciprocal_()
            if units is None:
                bits += log_sum.sum(dtype=F64)
            else:
                bits += log_sum.double() @ units[chunk].double()
                share *= units[chunk]
            log_p *= share
            form.gather(log_p)
        return [*form.gathered(), bits]
    found = over_slabs(slab, _slabs(form, len(numbers), components))
    totals = next(found, None) or slab(slice(0, 0))
    for more in found:
        for total, part in zip(totals, more, strict=True):
            np.add(total.numpy(), part.numpy(), out=total.numpy())  # torch would call its threads away from the slabs
    *gathered, bits = totals
    return gathered, bits


def _slabs(form: Form, B: int, components: Components) -> list[slice]:
    many = components.roots.numel() > SLAB_SUMS
    return [slice(0, B)] if many and B else slabs(B, max(SLAB_ROWS, form.rows))


def _chunks(form: Form, numbers: Tensor, onehots: Tensor | None, rows: slice) -> Iterator[tuple[slice, Tensor]]:
    """Slices of a slab's records with their log joint (K, b) to base 2, which the reader may overwrite before it goes on."""
    for first in range(rows.start, rows.stop, form.rows):
        chunk = slice(first, min(first + form.rows, rows.stop))
        yield chunk, form.log_joint(numbers[chunk], None if onehots is None else onehots[chunk])


def _exponentials(log_p: Tensor) -> tuple[Tensor, Tensor]:
    """log2 sum_k p_k, (b,), and sum_k p_k / max_k p_k, (b,); log_p (K, b), to base 2, becomes p_k / max_k p_k."""
    top = log_p.amax(dim=0)
    F.threshold(log_p.sub_(top), NOTHING, -math.inf, inplace=True)
    total = log_p.exp2_().sum(dim=0)
    return total.log2().add_(top), total


@dataclass(frozen=True)
class _Way:
    """How the products of B records are to be done: quadratic or whitened, in which type."""

    quadratic: bool
    dtype: torch.dtype
    B: int

    @staticmethod
    def best(numbers: Tensor, components: Components, precision: str, passes: int) -> "_Way":
        """The cheapest way that is accurate enough; passes: 1 for densities, 2 where sums are gathered too."""
        (B, D), K = numbers.shape, len(components.means)
        if B <= EXACT_ROWS:
            return _Way(False, F64, B)
        if precision == "auto":
            dtypes = (F32, F64) if numbers.dtype == F32 else (F64,)
        else:
            dtypes = ({"float32": F32, "float64": F64}[precision],)
        P, full = components.products, components.roots.ndim == 3
        work = {True: P * (2 * K * passes + (BUILDING if P <= IN_CACHE else SPILLED)) if P <= AT_MOST else math.inf,
                False: K * D * passes * (2 * D * full + WALKING)}
        growth = dict(zip((True, False), _growth(components), strict=True))
        ways = [(work[quadratic] * dtype.itemsize, _Way(quadratic, dtype, B)) for dtype in dtypes for quadratic in work
                if growth[quadratic] * torch.finfo(dtype).eps / 2 <= TOLERANCE[dtype]]
        return min(ways, key=lambda way: way[0])[1] if ways else _Way(False, dtypes[-1], B)

    def form(self, components: Components) -> Quadratic | Whitened:
        """The parameters in that form."""
        return (Quadratic if self.quadratic else Whitened)(components, self.dtype, self.B)


def _compiles(numbers: Tensor, onehots: Tensor | None, components: Components) -> bool:
    """Whether the compiled pass is to do it: it depends on sizes alone, so that a run repeats itself."""
    each, (most, most_in_all) = components.products + numbers.shape[1] + 1, COMPILED_FEATURES
    return onehots is None and numbers.dtype in (F32, F64) and numbers.numel() >= COMPILED_NUMBERS and each <= most and \
        each * len(components.means) <= most_in_all and find_spec("numba") is not None


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
    variances = deviations(R).square().sum(dim=2)
    s = variances.sqrt()
    sizes = m.abs()[:, :, None] * m.abs()[:, None, :] + s[:, :, None] * s[:, None, :]
    quadratic = (R @ R.mT * sizes).square().sum(dim=(1, 2)).sqrt().max()
    whitened = (R.square().sum(dim=2) * (m.square() + variances)).sum(dim=1).sqrt().max()
    return float(quadratic), float(whitened)
