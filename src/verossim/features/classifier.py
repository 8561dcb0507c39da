"""Features that a small classifier learns from the reference's own classes: what tells these apart, and nothing else.

    p(y | x) = softmax(V h(x)),    features h(x), the last layer but one

Trained on nine tenths of the reference by AdamW (Loshchilov and Hutter, arXiv:1711.05101) with a rate that rises over the
first tenth and falls as a cosine; the last tenth says how often it names a class rightly. The budget is counted in records, so
equal records, classes and seed give equal weights, on one machine with one number of threads. What a distance
between such features sees depends on the classes: what does not tell these apart may pass unseen (Kynkaanniemi et al., "The
role of ImageNet classes in Frechet inception distance", arXiv:2203.06026).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import knob
from ..errors import BadData, Incompatible
from ..nn.layers import conv, norm
from ..seeds import check_seed, reseed, untouched
from ..spaces import Records
from . import Features, blocks, hash_of, modality_of
from .pixels import Pixels
from .principal import plain_of

__all__ = ["MEMBER", "Classifier", "ClassifierConfig"]

FEATURES = 128
CHANNELS = 16, 32, 64
COARSEST = 4  # pictures are halved while a side is longer
BATCH, BLOCK = 128, 2048  # records of a step, and of what is not learned from
RATE, DECAY = 3e-3, 0.01
PASSES = 40  # over the records, at most


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Settings of the classifier."""

    samples: int = knob(200_000, "records learned from in all; each at most 40 times", low=100, high=100_000_000)
    records: int = knob(60_000, "records of the reference learned from, evenly spaced", low=4, high=10_000_000)
    size: int = knob(32, "most pixels of the longer side, of pictures", low=4, high=64)


class Classifier(Features):
    """h(x), (N, 128) float64. accuracy: of the classes of `held_out` records that it has not learned from."""

    Config = ClassifierConfig
    modalities = ("image", "table")
    learns = True
    supervised = True
    accuracy: float
    held_out: int

    def fit(self, records: Records, labels: np.ndarray | None = None, seed: int = 0) -> "Classifier":
        """Learns the classes `labels` (N,), those below 0 left out.

        Raises Incompatible FEATURES_LABELS without labels, BadData LABEL_SINGLE for fewer than two classes, DATA_TOO_FEW for
        fewer than four labelled records; as pixels or columns do; BadConfig SEED_RANGE.
        """
        check_seed(seed)
        modality_of(records, self.modalities, "classifier")
        rows, y, classes = self._labelled(labels, len(records))
        self.inner = plain_of(records, self.modalities, "classifier", self.config.size).fit(records)
        self.resize = self.inner.resize
        known = records if len(rows) == len(records) else records.take(rows.tolist())
        x = torch.cat([self._entries(block) for block in blocks(known, BLOCK)])
        with untouched():
            reseed(seed, 0, 0)
            order = torch.randperm(len(x))
            held, learned = order[:max(1, len(x) // 10)], order[max(1, len(x) // 10):]
            self.network = _network(self.inner.shape if isinstance(self.inner, Pixels) else (x.shape[1],))
            last = nn.Linear(FEATURES, classes)
            self._learn(x, y, learned, last)
        with torch.no_grad():
            named = torch.cat([last(self.network(x[part])).argmax(dim=1) for part in held.split(BLOCK)])
        right = (named == y[held]).double().mean()
        most = y[held].bincount().max() / len(held)
        self.accuracy, self.held_out = float(right), len(held)
        self.notes = (f"The classifier names {right:.1%} of {len(held):,} held-out records of the reference rightly, of "
                      f"{classes} classes; {most:.1%} are of the commonest.",)
        return self

    def _labelled(self, labels: np.ndarray | None, records: int) -> tuple[np.ndarray, Tensor, int]:
        """The numbers of the records learned from, their classes from 0 (n,) int64, and how many classes there are."""
        if labels is None or len(labels) != records or not (np.asarray(labels) >= 0).any():
            raise Incompatible("FEATURES_LABELS", "The features 'classifier' learn from classes, and these records have none.",
                               "Say which column is the label, or use the features principal.")
        labels = np.asarray(labels)
        rows = np.flatnonzero(labels >= 0)
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), self.config.records)).round().astype(int)]
        if len(rows) < 4:
            raise BadData("DATA_TOO_FEW", f"Only {len(rows)} records have a class; a classifier needs at least 4.",
                          "Use the features principal.")
        names, y = np.unique(labels[rows], return_inverse=True)
        if len(names) < 2:
            raise BadData("LABEL_SINGLE", f"All {len(rows):,} records are of one class.", "Use the features principal.")
        return rows, torch.from_numpy(y.astype(np.int64)), len(names)

    def _entries(self, records: Records) -> Tensor:
        """(N, D) float32."""
        return torch.from_numpy(self.inner(records).astype(np.float32))

    def _learn(self, x: Tensor, y: Tensor, rows: Tensor, last: nn.Module) -> None:
        steps = math.ceil(min(self.config.samples, PASSES * len(rows)) / BATCH)
        optimizer = torch.optim.AdamW([*self.network.parameters(), *last.parameters()], lr=RATE, weight_decay=DECAY)
        queue = rows[:0]
        for step in range(steps):
            while len(queue) < min(BATCH, len(rows)):
                queue = torch.cat([queue, rows[torch.randperm(len(rows))]])
            part, queue = queue[:BATCH], queue[BATCH:]
            t = (step + 1) / steps
            optimizer.param_groups[0]["lr"] = RATE * min(1.0, 10 * t) * (1 + math.cos(math.pi * t)) / 2
            optimizer.zero_grad()
            F.cross_entropy(last(self.network(x[part])), y[part]).backward()
            optimizer.step()
        self.network.requires_grad_(False)

    def __call__(self, records: Records) -> np.ndarray:
        """(N, 128) float64."""
        modality_of(records, self.modalities, "classifier")
        return np.concatenate([self.network(self._entries(block)).double().numpy() for block in blocks(records, BLOCK)])

    @property
    def hash(self) -> str:
        """Of the inner features and the weights."""
        return hash_of("classifier", self.inner.hash, [p.numpy() for p in self.network.state_dict().values()])


def _network(shape: tuple[int, ...]) -> nn.Sequential:
    """Vectors (B, D), of pictures (H, W, C) or of rows (D,), to h (B, 128)."""
    if len(shape) == 1:
        return nn.Sequential(nn.Linear(*shape, FEATURES), nn.ReLU(), nn.Linear(FEATURES, FEATURES), nn.ReLU())
    H, W, C = shape
    layers: list[nn.Module] = [_Planes(shape)]
    for out in CHANNELS:
        layers += [conv(2, C, out), norm(out), nn.ReLU()]
        C = out
        if max(H, W) > COARSEST:
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            H, W = -(-H // 2), -(-W // 2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(C * H * W, FEATURES), nn.ReLU())


class _Planes(nn.Module):
    """Pixels (B, H W C) in [0, 1] to planes (B, C, H, W) in [-1, 1]."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return (2 * x - 1).unflatten(1, self.shape).permute(0, 3, 1, 2).contiguous()


MEMBER = Classifier
