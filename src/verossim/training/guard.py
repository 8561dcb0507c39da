"""What must not enter the weights: steps that are not finite, and steps whose loss leaps out of what is usual.

A step is usual while its loss stays below the median + 6 median absolute deviations of the last hundred. An unusual step is
skipped; when TOLERATED of the last WINDOW steps were, the weights go back to the last saved ones and the rate is halved (the
data goes on); when that has happened RETREATS times within one run, learning has diverged.
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
TOLERATED = 10
RETREATS = 4


@dataclass
class Guard:
    """State of the watch; `plain` and `restore` take it through a file."""

    losses: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    skipped: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    most: float = math.inf
    steps: int = 0
    retreats: int = 0
    share: float = 1.0  # of the rate, halved by each retreat

    def verdict(self, loss: float, norm: float) -> str | None:
        """Why the step should be skipped, or None: "not finite" or "leap". norm: of the gradient."""
        why = "not finite" if not (math.isfinite(loss) and math.isfinite(norm)) else "leap" if loss > self.most else None
        if math.isfinite(loss):
            self.losses.append(loss)
        self.skipped.append(why is not None)
        self.steps += 1
        if self.steps % EVERY == 0 and len(self.losses) >= ENOUGH:
            middle = median(self.losses)
            self.most = middle + DEVIATIONS * max(median(abs(one - middle) for one in self.losses), 1e-6 * abs(middle))
        return why

    @property
    def lost(self) -> bool:
        """Whether the weights should go back."""
        return sum(self.skipped) >= TOLERATED

    def retreat(self) -> bool:
        """Notes that the weights went back. Returns False where that has happened too often."""
        self.skipped.clear()
        self.losses.clear()
        self.most = math.inf
        self.retreats += 1
        self.share /= 2
        return self.retreats < RETREATS

    def plain(self) -> dict[str, Any]:
        """The state as JSON-ready values."""
        most = self.most if math.isfinite(self.most) else None  # JSON has no word for infinity
        return {"losses": list(self.losses), "skipped": list(self.skipped), "most": most, "steps": self.steps,
                "retreats": self.retreats, "share": self.share}

    @classmethod
    def restore(cls, plain: dict[str, Any]) -> "Guard":
        """The guard that `plain` was taken from."""
        return cls(deque(plain["losses"], WINDOW), deque(plain["skipped"], WINDOW),
                   math.inf if plain["most"] is None else plain["most"], plain["steps"], plain["retreats"], plain["share"])
