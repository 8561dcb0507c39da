"""Does the doctor see what goes wrong, and keep silent where nothing does? Runs that are spoiled on purpose, and healthy ones.

    python benchmarks/sabotage.py                   # about two hours on two cores
    python benchmarks/sabotage.py --kinds healthy,frozen --seeds 0:1

Points of a ring of 8 Gaussians (deviation 0.05, radius 1), batches of 128. Spoiled: "penalty", a ten-thousandth of its weight;
"rate", a hundred times too high; "mode", the first 400 steps see one of the eight modes only, as of a file sorted by class;
"frozen", the generator does not learn; "few", 16 records. seen: an alarm within 500 steps, or an end as diverged (of healthy
runs: at any time).
recovered: with what the doctor does, after 6,000 steps 8 of 8 modes are found and no sign is out of its bounds at the last
exam; for "few", where modes are not to be had, that the discriminator does not overfit. Nothing can be done about "frozen".
Results: benchmarks/results/sabotage.jsonl.
"""

import argparse
import itertools
import math
import time
from typing import Any

import numpy as np
import torch

from modes import SETS, judged
from timing import host, several, write
from verossim.errors import Diverged
from verossim.families import Losses
from verossim.families.gan import GAN
from verossim.seeds import Noise
from verossim.spaces import Batch, Continuous
from verossim.training import InMemory, Journal, Settled, train

SETS["eight"] = SETS["ring"][0], 0.05
SPACE, BATCH = Continuous(shape=(2,), axes=("number",)), 128
KINDS = ("healthy", "penalty", "rate", "mode", "frozen", "few")
SOON, SORTED, LONG = 500, 400, 6000  # steps


def points(seed: int, count: int, modes: int = 8) -> InMemory:
    """Points of the first so many modes."""
    g, (centres, deviation) = np.random.default_rng(seed), SETS["eight"]
    x = centres[g.integers(modes, size=count)] + deviation * g.normal(size=(count, 2))
    return InMemory(Batch(torch.tensor(x, dtype=torch.float32), None, torch.ones(count), torch.arange(count)))


class Enough(Exception):
    """So many steps were asked for."""


class Frozen(GAN):
    """A pair whose generator's loss has no slope."""

    def loss(self, batch: Batch, turn: Any) -> Losses:
        """The loss, of the generator times zero."""
        losses = GAN.loss(self, batch, turn)
        return losses if turn.name == "discriminator" else Losses(losses.total * 0, losses.parts)


def run(kind: str, seed: int, steps: int) -> dict[str, Any]:
    """One run: the steps at which there were alarms, the last signs, and modes found."""
    torch.manual_seed(seed)
    settings = {"penalty": 1e-4} if kind == "penalty" else {}
    family = (Frozen if kind == "frozen" else GAN)(GAN.Config(**settings), SPACE)
    data, held = points(seed, 16 if kind == "few" else 4000), points(seed + 1000, 500)
    rate = family.peak * (100 if kind == "rate" else 1)
    said: list[dict[str, Any]] = []
    ended = "whole"
    try:
        learn(family, data, held, Settled(samples=LONG * BATCH, batch=BATCH, rate=rate), seed, said,
              points(seed, 4000, 1) if kind == "mode" else data, steps)
    except Diverged:
        ended = "diverged"
    except Enough:
        ended = "cut"
    alarms = [(event["samples"] // BATCH, event["sign"], event["action"]) for event in said if event["event"] == "alarm"]
    signs = [event["signs"] for event in said if event["event"] == "health"]
    last = {name: math.nan if value is None else value for name, value in (signs or [{}])[-1].items()}
    out = [sign.name for sign in family.signs if not sign.holds(last.get(sign.name, 1.0))]
    with torch.no_grad():
        found = judged("eight", family.sample(Noise(7, 2500)).double().numpy())
    return {"alarms": alarms, "out": out, "ended": ended, "signs": last, **found}


def learn(family: GAN, data: InMemory, held: InMemory, config: Settled, seed: int, said: list[dict[str, Any]],
          first: InMemory, steps: int) -> None:
    """Learns for so many steps, from other data `first`, noting what the journal says."""
    def batches(samples: int) -> Any:
        g = torch.Generator().manual_seed(seed)
        for step in itertools.count():
            if step >= steps < LONG:
                raise Enough
            source = first if step < SORTED else data
            yield source.take(torch.randint(len(source), (BATCH,), generator=g))
    train(family, batches, config, data=data, held=held, seed=seed, journal=Journal(None, said.append))


def main() -> None:
    """All kinds and seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seeds", type=several, help="FIRST:LAST; where nothing is said 4 of each spoiled kind, 20 healthy")
    parser.add_argument("--steps", type=int, default=LONG, help="fewer say nothing of recovery, and whether alarms are in time")
    parser.add_argument("--dry", action="store_true", help="write no results")
    asked = parser.parse_args()
    about = host()
    for kind in asked.kinds.split(","):
        for seed in asked.seeds or range(20 if kind == "healthy" else 4):
            began = time.monotonic()
            found = run(kind, seed, asked.steps)
            soon = found["ended"] == "diverged" or any(step <= SOON for step, _, _ in found["alarms"])
            well = "overfit" not in found["out"] if kind == "few" else not found["out"] and found["modes"] == 8
            told = {"kind": kind, "seed": seed, "seen": soon if kind != "healthy" else bool(found["alarms"]),
                    "recovered": well if asked.steps >= LONG else None, "steps": asked.steps,
                    "seconds": time.monotonic() - began}
            print(told, found["alarms"][:4], found["out"], found["modes"], f"{found['good']:.2f}", flush=True)
            if not asked.dry:
                write("sabotage.jsonl", **told, **found, **about)


if __name__ == "__main__":
    main()
