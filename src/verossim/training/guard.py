"""What must not enter the weights: steps that are not finite, and steps whose loss leaps out of what is usual.

A step leaps when both its loss and the norm of its gradient lie above the median + 6 median absolute deviations of the last
hundred. A leap is skipped; when TOLERATED of the last WINDOW steps were, the weights go back to their average along the path,
or where that is broken to the last saved ones, and the rate is halved (the data goes on); when that has happened RETREATS
times within one run, learning has diverged. All of it follows from the records seen, so that a run resumed does the same.
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
class Guard:
    """State of the watch; `plain` and `restore` take it through a file."""

    losses: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    norms: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    skipped: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    most: tuple[float, float] = (math.inf, math.inf)  # loss and norm, beyond which both leap
    steps: int = 0
    retreats: int = 0
    share: float = 1.0  # of the rate, halved by each retreat

    def verdict(self, loss: float, norm: float) -> str | None:
        """Why the step should be skipped, or None: "not finite" or "leap". norm: of the gradient."""
        finite = math.isfinite(loss) and math.isfinite(norm)
        leaps = loss > self.most[0] and norm > self.most[1]
        if finite:
            self.losses.append(loss)
            self.norms.append(norm)
        self.skipped.append(leaps or not finite)
        self.steps += 1
        if self.steps % EVERY == 0 and len(self.losses) >= ENOUGH:
            self.most = _usual(self.losses), _usual(self.norms)
        return "not finite" if not finite else "leap" if leaps else None

    @property
    def lost(self) -> bool:
        """Whether the weights should go back."""
        return sum(self.skipped) >= TOLERATED

    def retreat(self) -> bool:
        """Notes that the weights went back. Returns False where that has happened too often."""
        for seen in (self.skipped, self.losses, self.norms):
            seen.clear()
        self.most = math.inf, math.inf
        self.retreats += 1
        self.share /= 2
        return self.retreats < RETREATS

    def plain(self) -> dict[str, Any]:
        """The state as JSON-ready values."""
        values = {name: list(seen) for name, seen in vars(self).items() if isinstance(seen, deque)}
        return {**vars(self), **values, "most": self.most if math.isfinite(sum(self.most)) else None}

    @classmethod
    def restore(cls, plain: dict[str, Any]) -> "Guard":
        """The guard that `plain` was taken from."""
        seen = {name: deque(plain[name], WINDOW) for name in ("losses", "norms", "skipped")}
        return cls(**{**plain, **seen, "most": tuple(plain["most"] or (math.inf, math.inf))})


def _usual(values: deque[float]) -> float:
    """Median + 6 median absolute deviations."""
    middle = median(values)
    return middle + DEVIATIONS * median(abs(value - middle) for value in values)
