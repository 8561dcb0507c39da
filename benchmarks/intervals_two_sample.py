"""Do intervals cover, and do tests reject as often as they say? 400 repetitions each on distributions with known answers.

    python benchmarks/intervals_two_sample.py [--repeats 400] [--parts bootstrap,null,...]      # about half an hour on one core

bootstrap: BCa of the mean of n exponentials, of the variance of n normals, and of the difference of means of n exponentials
and 2n normals. auc: DeLong's interval for normals. null: share of p-values below 0.05 of the classifier two-sample
test and of the bins where both sides are alike, beside that of plain 5-fold cross-fitting whose right answers are held against
a binomial. power: the same of a shift by 0.3. shift: coverage of Phi(|mu| / 2) by the interval of the accuracy.
divergence: coverage by the interval of the bins' divergence. calibration: coverage of the calibration error of a classifier
that is too sure by a temperature. normalisation: verdicts on mixtures in 6 and 16 dimensions, as they are and with half a nat
more. Results: benchmarks/results/intervals_two_sample.jsonl.
"""

import argparse
import math
import time
from collections import Counter
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import torch
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from timing import host, write
from verossim.families.gmm import GMM
from verossim.intervals import Interval, auc, bootstrap
from verossim.metrics import measure
from verossim.metrics.bins import divergence
from verossim.scores import calibration, normalisation
from verossim.seeds import Noise
from verossim.spaces import Continuous

Told = Callable[..., None]


def covered(interval: Interval, truth: float) -> bool:
    """Whether an interval holds a number."""
    return bool(interval.low <= truth <= interval.high)


def bootstrapped(repeats: int, told: Told) -> None:
    """Coverage of the BCa interval."""
    for n in (30, 100, 300):
        hits: Counter[str] = Counter()
        for r in range(repeats):
            g, h = np.random.default_rng([1, r]), np.random.default_rng([2, r])
            x, y, z = g.exponential(size=n), g.normal(size=n), g.normal(size=2 * n)
            hits["mean"] += covered(bootstrap(lambda i, x=x: x[i].mean(), (n,), h), 1.0)
            hits["variance"] += covered(bootstrap(lambda i, y=y: y[i].var(ddof=1), (n,), h), 1.0)
            hits["two"] += covered(bootstrap(lambda i, j, x=x, z=z: x[i].mean() - z[j].mean(), (n, 2 * n), h), 1.0)
        told(part="bootstrap", n=n, coverage={name: count / repeats for name, count in hits.items()})


def areas(repeats: int, told: Told) -> None:
    """Coverage of DeLong's interval."""
    for shift in (0.5, 1.0, 2.5):
        truth = NormalDist().cdf(shift / math.sqrt(2))
        g = np.random.default_rng(3)
        hits = [covered(auc(g.normal(shift, 1, 60), g.normal(size=80)), truth) for _ in range(repeats)]
        told(part="auc", shift=shift, coverage=float(np.mean(hits)))


def plain(real: np.ndarray, made: np.ndarray, seed: int) -> float:
    """The p-value of plain cross-fitting: all right answers of 5 folds as if they were independent."""
    x, y = np.concatenate([real, made]), np.repeat([0, 1], [len(real), len(made)])
    found = cross_val_predict(LogisticRegression(C=0.1, max_iter=200), x, y,
                              cv=StratifiedKFold(5, shuffle=True, random_state=seed))
    return float(binom.sf((found == y).sum() - 1, len(y), 0.5))


def rejected(repeats: int, shift: float, told: Told, part: str) -> None:
    """How often each test rejects at 5 %."""
    for n, D in ((100, 5), (300, 20)):
        p: dict[str, list[float]] = {}
        for r in range(repeats):
            g = np.random.default_rng([4, r])
            real, made = g.normal(size=(n, D)), g.normal(shift, 1, (n, D))
            for name in ("two_sample", "bins"):
                for measured in measure(name, real, made, seed=r, **({"beside": "none"} if name == "two_sample" else {})):
                    p.setdefault(measured.name, []).append(float(measured.interval.p_value))
            p.setdefault("plain cross-fitting", []).append(plain(real, made, r))
            if r < repeats // 4:
                p.setdefault("two_sample with trees", []).append(
                    float(measure("two_sample", real, made, seed=r)[0].interval.p_value))
        told(part=part, records=n, features=D, shift=shift,
             rejected={name: [float(np.mean(np.array(ps) < 0.05)), len(ps)] for name, ps in p.items()})


def shifted(repeats: int, told: Told) -> None:
    """Coverage of the accuracy of the best classifier, which 800 records nearly find."""
    truth = NormalDist().cdf(0.5)
    hits = []
    for r in range(repeats):
        g = np.random.default_rng([5, r])
        hits.append(covered(measure("two_sample", g.normal(size=(800, 4)), g.normal(0.5, 1, (800, 4)), seed=r,
                                    beside="none")[0].interval, truth))
    told(part="shift", coverage=float(np.mean(hits)))


def diverged(repeats: int, told: Told) -> None:
    """Coverage of the divergence of counts."""
    g = np.random.default_rng(6)
    for tilt in (0.0, 0.1, 0.5, 0.9):
        p, q = np.full(50, 0.02), np.repeat([0.02 * (1 + tilt), 0.02 * (1 - tilt)], 25)
        m = (p + q) / 2
        truth = float((p * np.log(p / m) + q * np.log(q / m)).sum() / 2)
        found = [divergence(g.multinomial(1000, p), g.multinomial(2000, q)) for _ in range(repeats)]
        told(part="divergence", tilt=tilt, truth=truth, mean=float(np.mean([f.value for f in found])),
             coverage=float(np.mean([covered(f, truth) for f in found])))


def sure(g: np.random.Generator, n: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, 5) that are too sure by a temperature, and classes (n,)."""
    z = 2 * g.normal(size=(n, 5))
    p, q = (np.exp(t * z) / np.exp(t * z).sum(axis=1, keepdims=True) for t in (1.0, temperature))
    return q, (g.random((n, 1)) > p.cumsum(axis=1)[:, :-1]).sum(axis=1)


def calibrated(repeats: int, told: Told) -> None:
    """Coverage of the calibration error; its truth from two million records."""
    for temperature in (1.0, 1.1, 1.3, 2.0):
        many = sure(np.random.default_rng(7), 2_000_000, temperature)
        truth = 0.0 if temperature == 1 else calibration.summary(*many).plain_error
        for n in (300, 1000, 5000):
            found = [calibration.summary(*sure(np.random.default_rng([8, r]), n, temperature)) for r in range(repeats)]
            told(part="calibration", temperature=temperature, records=n, truth=truth,
                 mean=float(np.mean([f.error.value for f in found])), plain=float(np.mean([f.plain_error for f in found])),
                 coverage=float(np.mean([covered(f.error, truth) for f in found])))


def normalised(repeats: int, told: Told) -> None:
    """Verdicts on mixtures, a new one each repetition."""
    for D in (6, 16):
        said: dict[str, Counter[str]] = {"as it is": Counter(), "half a nat more": Counter()}
        for r in range(max(1, repeats // 10)):
            g = torch.Generator().manual_seed(r)
            family = GMM(GMM.Config(components=3, covariance="full"), Continuous(shape=(D,), axes=("feature",)))
            A = 0.4 * torch.randn(3, D, D, generator=g, dtype=torch.float64) / math.sqrt(D)
            family.place(torch.tensor([0.5, 0.3, 0.2]), torch.randn(3, D, generator=g, dtype=torch.float64),
                         A @ A.mT + 0.03 * torch.eye(D, dtype=torch.float64))
            examples = family.sample(Noise(r, 2000))
            for name, more in (("as it is", 0.0), ("half a nat more", 0.5)):
                verdict = normalisation.check(lambda x, more=more, family=family: family.log_prob(x).log_prob + more,
                                              family.space, examples, seed=r).verdict
                said[name][verdict] += 1
        told(part="normalisation", dims=D, verdicts={name: dict(counts) for name, counts in said.items()})


PARTS: dict[str, Callable[[int, Told], None]] = {
    "bootstrap": bootstrapped, "auc": areas, "null": lambda n, told: rejected(n, 0.0, told, "null"),
    "power": lambda n, told: rejected(n, 0.3, told, "power"), "shift": shifted, "divergence": diverged,
    "calibration": calibrated, "normalisation": normalised,
}


def main() -> None:
    """The parts that are asked for, in order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--dry", action="store_true", help="write no results")
    asked = parser.parse_args()
    about = host("scikit-learn", "scipy")
    for part in asked.parts.split(","):
        began = time.monotonic()

        def told(began: float = began, **fields: object) -> None:
            print(fields, flush=True)
            if not asked.dry:
                write("intervals_two_sample.jsonl", **fields, repeats=asked.repeats,
                      seconds=round(time.monotonic() - began, 1), host=about)
        PARTS[part](asked.repeats, told)


if __name__ == "__main__":
    main()
