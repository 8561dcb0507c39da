"""The classifiers by which records are judged: of scikit-learn for rows, a small convolution network for pictures.

Whatever they learn from, they are the same: settings, seed, and what they spend. They learn from rows whose weights are all one
number, so that the sum of losses weighs as much against the penalty as it would for the real records alone.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...seeds import reseed, untouched

__all__ = ["KINDS", "Predict", "chosen", "learned"]

KINDS = ("logistic", "trees", "network")
Predict = Callable[[np.ndarray], np.ndarray]  # records (N, *event) -> classes (N,)
FOLDS, MOST = 3, 2000  # folds, and records, by which a classifier is chosen
BATCH, RATE, DECAY = 64, 3e-3, 1e-4
LAYERS = ((16, 2), (32, 2), (64, 1))  # channels and stride


def learned(kind: str, x: np.ndarray, y: np.ndarray, classes: int, weight: float, seed: int, steps: int) -> Predict:
    """A classifier of the `kind` that has learned from records x (N, *event) of classes y (N,), each of the `weight`; steps: of
    the network."""
    if kind == "network":
        return _network(x, y, classes, seed, steps)
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    estimator = (LogisticRegression(max_iter=2000) if kind == "logistic" else
                 HistGradientBoostingClassifier(early_stopping=False, random_state=seed & 0xFFFFFFFF))
    estimator.fit(_flat(x), y, sample_weight=np.full(len(x), weight))
    return lambda new: estimator.predict(_flat(new))


def chosen(x: np.ndarray, y: np.ndarray, classes: int, seed: int) -> str:
    """Which does better on real rows x (N, D), by cross-validation: "logistic" or "trees". Test records have no say."""
    from sklearn.model_selection import StratifiedKFold
    rows = np.random.default_rng(seed).permutation(len(x))[:MOST]
    x, y = x[rows], y[rows]
    fewest = int(np.bincount(y, minlength=classes).min())
    if fewest < 2:
        return "logistic"
    right = dict.fromkeys(("logistic", "trees"), 0)
    for train, test in StratifiedKFold(min(FOLDS, fewest), shuffle=True, random_state=seed & 0xFFFFFFFF).split(x, y):
        for kind in right:
            right[kind] += int((learned(kind, x[train], y[train], classes, 1.0, seed, 0)(x[test]) == y[test]).sum())
    return max(right, key=lambda kind: right[kind])


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1).astype(np.float64)


def _network(x: np.ndarray, y: np.ndarray, classes: int, seed: int, steps: int) -> Predict:
    """Three convolutions, a mean over each quarter and a linear map, by AdamW with a rate that falls to 0."""
    points, targets = torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y)
    with untouched():
        reseed(seed, 0, 0)
        layers: list[nn.Module] = []
        inner = points.shape[1]
        for channels, stride in LAYERS:
            layers += [nn.Conv2d(inner, channels, 3, stride=stride, padding=1), nn.GroupNorm(4, channels), nn.ReLU()]
            inner = channels
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * inner, classes))
        optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        passes = -(-steps * BATCH // len(points))
        order = torch.cat([torch.randperm(len(points)) for _ in range(passes)])
        for rows in order[:steps * BATCH].view(steps, BATCH):
            optimizer.zero_grad()
            F.cross_entropy(network(points[rows]), targets[rows]).backward()
            optimizer.step()
            rate.step()

    def predict(new: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            parts: list[Tensor] = [network(part).argmax(dim=1) for part in torch.from_numpy(new).split(1024)]
        return torch.cat(parts).numpy()
    return predict
