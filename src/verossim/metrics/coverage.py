"""Whether what was made lies among the real records, and whether it reaches all of them.

A ball about a record reaches to its k-th nearest neighbour in its own set. Precision is the share of made records in a ball of
a real one, recall the share of real records in a ball of a made one (Kynkaanniemi et al., arXiv:1904.06991); density counts the
balls of real ones about a made one, over k; coverage is the share of real balls with a made record inside (Naeem et al.,
arXiv:2002.09797).

Distances come from products of matrices in float32, a block at a time; where their rounding could decide, from differences in
float64, so that all counts are those of exact distances. A record on the edge of a ball is outside.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..config import knob
from ..errors import BadData
from ..intervals import Interval, of_mean
from . import Metric, Quantity, Sample

__all__ = ["MEMBER", "Coverage", "CoverageConfig", "Inside", "design_effect", "inside", "radii", "reference"]

ENTRIES = 1 << 23  # distances of a block
GROUP = 64  # distances that are asked for their least together
SPARE = 3  # neighbours looked at exactly beyond the k-th
SEVERAL, HALVINGS = 1000, 100  # real records, and their halvings, that the design effect is of
DOUBTFUL = 1 / 64  # share of a block in doubt from which it is computed anew in float64
NORMAL_95 = 1.959963984540054  # 97.5 % of a standard normal lie below
REFERENCE = "the real set is taken as given: with other real records all balls would be others; "


@dataclass(frozen=True, kw_only=True)
class CoverageConfig:
    """Settings of precision, recall, density and coverage."""

    neighbours: int = knob(5, "which nearest neighbour a record's ball reaches to", low=1, high=1000)


@dataclass(frozen=True)
class Inside:
    """Of real records (N,): whether they lie in a ball of a made one, and whether their own holds one. Of made records (M,):
    in how many balls of real ones they lie."""

    reached: np.ndarray
    covered: np.ndarray
    balls: np.ndarray


class Coverage(Metric):
    """Precision, recall, density and coverage by k-th nearest neighbours.

    Intervals: Wilson's of a share, and Student's t for the density, over made records (precision, density) or over real ones
    (recall, coverage), for the mean over more such records with the other set as it is. Of coverage, real records also make
    each other's balls smaller and so are not independent: their number is divided by the design effect (Kish, 1965)."""

    Config = CoverageConfig
    gives = (
        Quantity("precision", "higher", "share of made records that lie among real ones",
                 REFERENCE + "one far-off real record makes a large ball; copying"),
        Quantity("recall", "higher", "share of real records that lie among made ones",
                 "the made set is taken as given; made records strewn widely have large balls"),
        Quantity("density", "higher", "how many balls of real records a made one lies in, over k; near 1 where nothing differs",
                 REFERENCE + "it goes above 1 where made records crowd in the middle; copying"),
        Quantity("coverage", "higher", "share of real records that have a made one as near as their own k-th neighbour",
                 REFERENCE + "the made set too, so it goes up with the number made; copying"),
    )

    def compare(self, real: Sample, made: Sample, rng: np.random.Generator) -> dict[str, Interval]:
        """All four. Raises BadData METRIC_FEW where a side has no more records than `neighbours`."""
        k = self.config.neighbours
        found, effect = inside(real.vectors, made.vectors, k), design_effect(real.vectors, made.vectors, k, rng)
        return {"precision": _share(found.balls > 0), "recall": _share(found.reached),
                "density": of_mean(found.balls / k), "coverage": _share(found.covered, effect)}


@dataclass(frozen=True)
class Points:
    """Records (N, D) of one scale, in float64; about one middle (D,), in float32, and then |x|^2 (N,) in float64."""

    exact: Tensor
    middle: Tensor
    quick: Tensor
    norms: Tensor

    def __len__(self) -> int:
        return len(self.exact)


def inside(real: np.ndarray, made: np.ndarray, neighbours: int = 5) -> Inside:
    """Who lies in whose ball, of features (N, D) and (M, D). Raises BadData METRIC_FEW."""
    x, y = _points(real, made)
    around_x, around_y = radii(x, neighbours), radii(y, neighbours)
    reached, covered = (torch.zeros(len(x), dtype=torch.bool) for _ in range(2))
    balls = torch.zeros(len(y), dtype=torch.int64)
    for rows in _blocks(len(x), len(y)):
        at = torch.arange(rows.start, rows.stop)
        squares, slack = _squares(x, at, y, torch.float32)
        i, j = _below(squares, slack, around_x[rows, None], x, at, y).T
        covered[at[i]] = True
        balls += j.bincount(minlength=len(y))
        i, _ = _below(squares, slack, around_y[None], x, at, y).T
        reached[at[i]] = True
    return Inside(reached.numpy(), covered.numpy(), balls.double().numpy())


fast = inside


def reference(real: np.ndarray, made: np.ndarray, neighbours: int = 5) -> Inside:
    """The same as `inside`, with all distances at once."""
    x, y = (torch.from_numpy(np.asarray(side, np.float64)) for side in (real, made))

    def distances(a: Tensor, b: Tensor) -> Tensor:
        return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    around_x, around_y = (distances(a, a).kthvalue(neighbours + 1, dim=1).values for a in (x, y))
    d = distances(x, y)
    balls = (d < around_x[:, None]).sum(dim=0).double()
    return Inside((d < around_y).any(dim=1).numpy(), (d < around_x[:, None]).any(dim=1).numpy(), balls.numpy())


def design_effect(real: np.ndarray, made: np.ndarray, neighbours: int, rng: np.random.Generator) -> float:
    """The variance of the coverage over that of as many independent records; 1 where it is the same.

    The coverages a, b of two halves of the real records are independent, so that the mean of (a - b)^2 / 2 over HALVINGS is the
    variance of a half's; of at most SEVERAL records, as the effect is a local one, and of made records in proportion to a half,
    as it goes with their number for a real one. A record of a half is covered where fewer than k others of its half are nearer
    than the nearest made record.
    """
    some = real if len(real) <= SEVERAL else real[np.sort(rng.choice(len(real), SEVERAL, replace=False))]
    few = max(1, round(len(made) * (len(some) // 2) / len(real)))
    x, y = _points(some, made[np.sort(rng.choice(len(made), few, replace=False))])
    n, every = len(x), torch.arange(len(x))
    nearest = torch.cat([_squares(x, every[rows], y, torch.float64)[0].amin(dim=1) for rows in _blocks(n, len(y))])
    nearer = (_squares(x, every, x, torch.float64)[0] < nearest[:, None]).double().fill_diagonal_(0)
    first = torch.from_numpy(np.stack([rng.permutation(n) < n // 2 for _ in range(HALVINGS)], axis=1)).double()
    shares = [((nearer @ half < neighbours) * half).sum(dim=0) / half.sum(dim=0) for half in (first, 1 - first)]
    alone = sum(float((p * (1 - p)).mean()) for p in shares) / n    # of n / 2 independent ones
    return float((shares[0] - shares[1]).square().mean() / 2) / alone if alone > 0 else 1.0


def radii(x: Points, neighbours: int) -> Tensor:
    """Squared distances (N,) float64 to the k-th nearest other record. Raises BadData METRIC_FEW."""
    k, N = neighbours, len(x)
    if k >= N:
        raise BadData("METRIC_FEW", f"'neighbours' is {k}, and one side has but {N} records.", "Use fewer neighbours, or more "
                      "records.")
    found = []
    for rows in _blocks(N, N):
        radius, doubtful = _kth(x, rows, k, torch.float32)
        if len(doubtful) > DOUBTFUL * len(radius):
            radius, _ = _kth(x, rows, k, torch.float64)
        else:
            for row in doubtful:
                squares = (x.exact - x.exact[rows.start + row]).square().sum(dim=1)
                radius[row] = squares.kthvalue(k + 1).values    # itself among them, at 0
        found.append(radius)
    return torch.cat(found)


def _kth(x: Points, rows: slice, k: int, dtype: torch.dtype) -> tuple[Tensor, list[int]]:
    """Squared distances (B,) of rows to the k-th nearest, exact among the k + SPARE that look nearest by products in `dtype`;
    and the rows of the block where one that was not looked at could be nearer."""
    at = torch.arange(rows.start, rows.stop)
    squares, slack = _squares(x, at, x, dtype)
    squares.diagonal(rows.start).fill_(torch.inf)
    near, which = _smallest(squares, min(k + SPARE, len(x) - 1))
    true = _exact(x, at[:, None].expand_as(which).reshape(-1), x, which.reshape(-1)).view_as(which)
    radius = true.kthvalue(k, dim=1).values
    if near.shape[1] == len(x) - 1:
        return radius, []
    return radius, (near[:, -1] - slack[:, 0] <= radius).nonzero()[:, 0].tolist()


def _points(real: np.ndarray, made: np.ndarray) -> tuple[Points, Points]:
    x, y = (torch.from_numpy(np.asarray(side, np.float64)) for side in (real, made))
    greatest = max(float(x.abs().amax()), float(y.abs().amax()))
    scale = 2.0 ** -math.frexp(greatest)[1]    # a power of two, which rounds nothing, so that squares stay within float32
    x, y = x * scale, y * scale
    middle = x.mean(dim=0)
    return tuple(Points(side, middle, (side - middle).float(), (side - middle).square().sum(dim=1))
                 for side in (x, y))  # type: ignore[return-value]


def _blocks(N: int, M: int) -> Iterator[slice]:
    """Rows of blocks with at most ENTRIES distances."""
    for first, last in pairwise([*range(0, N, max(1, ENTRIES // M)), N]):
        yield slice(first, last)


def _squares(x: Points, rows: Tensor, y: Points, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Squared distances (B, M) of rows of x to y, and by how much rounding may have moved them, (B, 1): D products are added
    up, each rounded (Higham, Accuracy and Stability, 2002, section 3.1)."""
    a, b = (x.quick[rows], y.quick) if dtype == torch.float32 else (x.exact[rows] - x.middle, y.exact - y.middle)
    squares = torch.addmm(y.norms.to(dtype), a, b.T, alpha=-2).add_(x.norms[rows, None].to(dtype))
    far, mine = float(y.norms.amax()) ** 0.5, x.norms[rows, None].sqrt()
    slack = torch.finfo(dtype).eps * (2 * (a.shape[1] + 4) * mine * far + 4 * (mine.square() + far ** 2))
    return squares, slack


def _exact(x: Points, i: Tensor, y: Points, j: Tensor) -> Tensor:
    """Squared distances of pairs (P,), by differences in float64."""
    some = max(1, (1 << 20) // x.exact.shape[1])
    parts = [(x.exact[p] - y.exact[q]).square().sum(dim=1) for p, q in zip(i.split(some), j.split(some), strict=True)]
    return torch.cat(parts) if parts else x.norms[:0]


def _below(squares: Tensor, slack: Tensor, limit: Tensor, x: Points, rows: Tensor, y: Points) -> Tensor:
    """Where squared distances (B, M) are below limits, (B, 1) or (1, M): pairs (P, 2) of a row of the block and a record."""
    pairs = (squares < (limit + slack).to(squares.dtype)).nonzero()
    i, j = pairs.T
    limits = limit.expand_as(squares)[i, j]
    sure = squares[i, j].double() < limits - slack[i, 0]
    doubtful = (~sure).nonzero()[:, 0]
    if len(doubtful) > DOUBTFUL * squares.numel():
        squares, slack = _squares(x, rows, y, torch.float64)
        return (squares < limit - slack).nonzero()    # within rounding of the edge is on the edge
    sure[doubtful] = _exact(x, rows[i[doubtful]], y, j[doubtful]) < limits[doubtful]
    return pairs[sure]


def _smallest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k least of each row (B, M), in order, and where they are: none lies outside of the k groups with the least leasts."""
    B, M = values.shape
    groups = M // GROUP
    if groups <= 4 * k:
        least = values.topk(k, dim=1, largest=False)
        return least.values, least.indices
    whole = groups * GROUP
    chosen = values[:, :whole].unflatten(1, (groups, GROUP)).amin(dim=2).topk(k, dim=1, largest=False).indices
    where = (chosen[:, :, None] * GROUP + torch.arange(GROUP)).reshape(B, -1)
    where = torch.cat([where, torch.arange(whole, M).expand(B, -1)], dim=1)
    least = values.gather(1, where).topk(k, dim=1, largest=False)
    return least.values, where.gather(1, least.indices)


def _share(hits: np.ndarray, effect: float = 1.0) -> Interval:
    """The share of true ones (n,), with the interval of Wilson (JASA 1927), of n / effect records."""
    n, p, z = len(hits) / effect if effect > 0 else len(hits), float(np.mean(hits)), NORMAL_95
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * (p * (1 - p) / n + (z / (2 * n)) ** 2) ** 0.5
    return Interval(p, min(p, middle - reach), max(p, middle + reach))


MEMBER = Coverage
