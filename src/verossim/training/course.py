"""What a run is given, with nothing left open, and what it comes to."""

from dataclasses import dataclass, field

__all__ = ["Course", "Settled"]


@dataclass(frozen=True, kw_only=True)
class Settled:
    """How to learn by gradient, with nothing left open; `forecast.Training` says what each means."""

    samples: int
    batch: int
    rate: float
    accumulate: int = 1
    optimizer: str = "adamw"
    decay: float = 0.01
    clip: float = 1.0
    average: float = 0.05
    precision: str = "fp32"
    compiled: bool = False
    sharded: bool = False


@dataclass(frozen=True)
class Course:
    """How learning went. curve: (samples, loss, bits per dimension or None) as it was reported."""

    samples: int
    steps: int
    skipped: int
    retreats: int
    seconds: float
    interrupted: int | None
    curve: list[tuple[int, float, float | None]] = field(default_factory=list)
