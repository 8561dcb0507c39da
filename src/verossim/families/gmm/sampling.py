"""New records, and what is missing of given ones, drawn from the mixture.

A component k by its weight, then x = mu_k + L_k z with Sigma_k = L_k L_k' (or mu_k + L_k z + sqrt(psi_k) e), then a category
of each block by its probabilities. Rows of one component are drawn together, in one matrix product a component, and put back
where they belong. Given the known part x_o of a record the same holds with P(k | x_o) and p(x_m | x_o, k).

A matrix product may round a row differently in a larger matrix. So that a sample has the same bits in any batch, all products
are made of equal tiles, padded to whole vector registers.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy
import torch
from torch import Tensor

from ...seeds import Noise
from .parts import parts

__all__ = ["completed", "drawn"]

NUMBERS = 1 << 18  # drawn at a time, so that they stay in cache
TILE, LANES = 32, 16  # rows and columns that a matrix product is made of


def drawn(family: Any, noise: Noise, labels: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Samples (B, *event), one for each stream, of the classes `labels` (B,) or of any where None or -1."""
    maker = _Maker(family, dtype)
    block = max(NUMBERS // max(maker.draws, 1), 2 * TILE * len(maker.means))
    blocks = [slice(first, min(first + block, len(noise))) for first in range(0, len(noise), block)]
    streams = [noise.part(rows.start, rows.stop) for rows in blocks]
    x = torch.empty(len(noise), *family.space.shape, dtype=dtype)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        given = (None if labels is None else labels[rows] for rows in blocks)
        for rows, made in zip(blocks, pool.map(maker.draw, streams, given), strict=True):
            x[rows] = made
    noise.drawn = max((part.drawn for part in streams), default=noise.drawn)
    return x


class _Maker:
    """The mixture in the form that draws need, in the dtype of the samples; made once for all blocks of rows."""

    def __init__(self, family: Any, dtype: torch.dtype):
        self.entries, self.anchor, self.dtype, self.K = family.entries, family.anchor, dtype, family.log_weights.shape[1]
        weights = family.log_weights.exp()
        self.within = (weights.cumsum(dim=1) + torch.arange(len(weights))[:, None]).reshape(-1)
        self.joint = (family.log_classes.exp()[:, None] * weights).reshape(-1).cumsum(dim=0)
        self.means = (family.means * family.scale).to(dtype)
        turns, stretches = family.covariance.transforms()
        self.turns = None if turns is None else _padded((turns * family.scale[:, None]).mT.to(dtype))
        self.stretches = None if stretches is None else (stretches * family.scale).to(dtype)
        self.draws = family.covariance.draws
        self.edges = [family.logits[:, first:last].exp().cumsum(dim=1) for first, last in self.entries.blocks]

    def draw(self, noise: Noise, labels: Tensor | None) -> Tensor:
        """Samples (b, *event)."""
        u = noise.uniform(1 + len(self.edges), dtype=torch.float64)
        component = self.components(u[:, 0].contiguous(), labels)
        order, which, counts = _tiled(component)
        z = noise.rows(order).normal(self.draws, dtype=self.dtype)
        noise.drawn += -(-self.draws // 2)
        x = torch.empty(len(z), self.means.shape[1], dtype=self.dtype)
        for k, z_k, x_k in zip(which.tolist(), z.split(counts.tolist()), x.split(counts.tolist()), strict=True):
            self.place(z_k, k, x_k)
        numbers = torch.empty(len(component), x.shape[1], dtype=self.dtype)
        numbers[order] = x
        chosen = [chosen_category(edges[component], u[:, 1 + i]) for i, edges in enumerate(self.edges)]
        return self.entries.join(self.entries.gridded(numbers, self.anchor), self.entries.one_hot(chosen, self.dtype))

    def components(self, u: Tensor, labels: Tensor | None) -> Tensor:
        """One component for each uniform draw (b,) and class."""
        J = len(self.joint)
        free = torch.searchsorted(self.joint, u * self.joint[-1], right=True).clamp(max=J - 1)
        if labels is None:
            return free
        fixed = torch.searchsorted(self.within, labels + u, right=True)
        fixed = fixed.clamp(labels * self.K, labels * self.K + self.K - 1)
        return torch.where(labels < 0, free, fixed)

    def place(self, z: Tensor, k: int, out: Tensor) -> None:
        """mu_k + L_k z into out (n * TILE, D), and + sqrt(psi_k) e where there is a diagonal part besides."""
        n, D = len(z), out.shape[1]
        if self.turns is not None:
            turn = self.turns[k]
            factors = _padded((z if self.stretches is None else z[:, D:]).reshape(n // TILE, TILE, -1), rows=False)
            torch.add(torch.bmm(factors, turn.expand(len(factors), *turn.shape)).view(n, -1)[:, :D], self.means[k], out=out)
        else:
            out.copy_(self.means[k].expand_as(out))
        if self.stretches is not None:
            out.addcmul_(z[:, :D], self.stretches[k])


def _tiled(component: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows in the order of their components (b,), filled up to whole tiles by repeating each component's last row.

    Returns the order, the components that occur, and the rows that each takes in the order.
    """
    narrow = component.to(torch.int16) if component.max() < 1 << 15 else component
    order = torch.from_numpy(numpy.argsort(narrow.numpy(), kind="stable"))
    which, counts = component[order].unique_consecutive(return_counts=True)
    padded = (counts + TILE - 1) // TILE * TILE
    ends = counts.cumsum(dim=0)
    place = torch.arange(int(padded.sum())) - (padded.cumsum(dim=0) - padded - ends + counts).repeat_interleave(padded)
    return order[place.minimum((ends - 1).repeat_interleave(padded))], which, padded


def _padded(matrices: Tensor, rows: bool = True) -> Tensor:
    """Matrices (n, R, C) with zeros up to whole lanes: columns, and rows where asked."""
    R, C = matrices.shape[1:]
    return torch.nn.functional.pad(matrices, (0, -C % LANES, 0, -R % LANES if rows else 0))


def completed(family: Any, x: Tensor, labels: Tensor | None, noise: Noise | None) -> Tensor:
    """x (B, *event) with its NaN entries filled in: draws from what is known, or without `noise` the expected numbers and the
    most probable categories."""
    entries, D = family.entries, family.means.shape[1]
    numbers, onehots = entries.split(x)
    numbers, onehots = numbers.clone(), None if onehots is None else onehots.clone()
    if noise is not None:
        u = noise.uniform(1 + len(entries.blocks), dtype=torch.float64)
        normals = noise.normal(family.covariance.draws, dtype=torch.float64)
    J, K = family.means.shape[0], family.log_weights.shape[1]
    for part in parts(entries, family.inner(numbers), onehots, labels, K, J):
        if part.whole:
            continue
        conditional, components, _ = part.prepared(family.covariance, family.mixture(), family.noise)
        r = family.covariance.log_joint(part.numbers, part.onehots, components, "float64").softmax(dim=1)
        unknown = (~part.observed).nonzero()[:, 0]
        filled = torch.zeros(len(r), len(unknown), dtype=torch.float64)
        chosen = None if noise is None else chosen_category(r.cumsum(dim=1), u[part.rows, 0])
        for k in range(r.shape[1]) if len(unknown) else ():
            if chosen is None:
                filled += r[:, k, None] * conditional.mean(part.numbers, k)
            elif len(rows := (chosen == k).nonzero()[:, 0]):
                filled[rows] = conditional.draw(part.numbers[rows], k, normals[part.rows][rows])
        values = torch.empty(len(r), D, dtype=torch.float64)
        values[:, unknown] = filled * family.scale[unknown]
        if noise is not None:
            values = entries.gridded(values, family.anchor)
        numbers[part.rows[:, None], unknown] = values[:, unknown].to(numbers.dtype)
        for i, (first, last) in enumerate(entries.blocks):
            if onehots is not None and part.unknown[i]:
                p = family.logits[part.components, first:last].exp()
                which = (r @ p).argmax(dim=1) if chosen is None else \
                    chosen_category(p[chosen].cumsum(dim=1), u[part.rows, 1 + i])
                onehots[part.rows, first:last] = torch.nn.functional.one_hot(which, last - first).to(onehots.dtype)
    return entries.join(numbers, onehots)


def chosen_category(edges: Tensor, u: Tensor) -> Tensor:
    """The category that a uniform draw (B,) falls on, by cumulative probabilities (B, S); (B,) int64."""
    return (edges[:, :-1] < (u * edges[:, -1])[:, None]).sum(dim=1)
