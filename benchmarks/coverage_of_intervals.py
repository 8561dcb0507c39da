"""Do the intervals of the distances on features hold the truth? Repetitions on normals whose answers are known.

    python benchmarks/coverage_of_intervals.py                    # 400 repetitions, about 20 minutes on one core
    python benchmarks/coverage_of_intervals.py --quick            # 40 repetitions
    python benchmarks/coverage_of_intervals.py --seeds 0:3 --parts distances

Real records are of N(0, S) with deviations from 1 to 0.3, made ones of N(mu, r^2 S), |mu| the shift. Truths: of the Frechet
distance, |mu|^2 + (r - 1)^2 tr S; of "frechet", the mean of its own values; of both kernels in closed form, for the width that
the real records gave; of precision and density, and of recall and coverage, what 20,000 further records give, the other set as
it was, of ten such sets. Results:
benchmarks/results/coverage_of_intervals.jsonl.
"""

import argparse
import time
from typing import Any

import numpy as np
import torch

from timing import host, several, write
from verossim.metrics import Sample
from verossim.metrics.coverage import Coverage, inside
from verossim.metrics.frechet import Frechet
from verossim.metrics.kernel import Kernel, KernelConfig, median_distance

CASES = [(2, 200, 200), (8, 200, 300), (32, 300, 200), (64, 1000, 600)]  # features, real, made
SHIFTS = [(0.0, 1.0), (0.3, 1.0), (0.6, 1.0), (1.2, 1.0), (0.0, 1.4), (0.6, 1.4)]  # shift, scale
FURTHER = 20_000


def cubic(a: np.ndarray, S: np.ndarray, b: np.ndarray, T: np.ndarray) -> float:
    """E (x.y / D + 1)^3 of normals of means a, b and variances S, T (D,)."""
    s, v = float(a @ b), float(np.sum(S * T + S * b * b + T * a * a))
    third, D = 6 * float(np.sum(S * T * a * b)), len(a)
    return 1 + 3 * s / D + 3 * (v + s * s) / D ** 2 + (third + 3 * s * v + s ** 3) / D ** 3


def smooth(mu: np.ndarray, S: np.ndarray, width: float) -> float:
    """E exp(-|d|^2 / (2 width^2)) of a normal d of mean mu and variances S (D,)."""
    return float(np.prod((width ** 2 / (width ** 2 + S)) ** 0.5) * np.exp(-0.5 * np.sum(mu * mu / (width ** 2 + S))))


def distances(D: int, N: int, M: int, shift: float, scale: float, repetitions: int, seed: int) -> dict[str, Any]:
    """The share of intervals that hold the truth, of all distances, and the mean over deviation of the values."""
    g, S = np.random.default_rng([seed, D, N]), np.linspace(1, 0.3, D) ** 2
    zero, mu, T = np.zeros(D), np.full(D, shift / D ** 0.5), S * scale ** 2
    known = {"frechet_infinity": shift ** 2 + (scale - 1) ** 2 * S.sum(),
             "kernel": cubic(zero, S, zero, S) + cubic(mu, T, mu, T) - 2 * cubic(zero, S, mu, T)}
    hits: dict[str, list[bool]] = {"frechet_infinity": [], "kernel": [], "mmd": []}
    these, measures = [], (Frechet(), Kernel(KernelConfig(permutations=0)))
    for _ in range(repetitions):
        x, y = g.normal(size=(N, D)) * S ** 0.5, mu + g.normal(size=(M, D)) * T ** 0.5
        found = {name: i for m in measures for name, i in m.compare(Sample(features=x), Sample(features=y), g).items()}
        width = median_distance(x)
        known["mmd"] = smooth(zero, 2 * S, width) + smooth(zero, 2 * T, width) - 2 * smooth(mu, S + T, width)
        for name, held in hits.items():
            held.append(found[name].low <= known[name] <= found[name].high)
        these.append((found["frechet"].value, found["frechet"].low, found["frechet"].high))
    value, low, high = np.array(these).T
    return {"frechet": float(np.mean((low <= value.mean()) & (value.mean() <= high))),
            **{name: float(np.mean(held)) for name, held in hits.items()}}


def shares(D: int, N: int, M: int, shift: float, scale: float, repetitions: int, seed: int) -> dict[str, float]:
    """The same of precision, density, recall and coverage; the set that is given changes ten times."""
    g = np.random.default_rng([seed, D, N, 1])
    mu = np.full(D, shift / D ** 0.5)

    def real(n: int) -> np.ndarray:
        return g.normal(size=(n, D))

    def made(n: int) -> np.ndarray:
        return mu + scale * g.normal(size=(n, D))
    hits: dict[str, list[bool]] = {name: [] for name in ("precision", "density", "recall", "coverage")}
    for _ in range(10):
        x, y = real(N), made(M)
        balls = np.concatenate([inside(x, made(M)).balls for _ in range(FURTHER // M)])
        more = [inside(real(N), y) for _ in range(FURTHER // N)]
        known = {"precision": np.mean(balls > 0), "density": balls.mean() / 5,
                 "recall": np.mean([i.reached.mean() for i in more]), "coverage": np.mean([i.covered.mean() for i in more])}
        for _ in range(repetitions // 10):
            of_made, of_real = (Coverage().compare(Sample(features=a), Sample(features=b), g) for a, b in
                                ((x, made(M)), (real(N), y)))
            found = {**of_real, "precision": of_made["precision"], "density": of_made["density"]}
            for name, held in hits.items():
                held.append(found[name].low <= known[name] <= found[name].high)
    return {name: float(np.mean(held)) for name, held in hits.items()}


def main() -> None:
    """All cases of all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=several, default=range(1))
    parser.add_argument("--parts", type=lambda names: names.split(","), default=["distances", "shares"])
    asked = parser.parse_args()
    if not {"distances", "shares"} >= {*asked.parts}:
        parser.error("--parts are distances and shares")
    torch.set_num_threads(1)
    repetitions = 40 if asked.quick else 400
    write("coverage_of_intervals.jsonl", part="host", repetitions=repetitions, **host("scipy"))
    for seed in asked.seeds:
        for D, N, M in CASES:
            for shift, scale in SHIFTS:
                start = time.perf_counter()
                found = distances(D, N, M, shift, scale, repetitions, seed) if "distances" in asked.parts else {}
                if D < 32 and scale > 1 and "shares" in asked.parts:
                    found |= shares(D, N, M, shift, scale, repetitions, seed)
                if not found:
                    continue
                write("coverage_of_intervals.jsonl", part="held", features=D, real=N, made=M, shift=shift, scale=scale,
                      seed=seed, repetitions=repetitions, seconds=round(time.perf_counter() - start, 1), **found)


if __name__ == "__main__":
    main()
