"""Principal components of pixels or of columns: the directions along which the reference varies most.

    x = mean + sum_k z_k a_k,    z = A (x - mean)

A holds the eigenvectors of the reference's covariance with the largest eigenvalues (Jolliffe, "Principal component analysis",
2002). Where there are fewer records than features they are found from the Gram matrix. The largest entry of each is positive,
so that equal records give equal bytes.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from ..config import knob
from ..errors import BadData
from ..spaces import Records
from . import Features, blocks, hash_of, modality_of
from .columns import Columns
from .pixels import Pixels

__all__ = ["MEMBER", "Principal", "PrincipalConfig", "plain_of"]

BLOCK = 4096  # records at a time


@dataclass(frozen=True, kw_only=True)
class PrincipalConfig:
    """Settings of principal components."""

    components: int = knob(64, "directions, at most as many as the reference varies along", low=1, high=4096)
    whiten: bool = knob(False, "every direction scaled to deviation 1")
    size: int = knob(32, "most pixels of the longer side, of pictures", low=1, high=128)
    records: int = knob(10_000, "records of the reference that they are fitted on, evenly spaced", low=2, high=1_000_000)


class Principal(Features):
    """z = A (x - mean), (N, K) float64, the direction of most variance first."""

    Config = PrincipalConfig
    modalities = ("image", "table")
    learns = True

    def fit(self, records: Records, labels: np.ndarray | None = None, seed: int = 0) -> "Principal":
        """Finds mean and directions. Raises as pixels or columns do, and BadData DATA_CONSTANT where records are all one."""
        self.inner = plain_of(records, self.modalities, "principal", self.config.size).fit(records)
        self.resize = self.inner.resize
        n = min(len(records), self.config.records)
        rows = np.linspace(0, len(records) - 1, n).round().astype(int)
        x = self.inner(records if n == len(records) else records.take(rows.tolist()))
        self.mean = x.mean(axis=0)
        x -= self.mean
        values, A = _directions(x, min(self.config.components, *x.shape), float(np.linalg.norm(self.mean)))
        if not len(values):
            raise BadData("DATA_CONSTANT", f"{records.origin}: all {n:,} records are the same, so they vary along no "
                          "direction.", "Give more records, or use the features pixels or columns.")
        signs = np.sign(A[np.arange(len(A)), np.abs(A).argmax(axis=1)])
        scales = np.sqrt(values) if self.config.whiten else np.ones(len(values))
        self.A = A * (signs / scales)[:, None]
        return self

    def __call__(self, records: Records) -> np.ndarray:
        """(N, K) float64."""
        modality_of(records, self.modalities, "principal")
        return np.concatenate([(self.inner(block) - self.mean) @ self.A.T for block in blocks(records, BLOCK)])

    @property
    def hash(self) -> str:
        """Of the inner features, mean and directions."""
        return hash_of("principal", self.inner.hash, self.mean, self.A)


def plain_of(records: Records, reads: tuple[str, ...], name: str, size: int) -> Features:
    """The features without learning that the records have: pixels of at most `size` a side, or columns."""
    if modality_of(records, reads, name) == "image":
        return Pixels(Pixels.Config(size=size))
    return Columns()


def _directions(x: np.ndarray, most: int, away: float) -> tuple[np.ndarray, np.ndarray]:
    """Variances (K,), falling, and directions (K, D) of records (n, D) less their mean, which was `away` from zero; directions
    of rounding alone are left out."""
    n, D = x.shape
    rounding = np.finfo(float).eps
    square = (x.T @ x if n >= D else x @ x.T) / max(n - 1, 1)
    values, vectors = scipy.linalg.eigh(square, subset_by_index=[len(square) - most, len(square) - 1])
    values, A = values[::-1], vectors[:, ::-1].T
    real = values > max(max(n, D) * rounding * values[0], (8 * rounding * away) ** 2)
    values, A = values[real], A[real]
    if n < D:
        A = A @ x
        A /= np.linalg.norm(A, axis=1, keepdims=True)
    return values, A


MEMBER = Principal
