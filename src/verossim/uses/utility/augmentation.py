"""Ordinary augmentation: what costs nothing to try before a generative model, and what made records have to beat.

Pictures are shifted by up to 2 pixels (at most a 14th of a side), turned by up to 10 degrees and, if asked, flipped. Rows of
tables are drawn between a record and one of the 5 nearest of its class (SMOTE, Chawla et al., JAIR 2002), its categories taken
from one of the two, and numbers are given noise of a tenth of their deviation.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

__all__ = ["pictures", "rows"]

SHIFT, PART, DEGREES = 2.0, 14, 10.0
NEIGHBOURS, NOISE = 5, 0.1
BLOCK = 1024  # pictures turned at a time


def pictures(x: np.ndarray, rng: np.random.Generator, flips: bool) -> np.ndarray:
    """Pictures (N, C, H, W), each moved in its own way; what comes in from outside is like the border."""
    N, _, H, W = x.shape
    angle = torch.from_numpy(rng.uniform(-1, 1, N) * math.radians(DEGREES))
    shift = torch.from_numpy(rng.uniform(-1, 1, (N, 2)) * [2 * min(SHIFT, W / PART) / W, 2 * min(SHIFT, H / PART) / H])
    mirror = torch.from_numpy(np.where(rng.random(N) < 0.5, -1.0, 1.0) if flips else np.ones(N))
    cosine, sine = angle.cos(), angle.sin()
    theta = torch.stack([mirror * cosine, -sine * H / W, shift[:, 0], mirror * sine * W / H, cosine, shift[:, 1]], dim=1)
    out = np.empty_like(x)
    for first in range(0, N, BLOCK):
        here = slice(first, first + BLOCK)
        part = torch.from_numpy(np.ascontiguousarray(x[here]))
        grid = F.affine_grid(theta[here].to(part.dtype).view(-1, 2, 3), list(part.shape), align_corners=False)
        out[here] = F.grid_sample(part, grid, padding_mode="border", align_corners=False).numpy()
    return out


def rows(x: np.ndarray, y: np.ndarray, which: np.ndarray, simplexes: Sequence[tuple[int, int]],
         rng: np.random.Generator) -> np.ndarray:
    """A new row for each of the records numbered `which` (M,), of rows x (N, D) with classes y (N,). simplexes: slices of a row
    that are categories; all else are numbers of deviation 1."""
    near = _neighbours(x, y)
    other = x[near[which, rng.integers(0, near.shape[1], len(which))]]
    numbers = np.ones(x.shape[1], bool)
    out = x[which] + rng.random((len(which), 1)) * (other - x[which])
    out += NOISE * rng.standard_normal(out.shape)
    for first, last in sorted(set(simplexes)):
        from_other = rng.random((len(which), 1)) < 0.5
        out[:, first:last] = np.where(from_other, other[:, first:last], x[which, first:last])
        numbers[first:last] = False
    still = numbers & (x.std(axis=0) == 0)  # what never varies is no measure
    out[:, still] = x[which][:, still]
    return out.astype(x.dtype)


def _neighbours(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The numbers (N, 5) of the nearest other records of the same class; where there are fewer, these again, or itself."""
    from sklearn.neighbors import NearestNeighbors
    near = np.empty((len(x), NEIGHBOURS), np.int64)
    for c in np.unique(y):
        own = np.flatnonzero(y == c)
        k = min(NEIGHBOURS, len(own) - 1)
        if k == 0:
            near[own] = own[:, None]
            continue
        found = NearestNeighbors(n_neighbors=k).fit(x[own]).kneighbors(return_distance=False)
        near[own] = own[found[:, np.arange(NEIGHBOURS) % k]]
    return near
