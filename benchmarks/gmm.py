"""Gaussian mixtures against scikit-learn (float64 and float32) and pomegranate, timed in one interleaved run.

    python benchmarks/gmm.py                          # all of it: about an hour on two idle cores
    python benchmarks/gmm.py --quick                  # a tenth of the records
    python benchmarks/gmm.py --sets A --parts em,score

An EM iteration is timed from the same start for all: scikit-learn's own _e_step and _m_step, pomegranate's summarize and
from_summaries, this library's GMM.statistics and GMM.absorb. Every timing is the median of rounds A B C A B C; a timing taken
while other processes used more than 0.15 core is taken again. Compare ratios within a run, never seconds across runs.
Lines of JSON go to benchmarks/results/gmm.jsonl with the date, the commit and the hardware.
"""

import argparse
import contextlib
import importlib.util
import json
import math
import statistics
import warnings
from typing import Any

import numpy as np
import sklearn.mixture
import torch

import verossim.sklearn
from timing import Timed, extra_mib, host, interleaved, limits, timed, write
from verossim.families.gmm import GMM
from verossim.seeds import Noise
from verossim.spaces import Batch, Continuous

SETS = {"A": (1_000_000, 16, 16), "B": (100_000, 64, 64), "C": (1_000_000, 2, 8)}  # records, numbers, components
COVARIANCES = ("full", "diag")
PARTS = ("em", "score", "sample", "fit", "numerics")
#: Times faster than scikit-learn in float64 and in float32 that an EM iteration should be.
EM_GOALS = {"A full": (12, 5), "A diag": (10, 3), "B full": (7, 3), "B diag": (3, 1), "C full": (40, 15), "C diag": (30, 8)}
SCORE_GOALS = {"A full": 15, "B full": 5, "C full": 25}
SAMPLE_GOAL, FIT_GOAL, MEMORY_GOAL = 1.5, 5.0, 3.0
NUMBERS = 1 << 20  # numbers a batch of this library's, as its estimator takes them


def data(N: int, D: int, K: int) -> np.ndarray:
    """Records (N, D) float64 from K stretched Gaussians whose means scatter four deviations wide."""
    g = np.random.default_rng(0)
    means = 4 * g.normal(size=(K, D))
    roots = 0.6 * g.normal(size=(K, D, D)) / math.sqrt(D) + np.eye(D)
    which, x = g.integers(0, K, N), np.empty((N, D))
    for k in range(K):
        here = which == k
        x[here] = means[k] + g.normal(size=(here.sum(), D)) @ roots[k].T
    return x


def beginning(x: np.ndarray, K: int, covariance: str) -> tuple[np.ndarray, ...]:
    """K records as means, 0.3 of the covariance of all, equal weights; and the Cholesky roots of the precisions."""
    means = x[np.random.default_rng(1).choice(len(x), K, replace=False)].copy()
    whole = 0.3 * np.cov(x.T).reshape(x.shape[1], -1)
    if covariance == "full":
        roots = np.linalg.inv(np.linalg.cholesky(whole)).T
        return np.full(K, 1 / K), means, np.repeat(whole[None], K, 0), np.repeat(roots[None], K, 0)
    variances = np.repeat(np.diag(whole)[None], K, 0)
    return np.full(K, 1 / K), means, variances, 1 / np.sqrt(variances)


class Ours:
    """This library's family, placed at a start; em() is a whole iteration, batch by batch, as it is learned."""

    def __init__(self, x: np.ndarray, covariance: str, start: tuple[np.ndarray, ...]):
        K, D = start[1].shape
        config = GMM.Config(components=K, covariance=covariance, prior=0.0, jitter=1e-6)
        self.gmm = GMM(config, Continuous(shape=(D,), axes=("number",)))
        self.x, self.start = torch.from_numpy(x), [torch.from_numpy(part) for part in start[:3]]
        self.batches = [Batch(part, None, torch.ones(len(part), dtype=torch.float64), torch.arange(len(part)))
                        for part in self.x.split(NUMBERS // D)]
        self.gmm.place(*self.start)
        self.estimator = verossim.sklearn.GaussianMixture(K, covariance_type=covariance, random_state=0)
        self.estimator.weights_, self.estimator.means_, self.estimator.covariances_ = start[:3]

    def em(self) -> float:
        """One iteration from the start; the mean log-likelihood before it."""
        self.gmm.place(*self.start)
        total: dict[str, torch.Tensor] = {}
        for batch in self.batches:
            sums = self.gmm.statistics(batch)
            total = {name: total[name] + value for name, value in sums.items()} if total else sums
        return self.gmm.absorb(total)

    def score(self) -> np.ndarray:
        """Log density of every record."""
        self.gmm.place(*self.start)
        return self.gmm.log_prob(self.x).log_prob.numpy()

    def sample(self, n: int) -> np.ndarray:
        """n new records of the estimator, sorted by component as scikit-learn's are."""
        return self.estimator.sample(n)[0]

    def streams(self, n: int) -> torch.Tensor:
        """n new records of the family: shuffled, each from a random stream of its own, so that sample 7 is always sample 7."""
        return self.gmm.sample(Noise(0, n))


class Peer:
    """scikit-learn's mixture, placed at a start."""

    def __init__(self, x: np.ndarray, covariance: str, start: tuple[np.ndarray, ...]):
        K = len(start[1])
        self.x, self.start = x, [part.astype(x.dtype) for part in start]
        self.model = sklearn.mixture.GaussianMixture(K, covariance_type=covariance, reg_covar=1e-6, random_state=0)
        self.place()

    def place(self) -> None:
        """Back to the start."""
        self.model.weights_, self.model.means_, self.model.covariances_, self.model.precisions_cholesky_ = self.start
        self.model.n_features_in_ = self.x.shape[1]

    def em(self) -> float:
        """One iteration from the start; the mean log-likelihood before it."""
        self.place()
        log_likelihood, log_resp = self.model._e_step(self.x)
        self.model._m_step(self.x, log_resp)
        return float(log_likelihood)

    def score(self) -> np.ndarray:
        """Log density of every record."""
        self.place()
        return self.model.score_samples(self.x)

    def sample(self, n: int) -> np.ndarray:
        """n new records, sorted by component."""
        self.place()
        return self.model.sample(n)[0]


class Pomegranate:
    """pomegranate's mixture, made anew from a start each time (under a millisecond a component)."""

    def __init__(self, x: np.ndarray, covariance: str, start: tuple[np.ndarray, ...]):
        self.x, self.covariance, self.start = torch.from_numpy(x), covariance, [torch.from_numpy(s).float() for s in start]

    def model(self) -> Any:
        """The mixture at the start."""
        from pomegranate.distributions import Normal
        from pomegranate.gmm import GeneralMixtureModel
        weights, means, covariances, _ = self.start
        parts = [Normal(m.clone(), c.clone(), covariance_type=self.covariance)  # it updates what it is given in place
                 for m, c in zip(means, covariances, strict=True)]
        return GeneralMixtureModel(parts, priors=weights.clone())

    def em(self) -> float:
        """One iteration from the start; the mean log-likelihood before it."""
        model = self.model()
        log_likelihood = float(model.summarize(self.x)) / len(self.x)
        with contextlib.suppress(RuntimeError):  # nothing is regularised: its Cholesky decomposition may fail
            model.from_summaries()
        return log_likelihood

    def score(self) -> np.ndarray:
        """Log density of every record."""
        return self.model().log_probability(self.x).numpy()


def counted(N: int, D: int, K: int, covariance: str, passes: int) -> tuple[float, float]:
    """GFLOP of the products in the quadratic form (one pass scores, two are an EM iteration), and GB of records read once."""
    P = (D * (D + 1) // 2 if covariance == "full" else D) + D + 1
    return 2 * passes * N * K * P / 1e9, 4 * N * D / 1e9


class Report:
    """What was measured: a table on the screen, a line of JSON a case in the results."""

    def __init__(self, quick: bool):
        self.host = {**host("scikit-learn", "numba", "pomegranate"), "quick": quick}
        print(json.dumps(self.host))
        print(f"{'part':8}{'set':8}{'':6}{'ours':>10}{'sk64':>10}{'sk32':>10}{'pom32':>10}   {'x sk64':>7}{'x sk32':>7}  goal")

    def line(self, part: str, case: str, found: dict[str, float], goals: tuple[float, ...], unit: str = "s",
             **more: Any) -> None:
        """One row: what is smaller is better; ratios are to `ours`."""
        cells = "".join(f"{found[w]:10.4g}" if w in found else f"{'-':>10}" for w in ("ours", "sk64", "sk32", "pom32"))
        ratios = [found.get(w, math.nan) / max(found["ours"], 1e-9) for w in ("sk64", "sk32")]
        met = all(not r < g for r, g in zip(ratios, goals, strict=False))
        wanted = f"{' / '.join(f'{g:g}' for g in goals)} {'met' if met else 'MISSED'}" if goals else ""
        print(f"{part:8}{case:8}{unit:6}{cells}   {ratios[0]:6.1f}x{ratios[1]:6.1f}x  {wanted}", flush=True)
        self.write(part=part, case=case, unit=unit, found=found, goals=goals, met=met, **more)

    def write(self, **fields: Any) -> None:
        """Appends a line of JSON."""
        write("gmm.jsonl", **fields, **self.host)


def survivors(functions: Timed) -> tuple[Timed, dict[str, Any]]:
    """The functions that run through, with what they return; what fails is said."""
    results: dict[str, Any] = {}
    for name, function in functions.items():
        try:
            results[name] = function()
        except Exception as error:  # any failure of a peer is a finding
            print(f"  {name} fails: {error!r:.120}")
    return {name: functions[name] for name in results}, results


def share(seconds: float, N: int, D: int, K: int, covariance: str, passes: int) -> dict[str, float]:
    """How far it is from the machine: shares of the matrix rate and of the memory's reading rate."""
    now, (gflop, gigabytes) = limits(), counted(N, D, K, covariance, passes)
    of = {"of_gemm": gflop / now["gemm32"] / seconds, "of_reading": gigabytes / now["reading"] / seconds}
    print(f"          {gflop:.3g} GFLOP at {now['gemm32']:.0f} GFLOP/s: {100 * of['of_gemm']:.0f} % of the matrix rate; "
          f"{gigabytes:.3g} GB at {now['reading']:.0f} GB/s: {100 * of['of_reading']:.0f} % of the reading rate", flush=True)
    return {"gflop": gflop, "gigabytes": gigabytes, **now, **of}


def measure(name: str, covariance: str, asked: argparse.Namespace, report: Report) -> None:
    """All parts of one set with one shape of covariance."""
    (N, D, K), case = SETS[name], f"{name} {covariance}"
    N //= 10 if asked.quick else 1
    x = data(N, D, K)
    start, x32 = beginning(x, K, covariance), x.astype(np.float32)
    models = {"ours": Ours(x32, covariance, start), "sk64": Peer(x, covariance, start), "sk32": Peer(x32, covariance, start)}
    if importlib.util.find_spec("pomegranate"):
        models["pom32"] = Pomegranate(x32, covariance, start)
    if "em" in asked.parts:
        functions, log_likelihoods = survivors({who: model.em for who, model in models.items()})
        found = interleaved(functions, asked.rounds)
        seconds = {who: f["seconds"] for who, f in found.items()}
        apart = abs(log_likelihoods["ours"] / log_likelihoods["sk64"] - 1)
        report.line("em", case, seconds, EM_GOALS[case], times=found, log_likelihoods=log_likelihoods, apart=apart)
        report.write(part="em limit", case=case, **share(seconds["ours"], N, D, K, covariance, 2))
        print(f"          log-likelihood apart from sk64: {apart:.1e} relative (goal 1e-6)")
        report.line("memory", case, {who: extra_mib(f) for who, f in functions.items()}, (MEMORY_GOAL,), "MiB")
    if "score" in asked.parts:
        functions, scores = survivors({who: model.score for who, model in models.items()})
        found = interleaved(functions, asked.rounds)
        seconds = {who: f["seconds"] for who, f in found.items()}
        worst = {who: float(np.abs(s.astype(float) - scores["sk64"]).max()) for who, s in scores.items()}
        goals = (SCORE_GOALS[case],) if case in SCORE_GOALS else ()
        report.line("score", case, seconds, goals, times=found, largest_error=worst)
        report.write(part="score limit", case=case, **share(seconds["ours"], N, D, K, covariance, 1))
    if "sample" in asked.parts:  # pomegranate's draws n rows from every component: K times the work
        peer = models["sk64"].sample
        for part, ours, goals in (("sample", models["ours"].sample, (SAMPLE_GOAL,)), ("streams", models["ours"].streams, ())):
            found = interleaved({"ours": lambda ours=ours: ours(N), "sk64": lambda: peer(N)}, asked.rounds)
            report.line(part, case, {who: f["seconds"] for who, f in found.items()}, goals, times=found)
    if "fit" in asked.parts:
        fits(case, x, x32, K, covariance, asked, report)


def fits(case: str, x: np.ndarray, x32: np.ndarray, K: int, covariance: str, asked: argparse.Namespace, report: Report) -> None:
    """The whole fit, start included, by both estimators with the same settings; log-likelihoods are scored in float64."""
    settings = {"n_components": K, "covariance_type": covariance, "init_params": "kmeans", "max_iter": asked.iterations}
    models = {"ours": (verossim.sklearn.GaussianMixture, x32), "sk64": (sklearn.mixture.GaussianMixture, x),
              "sk32": (sklearn.mixture.GaussianMixture, x32)}
    fitted: dict[str, Any] = {}
    functions = {who: lambda who=who, kind=kind, x=x: fitted.update({who: kind(**settings, random_state=0).fit(x)})
                 for who, (kind, x) in models.items()}
    functions, _ = survivors(functions)
    seconds = {who: statistics.median(timed(f)[0] for _ in range(asked.fits)) for who, f in functions.items()}
    peer = models["sk64"][0](K, covariance_type=covariance)
    heights = {}
    for who, model in fitted.items():
        for name in ("weights_", "means_", "covariances_", "precisions_cholesky_"):
            setattr(peer, name, np.asarray(getattr(model, name), dtype=float))
        heights[who] = float(peer.score(x))
    iterations = {who: model.n_iter_ for who, model in fitted.items()}
    report.line("fit", case, seconds, (FIT_GOAL,), log_likelihoods=heights, iterations=iterations)
    print("          " + ", ".join(f"{w}: {heights[w]:.4f} after {n} iterations" for w, n in iterations.items()), flush=True)


def numerics(report: Report) -> None:
    """Two groups in four dimensions, one number nearly the double of another, far from the origin; nothing is regularised."""
    g = np.random.default_rng(0)
    for offset in (0.0, 1e2, 1e3, 1e4):
        for thin in (1.0, 1e-2, 1e-3):
            x = g.normal(size=(50_000, 4))
            x[:, 3] = x[:, 0] + thin * x[:, 3]
            x[25_000:, [0, 3]] += 6
            x += offset
            _, means, covariances, _ = beginning(x, 2, "full")
            found: dict[str, Any] = {}
            for who, kind, dtype in (("ours", verossim.sklearn.GaussianMixture, np.float32),
                                     ("sk64", sklearn.mixture.GaussianMixture, np.float64),
                                     ("sk32", sklearn.mixture.GaussianMixture, np.float32)):
                model = kind(2, max_iter=20, tol=0, reg_covar=0.0, weights_init=[0.5, 0.5], means_init=means,
                             precisions_init=np.linalg.inv(covariances))
                _, result = survivors({who: lambda model=model, x=x.astype(dtype): float(model.fit(x).score(x))})
                found |= result
            off = abs(found.get("ours", math.nan) - found["sk64"])
            promised = thin >= 0.01
            print(f"numerics offset {offset:6g} thin {thin:5g}: " + "  ".join(f"{w} {v:8.4f}" for w, v in found.items())
                  + (f"  {'met' if off <= 0.02 else 'MISSED'}" if promised else ""), flush=True)
            report.write(part="numerics", offset=offset, thin=thin, found=found, met=not promised or off <= 0.02)


def main() -> None:
    """Measures what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fits", type=int, default=1, help="whole fits of each kind")
    parser.add_argument("--iterations", type=int, default=100, help="most iterations of a whole fit")
    parser.add_argument("--sets", default=",".join(SETS), type=lambda s: s.split(","))
    parser.add_argument("--covariances", default=",".join(COVARIANCES), type=lambda s: s.split(","))
    parser.add_argument("--parts", default=",".join(PARTS), type=lambda s: s.split(","))
    parser.add_argument("--quick", action="store_true", help="a tenth of the records, three rounds at most")
    asked = parser.parse_args()
    asked.rounds = min(asked.rounds, 3) if asked.quick else asked.rounds
    warnings.filterwarnings("ignore")
    if not importlib.util.find_spec("pomegranate"):
        print("pomegranate is not installed (pip install pomegranate==1.1.2): left out")
    report = Report(asked.quick)
    for name in asked.sets:
        for covariance in asked.covariances:
            measure(name, covariance, asked, report)
    if "numerics" in asked.parts:
        numerics(report)


if __name__ == "__main__":
    main()
