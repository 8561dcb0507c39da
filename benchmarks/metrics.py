"""Distances on features beside their peers, in one run: equal numbers, and how many times as fast.

    python benchmarks/metrics.py                          # about half an hour on two cores
    python benchmarks/metrics.py --quick                  # small sizes, a minute
    python benchmarks/metrics.py --parts coverage --rounds 1 --patience 0

Frechet, 2,048 features with a decaying spectrum behind a rectifier, 10,000 records a side (full rank) and 1,000 (fewer records
than features), from moments, as the peers have it; for the fewer also from the features. Peers: pytorch-fid's and clean-fid's
function (scipy's sqrtm), torch-fidelity's (numpy's eigvals) and torchmetrics' (torch's eigvals), taken from the installed
files by name, as the packages ask for torchvision on import. "interval" is `measure`: both distances and their intervals.
Kernel: torch-fidelity's polynomial mmd2 on the same 1,000 records of each. Coverage: prdc, 10,000 x 10,000 x 512 in float32.
"x" is a peer's time over ours; "apart" the greatest difference of a value, relative (of shares, absolute).
Needs: pip install --no-deps pytorch-fid clean-fid torch-fidelity torchmetrics prdc. Results: benchmarks/results/metrics.jsonl.
"""

import argparse
import ast
import contextlib
import importlib.metadata
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import torch

from timing import extra_mib, host, interleaved, write
from verossim.metrics import measure
from verossim.metrics.coverage import inside
from verossim.metrics.frechet import frechet_distance, frechet_of_moments
from verossim.metrics.kernel import kernel_distance

PEERS = {"pytorch-fid": ("pytorch_fid/fid_score.py", "calculate_frechet_distance"),
         "clean-fid": ("cleanfid/fid.py", "frechet_distance"),
         "torch-fidelity": ("torch_fidelity/metric_fid.py", "fid_statistics_to_metric"),
         "torchmetrics": ("torchmetrics/image/fid.py", "_compute_fid")}
PARTS = ("frechet", "interval", "kernel", "coverage")


def published(package: str, file: str, *names: str, **known: Any) -> dict[str, Any]:
    """Functions of an installed package by name, compiled from its file alone."""
    path = Path(str(importlib.metadata.distribution(package).locate_file(file)))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    known |= {"np": np, "torch": torch, "Tensor": torch.Tensor, "linalg": scipy.linalg}
    exec(compile(ast.Module(body, []), str(path), "exec"), known)
    return known


def features(n: int, d: int, seed: int) -> np.ndarray:
    """Records (n, d) float32: a decaying spectrum, turned, behind a rectifier; other seeds lie a little aside."""
    g, turn = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(7)
    z = torch.randn(n, d, generator=g) * torch.logspace(0, -3, d)
    return torch.relu(z @ torch.randn(d, d, generator=turn) * (4 / d ** 0.5) + 0.3 + 0.02 * seed).numpy()


def report(part: str, run: dict[str, Callable[[], Any]], asked: argparse.Namespace, **fields: Any) -> None:
    """Times all, and writes a line for each: seconds, its value, and how many times as fast ours is."""
    found: dict[str, np.ndarray] = {}

    def kept(who: str) -> Callable[[], None]:
        def call() -> None:
            found[who] = np.atleast_1d(np.asarray(run[who](), float))
        return call
    timed = interleaved({who: kept(who) for who in run}, asked.rounds, asked.patience)
    fields |= {"mib": round(extra_mib(run["verossim"])), "threads": asked.threads}
    for who, reading in timed.items():
        unit = 1.0 if part == "coverage" else np.abs(found["verossim"])
        write("metrics.jsonl", part=part, who=who, **fields, **reading,
              x=round(reading["seconds"] / timed["verossim"]["seconds"], 2), value=found[who].tolist(),
              apart=float(np.max(np.abs(found[who] - found["verossim"]) / unit)))


def frechet(asked: argparse.Namespace) -> None:
    """Against all peers, full rank and not."""
    D, sizes = (256, (1000, 100)) if asked.quick else (2048, (10_000, 1000))
    peers = {}
    for package, (file, name) in PEERS.items():
        known = published(package, file, name, KEY_METRIC_FID="fid", vprint=lambda *_: None)
        peers[package] = known[name]
    for N in sizes:
        x, y = features(N, D, 1), features(N, D, 2)
        (m1, S1), (m2, S2) = ((a.mean(axis=0, dtype=np.float64), np.cov(a.astype(np.float64), rowvar=False)) for a in (x, y))
        tensors = [torch.from_numpy(a) for a in (m1, S1, m2, S2)]
        run = {
            "verossim": lambda a=(m1, S1, m2, S2): frechet_of_moments(*a),
            "pytorch-fid": lambda a=(m1, S1, m2, S2): float(peers["pytorch-fid"](*a)),
            "clean-fid": lambda a=(m1, S1, m2, S2): float(peers["clean-fid"](*a)),
            "torch-fidelity": lambda a=(m1, S1, m2, S2): peers["torch-fidelity"](
                {"mu": a[0], "sigma": a[1]}, {"mu": a[2], "sigma": a[3]}, False)["fid"],
            "torchmetrics": lambda a=tensors: float(peers["torchmetrics"](*a))}
        if N < D:
            run["verossim from moments"] = run["verossim"]
            run["verossim"] = lambda x=x, y=y: frechet_distance(x, y)
        report("frechet", run, asked, records=N, features=D)


def interval(asked: argparse.Namespace) -> None:
    """What both Frechet distances and their intervals take, from the features, beside the one distance."""
    D, N = (256, 1500) if asked.quick else (2048, 10_000)
    x, y = features(N, D, 1), features(N, D, 2)
    run = {"verossim": lambda: measure("frechet", x, y)[0].value, "distance only": lambda: frechet_distance(x, y)}
    report("interval", run, asked, records=N, features=D)


def kernel(asked: argparse.Namespace) -> None:
    """Against torch-fidelity on the same records."""
    D, N = (256, 300) if asked.quick else (2048, 1000)
    x, y = (features(N, D, seed).astype(np.float64) for seed in (1, 2))
    settings = {"kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1}

    def vassert(fine: bool, told: str) -> None:
        assert fine, told
    known = published("torch-fidelity", "torch_fidelity/metric_kid.py", "mmd2", "kernel_poly", vassert=vassert,
                      get_kwarg=lambda name, given: given[name])

    def peer() -> float:
        XX, XY, YY = (known["kernel_poly"](a, b, **settings) for a, b in ((x, x), (x, y), (y, y)))
        return float(known["mmd2"](XX, XY, YY))
    run = {"verossim": lambda: kernel_distance(x, y), "torch-fidelity": peer}
    report("kernel", run, asked, records=N, features=D)


def coverage(asked: argparse.Namespace) -> None:
    """Against prdc."""
    from prdc import compute_prdc
    D, N = (64, 2000) if asked.quick else (512, 10_000)
    x, y = features(N, D, 1), features(N, D, 2)

    def ours() -> list[float]:
        found = inside(x, y, 5)
        return [(found.balls > 0).mean(), found.reached.mean(), found.balls.mean() / 5, found.covered.mean()]

    def peer() -> list[float]:
        with contextlib.redirect_stdout(io.StringIO()):
            found = compute_prdc(x, y, 5)
        return [found[name] for name in ("precision", "recall", "density", "coverage")]
    report("coverage", {"verossim": ours, "prdc": peer}, asked, records=N, features=D)


def main() -> None:
    """The parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patience", type=float, default=20.0, help="seconds to wait for other processes to be quiet")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    warnings.filterwarnings("ignore")    # scipy's, of an argument that the peers use
    write("metrics.jsonl", part="host", quick=asked.quick, **host("scipy", "scikit-learn", "prdc", *PEERS))
    for part in asked.parts.split(","):
        {"frechet": frechet, "interval": interval, "kernel": kernel, "coverage": coverage}[part](asked)


if __name__ == "__main__":
    main()
