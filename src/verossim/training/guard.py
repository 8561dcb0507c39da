"""What must not enter the weights: steps that are not finite, and steps whose loss leaps out of what is usual.

A step leaps when both its loss and the norm of its gradient lie above the median + 6 median absolute deviations of the last
hundred of the same turn. A leap is skipped; when TOLERATED of the last WINDOW steps were, the weights go back to their average
along the path, or where that is broken to the last saved ones, and the rate is halved (the data goes on); when that has
happened RETREATS times within one run, learning has diverged. All of it follows from the records seen, so that a run resumed
does the same.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import Any

__all__ = ["Guard"]

WINDOW = 100  # steps
ENOUGH = 50  # steps before leaps are looked for
DEVIATIONS = 6.0
EVERY = 16  # steps between two looks at the median
TOLERATED = 20
RETREATS = 4


@dataclass
class Watch:
    """What is usual in one turn: losses and norms of gradients of the last steps."""

    losses: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    norms: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    most: tuple[float, float] = (math.inf, math.inf)  # loss and norm, beyond which both leap
    steps: int = 0

    def leaps(self, loss: float, norm: float) -> bool:
        """Whether a step is far out of what is usual; finite ones are learned from."""
        leaps = loss > self.most[0] and norm > self.most[1]
        if math.isfinite(loss) and math.isfinite(norm):
            self.losses.append(loss)
            self.norms.append(norm)
        self.steps += 1
        if self.steps % EVERY == 0 and len(self.losses) >= ENOUGH:
            self.most = _usual(self.losses), _usual(self.norms)
        return leaps

    def plain(self) -> dict[str, Any]:
        """The state as JSON-ready values."""
        return {"losses": list(self.losses), "norms": list(self.norms), "steps": self.steps,
                "most": self.most if math.isfinite(sum(self.most)) else None}

    @classmethod
    def restore(cls, plain: dict[str, Any]) -> "Watch":
        """The watch that `plain` was taken from."""
        return cls(deque(plain["losses"], WINDOW), deque(plain["norms"], WINDOW),
                   tuple(plain["most"] or (math.inf, math.inf)), plain["steps"])


@dataclass
class Guard:
    """State of the watches, one a turn; `plain` and `restore` take it through a file."""

    watches: dict[str, Watch] = field(default_factory=dict)
    skipped: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    retreats: int = 0
    share: float = 1.0  # of the rate, halved by each retreat

    def verdict(self, loss: float, norm: float, turn: str = "all", descends: bool = True) -> str | None:
        """Why the step of a turn should be skipped, or None: "not finite" or "leap". norm: of the gradient; descends: whether
        the loss should fall, so that it can leap."""
        finite = math.isfinite(loss) and math.isfinite(norm)
        leaps = descends and self.watches.setdefault(turn, Watch()).leaps(loss, norm)
        self.skipped.append(leaps or not finite)
        return "not finite" if not finite else "leap" if leaps else None

    @property
    def lost(self) -> bool:
        """Whether the weights should go back."""
        return sum(self.skipped) >= TOLERATED

    def retreat(self) -> bool:
        """Notes that the weights went back. Returns False where that has happened too often."""
        self.skipped.clear()
        for turn, watch in self.watches.items():
            self.watches[turn] = Watch(steps=watch.steps)
        self.retreats += 1
        self.share /= 2
        return self.retreats < RETREATS

    def plain(self) -> dict[str, Any]:
        """The state as JSON-ready values."""
        return {"watches": {turn: watch.plain() for turn, watch in self.watches.items()}, "skipped": list(self.skipped),
                "retreats": self.retreats, "share": self.share}

    @classmethod
    def restore(cls, plain: dict[str, Any]) -> "Guard":
        """The guard that `plain` was taken from."""
        watches = {turn: Watch.restore(watch) for turn, watch in plain["watches"].items()}
        return cls(watches, deque(plain["skipped"], WINDOW), plain["retreats"], plain["share"])


def _usual(values: deque[float]) -> float:
    """Median + 6 median absolute deviations."""
    middle = median(values)
    return middle + DEVIATIONS * median(abs(value - middle) for value in values)
