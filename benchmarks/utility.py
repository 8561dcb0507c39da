"""Proofs of utility that take longer than a test: python benchmarks/utility.py [PART ...]

    coverage   how often the interval of the gain covers the gain on 20,000 other records, of two Gaussians; 400 repetitions
    nothing    how often "helps" is said of random labels, at several sizes; 200 repetitions (at most 2.5 % are expected)
    something  how often "helps" is said of records of the true distribution beside ten real ones; 200 repetitions
    real       the reports of mixtures of scikit-learn's digits, wine and breast cancer
Results are appended to results/utility.jsonl.
"""

import sys
import time
from collections import Counter

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

import verossim
from timing import host, write
from verossim.spaces import Records
from verossim.uses.utility import utility, utility_of

QUICK = {"classifier": "logistic", "repeats": 3, "augmentation": False}


def two_classes(n: int, seed: int, apart: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """n records in 10 dimensions, of two unit Gaussians so far apart, in turn."""
    rng, y = np.random.default_rng(seed), np.arange(n) % 2
    return rng.normal(size=(n, 10)) + apart * y[:, None] / np.sqrt(10), y


def coverage(repetitions: int = 400) -> dict:
    """The shares of intervals that cover, of the accuracy of a classifier and of the gain."""
    gains, scores = [], []
    for seed in range(repetitions):
        sets = two_classes(500, 4 * seed), two_classes(20, 4 * seed + 1)
        found, truth = (utility(*sets, two_classes(n, 4 * seed + k), sizes=(), **QUICK) for n, k in ((400, 2), (20_000, 3)))
        d, score = found.gain.difference, found.scores["real_on_real"]
        gains.append(d.low <= truth.gain.difference.value <= d.high)
        scores.append(score.low <= truth.scores["real_on_real"].value <= score.high)
    return {"repetitions": repetitions, "gain": float(np.mean(gains)), "real_on_real": float(np.mean(scores))}


def nothing(repetitions: int = 200) -> dict:
    """Verdicts where labels are random."""
    said: Counter[str] = Counter()
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        sets = [(rng.normal(size=(n, 4)), rng.integers(0, 2, n)) for n in (300, 100, 1000)]
        report = utility(*sets, sizes=(20, 50), **QUICK)
        said["any size helps" if any(gain.verdict == "helps" for gain in report.gains) else "no size helps"] += 1
        said[report.verdict] += 1
    return {"repetitions": repetitions, **said}


def something(repetitions: int = 200) -> dict:
    """Verdicts where made records are of the true distribution, and real ones are ten, or two thousand."""
    said: dict[str, Counter[str]] = {"ten": Counter(), "two thousand": Counter()}
    for seed in range(repetitions):
        for counts, n in zip(said.values(), (10, 2000), strict=True):
            sets = (two_classes(m, 3 * seed + k) for k, m in enumerate((max(n, 1000), n, 4000)))
            counts[utility(*sets, sizes=(), **QUICK).verdict] += 1
    return {"repetitions": repetitions, **{name: dict(counts) for name, counts in said.items()}}


def real() -> dict:
    """The reports of mixtures of real data, half of it to learn from."""
    found = {}
    for name, load in (("wine", load_wine), ("breast cancer", load_breast_cancer), ("digits", load_digits)):
        bunch = load()
        order = np.random.default_rng(0).permutation(len(bunch.target))
        halves = order[:len(order) // 2], order[len(order) // 2:]
        levels = (bunch.images[..., None] * 255 / 16).round().astype(np.uint8) if name == "digits" else None
        train, test = (Records({"image": list(levels[rows]), "label": [str(t) for t in bunch.target[rows]]})
                       if levels is not None else load(as_frame=True).frame.iloc[rows] for rows in halves)
        model = verossim.fit(train, family="gmm", label="label" if name == "digits" else "target", held_out=0)
        began = time.perf_counter()
        report = utility_of(model, train, test, label="label" if name == "digits" else "target",
                            **({"classifier": "logistic"} if name == "digits" else {}))
        found[name] = {"seconds": round(time.perf_counter() - began, 1), **report.plain()}
    return found


if __name__ == "__main__":
    parts = {"coverage": coverage, "nothing": nothing, "something": something, "real": real}
    for part in sys.argv[1:] or parts:
        began = time.perf_counter()
        found = parts[part]()
        write("utility.jsonl", part=part, host=host("scikit-learn"), found=found, seconds=round(time.perf_counter() - began, 1))
        shown = {k: v["words"] for k, v in found.items()} if part == "real" else found
        print(part, shown, flush=True)
