"""Nearest neighbours of many records among many, exact, in blocks.

    |q - p|^2 = |q|^2 - 2 q.p + |p|^2

by a matrix product in float32 of centred records chooses CANDIDATES more than are asked for; these are measured again in
float64 by their difference, so that a copy lies at distance 0. Where the rounding of the product could hide a neighbour among
those left out, the query is asked again in float64. Memory: a block of BLOCK products, whatever the number of records.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Frame", "Neighbours", "nearest"]

QUERIES, POINTS = 1024, 16_384  # of a block
CANDIDATES = 8  # measured again, beyond those asked for
GATHERED = 1 << 22  # numbers measured again at a time
UNIT = 2.0 ** -24  # relative rounding of float32


@dataclass(frozen=True)
class Frame:
    """How distances are taken: between (x - mean) / scale, of records (N, D); mean and scale (D,)."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, records: np.ndarray, standardise: bool) -> "Frame":
        """The frame of records (N, D): scales of their deviations where they are standardised, of 1 otherwise."""
        mean = records.mean(axis=0, dtype=np.float64)
        spread = np.sqrt(sum(((records[i:i + POINTS] - mean) ** 2).sum(axis=0) for i in range(0, len(records), POINTS))
                         / len(records)) if standardise else np.ones_like(mean)
        return cls(mean, np.where(spread > 0, spread, 1.0))

    def __call__(self, records: np.ndarray) -> np.ndarray:
        """Records (N, D) in this frame, float64."""
        return (records - self.mean) / self.scale


@dataclass(frozen=True)
class Neighbours:
    """The nearest points of each query, nearest first: their places and distances (Q, k)."""

    index: np.ndarray
    distance: np.ndarray


def nearest(queries: np.ndarray, points: np.ndarray, k: int, frame: Frame, own: np.ndarray | None = None) -> Neighbours:
    """The k <= N nearest points (N, D) of each query (Q, D), by Euclidean distance in the frame; equal distances in order of
    place. own : the place (Q,) of each query among the points, which is then none of its neighbours."""
    Q, N = len(queries), len(points)
    asked = k + (own is not None)
    index, distance = np.empty((Q, k), dtype=np.int64), np.empty((Q, k))
    cloud = [torch.from_numpy(frame(points[i:i + POINTS]).astype(np.float32)) for i in range(0, N, POINTS)]
    squares = [block.double().square().sum(dim=1).float() for block in cloud]
    largest = max(float(s.max()) for s in squares)
    for first in range(0, Q, QUERIES):
        block = queries[first:first + QUERIES]
        exact = torch.from_numpy(frame(block))
        chosen, last = _candidates(exact.float(), cloud, squares, min(asked + CANDIDATES, N))
        places, apart = _measured(block, points, chosen, frame)
        error = (8 + 2 * exact.shape[1] ** 0.5) * UNIT * (exact.square().sum(dim=1).numpy() + largest)
        unsure = np.flatnonzero(apart[:, asked - 1] ** 2 + 2 * error >= last) if chosen.shape[1] < N else np.empty(0, np.int64)
        if len(unsure):
            places[unsure], apart[unsure] = _again(block[unsure], points, chosen.shape[1], frame)
        if own is not None:
            places, apart = _without(places, apart, own[first:first + QUERIES])
        index[first:first + QUERIES], distance[first:first + QUERIES] = places[:, :k], apart[:, :k]
    return Neighbours(index, distance)


def _candidates(q: Tensor, cloud: list[Tensor], squares: list[Tensor], count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` nearest points (Q, count) by the product, and the squared distance (Q,) of the last of them."""
    best, places, before = torch.empty(len(q), 0, dtype=q.dtype), torch.empty(len(q), 0, dtype=torch.int64), 0
    for p, p_squared in zip(cloud, squares, strict=True):
        apart = torch.addmm(p_squared, q, p.T, alpha=-2)
        values, index = apart.topk(min(count, len(p)), dim=1, largest=False)
        best, places = torch.cat([best, values], dim=1), torch.cat([places, index + before], dim=1)
        if best.shape[1] > count:
            best, kept = best.topk(count, dim=1, largest=False)
            places = places.gather(1, kept)
        before += len(p)
    last = best.double().amax(dim=1) + q.double().square().sum(dim=1)
    return places.numpy(), last.numpy()


def _again(queries: np.ndarray, points: np.ndarray, count: int, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """As `_candidates` and `_measured`, with the product in float64."""
    cloud = (torch.from_numpy(frame(points[i:i + POINTS])) for i in range(0, len(points), POINTS))
    q = torch.from_numpy(frame(queries))
    best, places, before = torch.empty(len(q), 0, dtype=q.dtype), torch.empty(len(q), 0, dtype=torch.int64), 0
    for p in cloud:
        found, last = _candidates(q, [p], [p.square().sum(dim=1)], min(count, len(p)))
        del last
        best = torch.cat([best, torch.from_numpy(_measured(queries, points, found + before, frame, sort=False)[1])], dim=1)
        places = torch.cat([places, torch.from_numpy(found + before)], dim=1)
        before += len(p)
    return _sorted(places.numpy(), best.numpy(), count)


def _measured(queries: np.ndarray, points: np.ndarray, places: np.ndarray, frame: Frame,
              sort: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Places (Q, C) of points and their distances from each query, by their difference in float64; nearest first."""
    Q, C = places.shape
    apart, step = np.empty((Q, C)), max(1, GATHERED // (C * queries.shape[1]))
    for i in range(0, Q, step):
        difference = (queries[i:i + step, None].astype(np.float64) - points[places[i:i + step]]) / frame.scale
        apart[i:i + step] = np.sqrt(np.einsum("qcd,qcd->qc", difference, difference))
    return _sorted(places, apart, C) if sort else (places, apart)


def _sorted(places: np.ndarray, apart: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` of each row in order of distance, then of place."""
    order = np.lexsort((places, apart), axis=1)[:, :count]
    return np.take_along_axis(places, order, axis=1), np.take_along_axis(apart, order, axis=1)


def _without(places: np.ndarray, apart: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row without its own place, or without its last where it is not there."""
    keep = places != own[:, None]
    keep[keep.all(axis=1), -1] = False
    shape = len(places), places.shape[1] - 1
    return places[keep].reshape(shape), apart[keep].reshape(shape)
