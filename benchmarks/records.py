"""How often the 95 % intervals of measures of records cover a truth that is known, and how long each measure takes.

    python benchmarks/records.py --repetitions 400

Truths: Wasserstein-1 of normal numbers moved by s is s; expected distinct 1-grams of T independent tokens are
sum(1 - (1 - p)^T) / T; the shape of a normal column moved by s is 1 - (2 Phi(s / 2) - 1), of categories 1 - sum |p - q| / 2; a
pair's trend is 1 - |rho - rho'| / 2. Where nothing differs the truth is 0, or 1 for what is a similarity. Results:
benchmarks/results/records.jsonl, a line of shares and one of seconds.
"""

import argparse
import time
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pyarrow as pa

from timing import host, write
from verossim.intervals import Interval
from verossim.metrics import measure
from verossim.metrics._distance import wasserstein
from verossim.metrics.diversity import _distinct_interval
from verossim.spaces import Records

RECORDS = 100
Case = Callable[[np.random.Generator], tuple[Interval, float]]


def moved(shift: float) -> Case:
    """Wasserstein-1 of normal numbers."""
    return lambda rng: (wasserstein(rng.normal(size=RECORDS), rng.normal(size=RECORDS) + shift, rng), shift)


def kinds(rng: np.random.Generator) -> tuple[Interval, float]:
    """Distinct 1-grams of 60 texts of 30 tokens, of 1,000 kinds by Zipf's law."""
    p = 1 / np.arange(1, 1001)
    p /= p.sum()
    texts = [[f"w{k}" for k in rng.choice(1000, 30, p=p)] for _ in range(60)]
    return _distinct_interval(texts, 1), float((1 - (1 - p) ** 1800).sum() / 1800)


def shape(shift: float) -> Case:
    """The shape of one normal column."""
    def case(rng: np.random.Generator) -> tuple[Interval, float]:
        real, made = (Records({"a": pa.array(rng.normal(size=RECORDS) + s)}) for s in (0, shift))
        found = measure("associations", real, made, rounds=100, seed=int(rng.integers(2**31)))
        return found[0].interval, 2 - 2 * NormalDist().cdf(shift / 2)
    return case


def categories(p: list[float], q: list[float]) -> Case:
    """The shape of one column of categories."""
    def case(rng: np.random.Generator) -> tuple[Interval, float]:
        real, made = (Records({"a": pa.array(rng.choice(list("wxyz"), RECORDS, p=s))}) for s in (p, q))
        found = measure("associations", real, made, rounds=100, seed=int(rng.integers(2**31)))
        return found[0].interval, 1 - sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2
    return case


def trend(rho: float) -> Case:
    """The trend of a pair with correlation 0.8 among the real."""
    def case(rng: np.random.Generator) -> tuple[Interval, float]:
        real, made = (rng.multivariate_normal([0, 0], [[1, r], [r, 1]], RECORDS) for r in (0.8, rho))
        sides = (Records({"a": pa.array(x[:, 0]), "b": pa.array(x[:, 1])}) for x in (real, made))
        found = measure("associations", *sides, rounds=100, seed=int(rng.integers(2**31)))
        return found[1].interval, 1 - abs(0.8 - rho) / 2
    return case


CASES: dict[str, Case] = {
    **{f"wasserstein moved {s}": moved(s) for s in (0.0, 0.15, 0.3, 1.0)}, "distinct_1": kinds,
    **{f"shape of numbers moved {s}": shape(s) for s in (0.0, 0.3, 1.0)},
    "shape of categories alike": categories([0.4, 0.3, 0.2, 0.1], [0.4, 0.3, 0.2, 0.1]),
    "shape of categories apart": categories([0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]),
    "trend alike": trend(0.8), "trend 0.5": trend(0.5), "trend 0": trend(0.0),
}


def main() -> None:
    """Counts, and writes the shares down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    shares, seconds = {}, {}
    for number, (name, case) in enumerate(CASES.items()):
        rng, start = np.random.default_rng([asked.seed, number]), time.perf_counter()
        found = [case(rng) for _ in range(asked.repetitions)]
        shares[name] = sum(i.low - 1e-12 <= truth <= i.high + 1e-12 for i, truth in found) / asked.repetitions
        seconds[name] = (time.perf_counter() - start) / asked.repetitions
        print(f"{name:32} covers {shares[name]:6.1%}   {seconds[name]:.3f} s", flush=True)
    write("records.jsonl", repetitions=asked.repetitions, records=RECORDS, covered=shares, seconds=seconds, host=host("scipy"))


if __name__ == "__main__":
    main()
