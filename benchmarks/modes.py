"""Do adversarial pairs find all modes? Known mixtures in the plane, ten seeds, all reported.

    python benchmarks/modes.py                      # about 15 minutes on two cores
    python benchmarks/modes.py --sets ring --seeds 3:5

ring: 8 Gaussians of deviation 0.01 on a circle of radius 1; grid: 25 of deviation 0.05 at distances of 2 (Lin et al., "PacGAN",
arXiv:1712.04086, section 4.1). As a person gets it, `verossim.fit(points, family="gan", samples=...)`, nothing tuned by set or
seed. A mode is found when one of 2,500 samples lies within 3 deviations of it; "good" is the share of samples within 3
deviations of some mode (of data it is 0.989). kl is that of the samples' counts of nearest modes from equal counts, in nats.
Results: benchmarks/results/modes.jsonl.
"""

import argparse
import itertools
import math
import time

import numpy as np

import verossim
from timing import host, several, write

SETS = {"ring": (np.array([[math.cos(a), math.sin(a)] for a in 2 * np.pi * np.arange(8) / 8]), 0.01),
        "grid": (np.array(list(itertools.product(range(-4, 5, 2), repeat=2)), dtype=float), 0.05)}
RECORDS, DRAWN = 20_000, 2_500


def drawn(name: str, seed: int, count: int = RECORDS) -> np.ndarray:
    """Points (count, 2) of a set."""
    centres, deviation = SETS[name]
    g = np.random.default_rng(seed)
    return centres[g.integers(len(centres), size=count)] + deviation * g.normal(size=(count, 2))


def judged(name: str, points: np.ndarray) -> dict[str, float]:
    """Modes found, share of good samples, and divergence of counts from equal ones."""
    centres, deviation = SETS[name]
    apart = np.linalg.norm(points[:, None] - centres, axis=2)
    near, least = apart.argmin(axis=1), apart.min(axis=1)
    good = least <= 3 * deviation
    share = np.bincount(near, minlength=len(centres)) / len(points)
    kl = float(sum(p * math.log(p * len(centres)) for p in share if p > 0))
    return {"modes": len(set(near[good].tolist())), "of": len(centres), "good": float(good.mean()), "kl": kl}


def main() -> None:
    """All sets and seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seeds", type=several, default=range(10), help="FIRST:LAST, without the last")
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--dry", action="store_true", help="write no results")
    parser.add_argument("--set", action="append", default=[], help="a setting of fit, NAME=VALUE")
    asked = parser.parse_args()
    about = host()
    settings = dict(setting.split("=", 1) for setting in asked.set)
    for name in asked.sets.split(","):
        for seed in asked.seeds:
            began = time.monotonic()
            model = verossim.fit(drawn(name, seed), family="gan", samples=asked.samples, seed=seed, **settings)
            seconds = time.monotonic() - began
            points = np.array(model.sample(DRAWN, seed=1))
            found = judged(name, points)
            print(name, seed, f"{seconds:.0f} s", found, flush=True)
            if not asked.dry:
                write("modes.jsonl", set=name, seed=seed, seconds=seconds, samples=asked.samples, **found, **about)


if __name__ == "__main__":
    main()
