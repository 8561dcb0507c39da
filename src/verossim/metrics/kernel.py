"""The kernel distance: the squared maximum mean discrepancy of two sets of features, unbiased (Gretton et al., JMLR 13, 2012,
eq. 3), for a kernel k:

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

"kernel" has k(x, y) = (x.y / D + 1)^3 (Binkowski et al., arXiv:1801.01401), which is called KID where the features are those of
one Inception network. "mmd" has k(x, y) = exp(-|x - y|^2 / (2 s^2)), s the median distance between real records, so that all
that is measured against these is measured by one kernel.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..config import knob
from ..intervals import Interval, p_value
from . import Metric, Quantity, Sample, comparable

__all__ = ["MEMBER", "Kernel", "KernelConfig", "gaussian", "kernel_distance", "median_distance", "polynomial"]

ROWS = 1024  # records of a block
AT_ONCE = 64  # permutations of a matrix product
NORMAL_95 = 1.959963984540054  # 97.5 % of a standard normal lie below
FOR_MEDIAN = 1000  # real records whose distances the median is of

Kind = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class KernelConfig:
    """Settings of the kernel distance."""

    permutations: int = knob(200, "relabellings of the records that the p-value counts; 0: no p-value", low=0, high=100_000)
    records: int = knob(2000, "most records of each side that are relabelled", low=2, high=20_000)
    most: int = knob(10_000, "most records of each side that the distance is of; its time goes with the square", low=2)


class Kernel(Metric):
    """MMD^2 by the polynomial kernel of KID, and by a Gaussian one.

    Its interval is for the MMD^2 of the two distributions, t, the kernel as it is: where (MMD^2 - t)^2 < 1.96^2 (s t + V2), by
    the variance of a statistic of pairs (Serfling, 1980, section 5.2): V2, of the second order, is that of the centred kernel;
    s MMD^2, of the first, that of the records' mean kernels, which vanishes where the distributions are one. Its p-value is the
    share of relabellings that give at least as much, of at most `records` records of each side."""

    Config = KernelConfig
    gives = (
        Quantity("kernel", "lower", "how far mean, covariance and third moments of the features are apart; near 0, and also "
                 "below, where nothing differs", "what the first three moments do not show; copying"),
        Quantity("mmd", "lower", "how far the distributions are apart at the scale of the median distance; near 0, and also "
                 "below, where nothing differs", "what is much finer than the median distance; copying"),
    )

    def compare(self, real: Sample, made: Sample, rng: np.random.Generator) -> dict[str, Interval]:
        """Both distances, with p-values."""
        sides = [_some(side, self.config.most, rng) for side in (real.vectors, made.vectors)]
        kinds = {"kernel": polynomial, "mmd": gaussian(median_distance(real.vectors))}
        few = [_tensor(_some(side, self.config.records, rng)) for side in sides]
        n, total = len(few[0]), len(few[0]) + len(few[1])
        orders = np.stack([rng.permutation(total) < n for _ in range(self.config.permutations)] or [np.arange(total) < n])
        found = {}
        for name, k in kinds.items():
            value, biased, V1, V2 = _distance(sides[0], sides[1], k)
            chance = 0.1 * max(biased - value, 0.0)  # of what the biased value has where nothing differs
            s = max((V1 - 2 * V2) / (max(value, math.sqrt(V2), chance) or 1.0), V1 / (max(biased, chance) or 1.0), 0.0)
            p = _permuted(k, few[0], few[1], orders) if self.config.permutations else None
            low, high = _ends(value, s, V2)
            found[name] = Interval(value, min(value, low), max(value, high), p)
        return found

    def notes(self, real: Sample, made: Sample) -> list[str]:
        """What was left out, where something was."""
        most, fewer = self.config.most, max(len(real), len(made)) > self.config.most
        return [f"The kernel distance is of {most:,} records of each side, drawn by the seed."] if fewer else []


def polynomial(x: Tensor, y: Tensor) -> Tensor:
    """(x.y / D + 1)^3, (N, M)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian(width: float) -> Kind:
    """The kernel exp(-|x - y|^2 / (2 width^2)), (N, M)."""
    def k(x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-_squares(x, y) / (2 * width ** 2))
    return k


def median_distance(x: np.ndarray) -> float:
    """Of pairs of records (N, D), FOR_MEDIAN of them at equal steps; where most are equal, the median of those that are not; 1
    where all are."""
    some = _tensor(x[np.unique(np.linspace(0, len(x) - 1, min(len(x), FOR_MEDIAN)).astype(int))])
    apart = _squares(some, some)[tuple(torch.triu_indices(len(some), len(some), 1))]
    apart = apart if bool(apart.median() > 0) else apart[apart > 0]
    return float(apart.median().sqrt()) if apart.numel() else 1.0


def kernel_distance(real: np.ndarray, made: np.ndarray, kernel: Kind = polynomial) -> float:
    """The unbiased MMD^2 of features (N, D) and (M, D). Raises Incompatible METRIC_SHAPE, BadData METRIC_FEW."""
    comparable("The kernel distance", real, made)
    return _distance(real, made, kernel)[0]


def _some(x: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    return x if len(x) <= most else x[np.sort(rng.choice(len(x), most, replace=False))]


def _tensor(x: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(x, np.float64))


def _squares(x: Tensor, y: Tensor) -> Tensor:
    """|x - y|^2, (N, M)."""
    return torch.addmm(x.square().sum(dim=1)[:, None] + y.square().sum(dim=1), x, y.T, alpha=-2).clamp(min=0)


def _blocks(n: int) -> Iterator[tuple[int, int]]:
    return pairwise([*range(0, n, ROWS), n])


def _sums(x: np.ndarray, y: np.ndarray, k: Kind, same: bool) -> tuple[Tensor, Tensor, float, float]:
    """Sums of k over the others, (N,) and (M,), and the sum of k^2; without a record with itself where x is y, whose lower
    blocks are the upper ones; and the sum of k of these with themselves."""
    rows, columns = torch.zeros(len(x), dtype=torch.float64), torch.zeros(len(y), dtype=torch.float64)
    squares = alone = 0.0
    for a, b in _blocks(len(x)):
        block = _tensor(x[a:b])
        for c, d in _blocks(len(y)):
            if same and c < a:
                continue
            K = k(block, _tensor(y[c:d]))
            if same and a == c:
                alone += float(K.diagonal().sum())
                K.fill_diagonal_(0)
            rows[a:b] += K.sum(dim=1)
            twice = same and a != c
            columns[c:d] += K.sum(dim=0)
            if twice:
                rows[c:d] += K.sum(dim=0)
            squares += float(K.square().sum()) * (2 if twice else 1)
    return rows, columns, squares, alone


def _ends(value: float, s: float, V2: float) -> tuple[float, float]:
    """The t where (value - t)^2 < z^2 (s t + V2)."""
    z = NORMAL_95
    reach = z * math.sqrt(max(s * value + (z * s / 2) ** 2 + V2, 0.0))
    return value + z * z * s / 2 - reach, value + z * z * s / 2 + reach


def _distance(x: np.ndarray, y: np.ndarray, k: Kind) -> tuple[float, float, float, float]:
    """MMD^2, the same with each record's kernel with itself (which is never below 0), and the two parts of its variance.

    V1 = var_i 2 (mean_j k(x_i, x_j) - mean_j k(x_i, y_j)) / N + the same of y, too high by 2 V2;
    V2 = 2 var k'(x, x') / (N (N - 1)) + 2 var k'(y, y') / (M (M - 1)) + 4 var k'(x, y) / (N M), k' the centred kernel
    """
    N, M = len(x), len(y)
    xx, _, xx2, x_alone = _sums(x, x, k, True)
    yy, _, yy2, y_alone = _sums(y, y, k, True)
    xy, yx, xy2, _ = _sums(x, y, k, False)
    a, b, c, d = xx / (N - 1), yy / (M - 1), xy / M, yx / N
    value = float(a.mean() + b.mean() - 2 * c.mean())
    biased = value + (x_alone / N - float(a.mean())) / N + (y_alone / M - float(b.mean())) / M
    V1 = float((2 * (a - c)).var()) / N + float((2 * (b - d)).var()) / M
    within_x = xx2 / (N * (N - 1)) - 2 * float(a.square().mean()) + float(a.mean()) ** 2
    within_y = yy2 / (M * (M - 1)) - 2 * float(b.square().mean()) + float(b.mean()) ** 2
    between = xy2 / (N * M) - float(c.square().mean() + d.square().mean()) + float(c.mean()) ** 2
    V2 = 2 * max(within_x, 0) / (N * (N - 1)) + 2 * max(within_y, 0) / (M * (M - 1)) + 4 * max(between, 0) / (N * M)
    return value, biased, V1, V2


def _permuted(k: Kind, x: Tensor, y: Tensor, orders: np.ndarray) -> float:
    """The p-value by relabellings (P, N + M), true for the records of the first side."""
    n, m = len(x), len(y)
    both = torch.cat([x, y])
    K = torch.cat([k(both[a:b], both) for a, b in _blocks(n + m)]).fill_diagonal_(0)
    sums = K.sum(dim=1)
    first = torch.cat([torch.arange(n + m)[None] < n, torch.from_numpy(orders)]).double()
    inside = torch.cat([((z @ K) * z).sum(dim=1) for z in first.split(AT_ONCE)])    # sums over pairs of the first side
    between = first @ sums - inside
    outside = sums.sum() - inside - 2 * between
    found = (inside / (n * (n - 1)) + outside / (m * (m - 1)) - 2 * between / (n * m)).numpy()
    return p_value(found[0] - 1e-12 * abs(found[0]), found[1:])


MEMBER = Kernel
