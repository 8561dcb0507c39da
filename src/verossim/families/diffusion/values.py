"""The values that an entry may take, and what a little noise leaves of them.

A real entry may take any value, one with cells of width w those of a grid, a one-hot block one of the corners of a simplex.
Let z = x + r_0 eps with r_0 small, and let r(z) be the flat measure on all values, noised in the same way:

    grid      r(z) = sum_v N(z; v, r_0^2)             real      r(z) = 1
    simplex   r(z) = sum_c N(z; e_c, r_0^2 I)         (the limit of a grid of width w -> 0, times w)

Reading x back off z with a flat prior is p(x | z) = q(z | x) / r(z), and therefore for mass and density alike

    log P(x) >= E_q(z|x) [log p_0(z) + log p(x | z) - log q(z | x)] = E_q(z|x) [log p_0(z) - log r(z)].

The bound is tight where values are told apart by z, or where P is flat over the values that are not; so r_0 is an eighth of the
smallest cell (a wrong value then is four standard deviations away), but never below what a network can resolve.
"""

import math

import torch
from torch import Tensor

from ...spaces import Continuous

__all__ = ["Values"]

FINEST = 0.002  # the least noise ratio: a five-hundredth of the unit scale of a space (Karras et al., arXiv:2206.00364)


class Values:
    """The values of the entries of a space; events are (B, *event)."""

    def __init__(self, space: Continuous):
        self.shape, self.levels, self.blocks = space.shape, space.levels, space.simplexes
        cells = space.cells()
        for first, last in self.blocks:
            cells[first:last] = 0
        self.cells = cells
        self.grid = cells.nonzero()[:, 0]
        apart = [*cells.tolist(), *(math.sqrt(2) for _ in self.blocks)]
        discrete = cells > 0
        for first, last in self.blocks:
            discrete[first:last] = True
        self.all_real = not discrete.any()
        self.discrete = discrete.view(self.shape)  # (*event) bool
        smallest = min(width for width in apart if width > 0) if discrete.all() else 0.0
        self.finest = max(FINEST, smallest / 8)

    def nearest(self, x: Tensor, anchor: Tensor) -> Tensor:
        """x with grids rounded to the nearest value and one-hot blocks to their largest; `anchor` (*event) is on the grid."""
        if self.all_real:
            return x
        flat, on = x.flatten(1).clone(), anchor.reshape(-1).to(x)
        if len(self.grid):
            cells, on = self.cells.to(x)[self.grid], on[self.grid]
            rounded = ((flat[:, self.grid] - on) / cells).round_() * cells + on
            flat[:, self.grid] = rounded.clamp(-1 + 1 / self.levels, 1 - 1 / self.levels) if self.levels else rounded
        for first, last in self.blocks:
            flat[:, first:last] = torch.nn.functional.one_hot(flat[:, first:last].argmax(dim=1), last - first).to(x)
        return flat.view_as(x)

    def unknown(self, x: Tensor) -> Tensor:
        """Which entries are unknown, bool of x's shape: NaN, and a one-hot block as a whole."""
        gone = x.isnan().flatten(1)
        for first, last in self.blocks:
            gone[:, first:last] = gone[:, first:last].any(dim=1, keepdim=True)
        return gone.view_as(x)

    def log_flat(self, x: Tensor, eps: Tensor, known: Tensor | None = None) -> Tensor:
        """log r(z) at z = x + r_0 eps, (B,) in nats; over the `known` entries where that is given (bool, of x's shape)."""
        total = x.new_zeros(len(x))
        if self.all_real:
            return total
        flat, noise = x.flatten(1), eps.flatten(1)
        there = torch.ones_like(flat, dtype=torch.bool) if known is None else known.flatten(1)
        if len(self.grid):
            log_r = self._log_grid(flat[:, self.grid], noise[:, self.grid])
            total = total + torch.where(there[:, self.grid], log_r, 0.0).sum(dim=1)
        for first, last in self.blocks:
            log_r = self._log_simplex(flat[:, first:last], noise[:, first:last])
            total = total + torch.where(there[:, first], log_r, 0.0)
        return total

    def _log_grid(self, x: Tensor, eps: Tensor) -> Tensor:
        """log r of each entry with a cell, (B, G): the nearest values one by one, or their density 1 / w where z blurs them."""
        cells = self.cells[self.grid]
        out = (-cells.log()).to(x).expand_as(x)
        if self.levels and self.finest >= float(cells.max()):
            z = x + self.finest * eps
            return out + (torch.special.ndtr((1 - z) / self.finest) - torch.special.ndtr((-1 - z) / self.finest)).log()
        coarse = (cells > self.finest).nonzero()[:, 0]
        if not len(coarse):
            return out
        log_r = self._log_sum(x[:, coarse], eps[:, coarse], cells[coarse].to(x))
        return log_r if len(coarse) == len(cells) else out.index_copy(1, coarse.to(out.device), log_r)

    def _log_sum(self, x: Tensor, eps: Tensor, cells: Tensor) -> Tensor:
        """log sum_k N(z; x + k w, r_0^2), the k out to where nothing is left (eps stays below 7)."""
        apart = cells / self.finest
        reach = math.ceil(13 / float(apart.min()))
        log_r = -eps.square() / 2
        for k in range(1, reach + 1):
            for step in (-k, k):
                term = -(eps - step * apart).square() / 2
                if self.levels:
                    term = torch.where((x + step * cells).abs() < 1, term, -math.inf)
                log_r = torch.logaddexp(log_r, term)
        return log_r - math.log(self.finest * math.sqrt(2 * math.pi))

    def _log_simplex(self, x: Tensor, eps: Tensor) -> Tensor:
        """log sum_c N(z; e_c, r_0^2 I) of one block, (B,): |z - e_c|^2 = |z - x|^2 + 2 (z_x - z_c)."""
        C, z = x.shape[1], x + self.finest * eps
        above = (z - (z * x).sum(dim=1, keepdim=True)) / self.finest ** 2
        constant = C * math.log(self.finest * math.sqrt(2 * math.pi))
        return above.logsumexp(dim=1) - eps.square().sum(dim=1) / 2 - constant
