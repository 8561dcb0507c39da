"""Two ways to write a mixture's log density as matrix products over a chunk of records: quadratic and whitened.

Both take x about `shift`, feature by feature (D, b), and speak in bits: logarithms are to base 2, as exp2 is three times as
fast as exp, and thirty times where its result vanishes. Parameters are shared by all threads; buffers belong to each.
"""

import math
import threading
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .reference import Components, Sums

__all__ = ["Form", "Quadratic", "Whitened", "constants", "deviations", "unwhitened"]

LOG2_E = 1 / math.log(2)
NOTHING = -100.0  # bits: a share below it counts as 0; subnormal numbers would slow a product down tenfold
CHUNK_BYTES = 2 << 20  # of the buffers of a chunk: they stay in the second-level cache
CHUNK_ROWS = 128, 16_384
NEVER = -1e30  # nats: stands for log 0, which may not meet the zeros of a product


class Form(Protocol):
    """A way to write the log density; `rows` is how many records a chunk may have."""

    rows: int

    def log_joint(self, numbers: Tensor, onehots: Tensor | None) -> Tensor:
        """log2 w_k + log2 p_k(x) of a chunk, (K, b), in a buffer of this thread."""

    def gather(self, r: Tensor) -> None:
        """Adds the chunk just seen to this thread's sums, by its responsibilities r (K, b)."""

    def gathered(self) -> list[Tensor]:
        """This thread's sums, float64; they begin again from zero."""

    def sums(self, gathered: list[Tensor], log_likelihood: Tensor) -> Sums:
        """Sums over all that was gathered, as the M-step wants them."""


class Quadratic:
    """theta (K, P) times phi (P, b), phi(x) = (x_i x_j, x, x_s, 1).

    Products x_i x_j are made `step` values of i at a time, j from the first of them: fewer, larger operations for a few
    products more. Where both (i, j) and (j, i) are made they share theta.
    """

    def __init__(self, components: Components, dtype: torch.dtype, B: int):
        self.shift = components.shift.to(dtype).double()  # the point that x is really taken about
        self.slip = self.shift - components.shift
        m, R = components.means - self.shift, components.roots
        K, D = m.shape
        self.full, self.dtype = R.ndim == 3, dtype
        precision = R @ R.mT if self.full else R.square()
        step = max(1, round(math.sqrt(D) / 2))
        self.steps = [(i, min(i + step, D)) for i in range(0, D, step)] if self.full else []
        self.i = self.j = torch.arange(D)
        if self.full:
            made = torch.arange(D) >= torch.arange(D)[:, None] // step * step
            self.i, self.j = torch.where(made)
            products = (precision * torch.where(made.T, -0.5, -1.0))[:, made]
            linear = (precision @ m[:, :, None])[:, :, 0]
        else:
            products, linear = -0.5 * precision, precision * m
        constant = constants(components) - 0.5 * (linear * m).sum(dim=1)
        theta = torch.cat([products, linear, components.logits.clamp(min=NEVER), constant[:, None]], dim=1)
        self.theta = (theta * LOG2_E).to(dtype)
        self.Q, self.D = products.shape[1], D
        self.rows = _rows(B, theta.shape[1] + 2 * K, dtype)
        self.local = threading.local()

    @dataclass
    class Own:
        """One thread's buffers: phi (P, rows), log_p (K, rows), and sums of r phi (P, K)."""

        phi: Tensor
        log_p: Tensor
        part: Tensor

    @property
    def own(self) -> Own:
        """The buffers of the thread that asks."""
        if "own" not in vars(self.local):
            (K, P), dtype = self.theta.shape, self.theta.dtype
            self.local.own = self.Own(torch.ones(P, self.rows, dtype=dtype), torch.empty(K, self.rows, dtype=dtype),
                                      torch.zeros(P, K, dtype=dtype))
        return self.local.own

    def log_joint(self, numbers: Tensor, onehots: Tensor | None) -> Tensor:
        """log2 w_k + log2 p_k(x) of a chunk, (K, b), in a buffer of this thread."""
        Q, D, b = self.Q, self.D, len(numbers)
        phi = self.own.phi[:, :b]
        x = phi[Q:Q + D]
        _centred(numbers, self.shift, x)
        if not self.full:
            torch.mul(x, x, out=phi[:Q])
        row = 0
        for a, z in self.steps:
            n = (z - a) * (D - a)
            torch.mul(x[a:z, None], x[None, a:], out=phi[row:row + n].view(z - a, D - a, b))
            row += n
        if onehots is not None:
            phi[Q + D:-1] = onehots.T
        return torch.mm(self.theta, phi, out=self.own.log_p[:, :b])

    def gather(self, r: Tensor) -> None:
        """Adds the chunk just seen to this thread's sums, by its responsibilities r (K, b)."""
        self.own.part.addmm_(self.own.phi[:, :r.shape[1]], r.T)

    def gathered(self) -> list[Tensor]:
        """This thread's sums of r phi, (P, K) float64; they begin again from zero."""
        found = self.own.part.to(torch.float64, copy=True)
        self.own.part.zero_()
        return [found]

    def sums(self, gathered: list[Tensor], log_likelihood: Tensor) -> Sums:
        """Sums over all that was gathered, as the M-step wants them."""
        total, Q, D = gathered[0].T, self.Q, self.D
        count, products = total[:, -1].clone(), total[:, :Q]
        second = products
        if self.full:
            second = products.new_zeros(len(total), D, D)
            second[:, self.i, self.j] = products
            second[:, self.j, self.i] = products
        first, second = _moved(total[:, Q:Q + D], second, count, self.slip)
        return Sums(count, first, second, total[:, Q + D:-1].clone(), log_likelihood)


class Whitened:
    """y = R_k'x - R_k'm_k for all components in one product; sums of r, r y, r y y' are brought back to x at the end."""

    def __init__(self, components: Components, dtype: torch.dtype, B: int):
        self.components = components
        self.shift = components.shift.to(dtype).double()
        R, m = components.roots, components.means - self.shift
        self.K, self.D = K, D = m.shape
        self.full, self.dtype = R.ndim == 3, dtype
        if self.full:
            self.W = R.mT.reshape(K * D, D).to(dtype)
            self.bias = -(R.mT @ m[:, :, None]).reshape(K * D, 1).to(dtype)
        else:
            self.W, self.bias = R[:, :, None].to(dtype), -(R * m)[:, :, None].to(dtype)
        self.constants = (constants(components)[:, None] * LOG2_E).to(dtype)
        self.logits = (components.logits.clamp(min=NEVER) * LOG2_E).to(dtype)
        self.rows = _rows(B, 2 * K * (D + 1), dtype)
        self.local = threading.local()

    @dataclass
    class Own:
        """One thread's buffers: x (D, rows), log_p (K, rows), two of the size of y (2, K D rows); and its sums, float64."""

        x: Tensor
        log_p: Tensor
        buffers: Tensor
        totals: list[Tensor]
        onehots: Tensor | None = None

        def yz(self, K: int, D: int, b: int) -> tuple[Tensor, Tensor]:
            """y and a buffer of its size, (K, D, b)."""
            y, z = self.buffers[:, :K * D * b].view(2, K, D, b)
            return y, z

    @property
    def own(self) -> Own:
        """The buffers of the thread that asks."""
        if "own" not in vars(self.local):
            c, dtype = self.components, self.W.dtype
            shapes = c.log_weights.shape, c.means.shape, c.roots.shape, c.logits.shape
            self.local.own = self.Own(
                torch.empty(self.D, self.rows, dtype=dtype), torch.empty(self.K, self.rows, dtype=dtype),
                torch.empty(2, self.K * self.D * self.rows, dtype=dtype), [torch.zeros(s, dtype=torch.float64) for s in shapes])
        return self.local.own

    def log_joint(self, numbers: Tensor, onehots: Tensor | None) -> Tensor:
        """log2 w_k + log2 p_k(x) of a chunk, (K, b), in a buffer of this thread."""
        own, b = self.own, len(numbers)
        x, log_p, (y, z) = own.x[:, :b], own.log_p[:, :b], own.yz(self.K, self.D, b)
        _centred(numbers, self.shift, x)
        if self.full:
            torch.addmm(self.bias, self.W, x, out=y.view(self.K * self.D, b))
        else:
            torch.mul(x, self.W, out=y).add_(self.bias)
        torch.sum(torch.mul(y, y, out=z), dim=1, out=log_p).mul_(-0.5 * LOG2_E).add_(self.constants)
        own.onehots = None if onehots is None else onehots.T.to(x.dtype)
        return log_p if own.onehots is None else log_p.addmm_(self.logits, own.onehots)

    def gather(self, r: Tensor) -> None:
        """Adds the chunk just seen to this thread's sums, by its responsibilities r (K, b)."""
        (count, first, second, categories), (y, z) = self.own.totals, self.own.yz(self.K, self.D, r.shape[1])
        torch.mul(y, r[:, None, :], out=z)
        count += r.sum(dim=1)
        first += z.sum(dim=2)
        second += torch.bmm(z, y.mT) if self.full else z.mul_(y).sum(dim=2)
        if self.own.onehots is not None:
            categories += r @ self.own.onehots.T

    def gathered(self) -> list[Tensor]:
        """This thread's sums of r, r y, r y y' and r x_s, float64; they begin again from zero."""
        found = self.own.totals
        self.own.totals = [torch.zeros_like(total) for total in found]
        return found

    def sums(self, gathered: list[Tensor], log_likelihood: Tensor) -> Sums:
        """Sums over all that was gathered, brought back from y to x - shift."""
        count, first, second, categories = gathered
        return Sums(count, *unwhitened(count, first, second, self.components), categories, log_likelihood)


def unwhitened(count: Tensor, first: Tensor, second: Tensor, components: Components) -> tuple[Tensor, Tensor]:
    """Moments of x - shift = m + L y, (K, D) and (K, D, D) or (K, D), from the moments of y."""
    R, m = components.roots, components.means - components.shift
    if R.ndim == 2:
        return _moved(first / R, second / R.square(), count, m)
    L = deviations(R)
    return _moved((L @ first[:, :, None])[:, :, 0], L @ second @ L.mT, count, m)


def deviations(R: Tensor) -> Tensor:
    """L = R^-T, so that Sigma = L L' and x - mu = L y; R (K, D, D) upper triangular."""
    return torch.linalg.solve_triangular(R.mT, torch.eye(R.shape[1], dtype=R.dtype), upper=False)


def constants(components: Components) -> Tensor:
    """log w_k - D/2 log 2 pi + 1/2 log |Lambda_k|, (K,)."""
    R = components.roots
    diagonal = R.diagonal(dim1=1, dim2=2) if R.ndim == 3 else R
    return components.log_weights - 0.5 * R.shape[1] * math.log(2 * math.pi) + diagonal.log().sum(dim=1)


def _centred(numbers: Tensor, shift: Tensor, x: Tensor) -> None:
    """x (D, b) = numbers (b, D) - shift, taken away in the wider of the two types."""
    torch.sub(numbers.T, shift[:, None].to(torch.promote_types(numbers.dtype, x.dtype)), out=x)


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
