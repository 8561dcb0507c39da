"""What the headers of a set of pictures say, and the size that follows from it by the rule that the codec states."""

import math
import statistics
from collections import Counter
from typing import Any

import numpy as np

from ...errors import printable
from ...spaces import Records
from .picture import Refusal, header

__all__ = ["Survey"]

#: Sides that the rule chooses between; pictures of one size up to the larger are left as they are.
LEAST, MOST = 8, 64


class Survey:
    """What the headers of a set of pictures say, in counts: memory grows with the different sizes, not with the pictures."""

    def __init__(self, cap: int):
        self.cap = cap
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.kinds: Counter[str] = Counter()
        self.grey = self.framed = self.refused = 0
        self.example = ""
        self.first: Any = None
        self.all_same = True

    @property
    def count(self) -> int:
        """Pictures whose header is good."""
        return self.sizes.total()

    def add(self, block: Records) -> None:
        """Counts a block in."""
        for row, source in enumerate(block.columns["image"]):
            try:
                seen = header(source, self.cap)
            except Refusal as refusal:
                self.refused += 1
                self.example = self.example or f"{printable(block.where(row))} {refusal.message}"
                continue
            self.first = source if self.first is None else self.first
            self.all_same = self.all_same and _same(self.first, source)
            self.sizes[seen.height, seen.width] += 1
            self.kinds[seen.kind] += 1
            self.grey += seen.grey
            self.framed += seen.frames

    def size(self, asked: int | str) -> tuple[int, int, str]:
        """Height, width, and the rule in words."""
        (H, W), _ = self.sizes.most_common(1)[0]
        uniform = len(self.sizes) == 1
        if uniform and asked in ("auto", min(H, W)) and (asked != "auto" or max(H, W) <= MOST):
            return H, W, f"all pictures are {H} x {W}, which is kept"
        side = int(asked) if asked != "auto" else self._side()
        why = "as set" if asked != "auto" else "the median shorter side, rounded down to a power of two"
        if uniform:
            scale = side / min(H, W)
            return round(H * scale), round(W * scale), f"all pictures are {H} x {W}; the shorter side is made {side} ({why})"
        return side, side, (f"pictures of {len(self.sizes)} sizes are cropped to a centred square and resampled to "
                            f"{side} x {side} ({why})")

    def _side(self) -> int:
        sides: Counter[int] = Counter()
        for (H, W), number in self.sizes.items():
            sides[min(H, W)] += number
        median = statistics.median_low(sides.elements())
        return max(LEAST, min(MOST, 1 << int(math.log2(median))))

    def notes(self, channels: int) -> list[str]:
        """Words of warning, each with a stable code."""
        notes = []
        if self.count > 1 and self.all_same:
            notes.append(f"DATA_CONSTANT: all {self.count} pictures are the same")
        if channels == 3 and 0 < self.grey < self.count:
            notes.append(f"IMG_CHANNELS: {self.grey} of {self.count} pictures are grey and are given three channels")
        if channels == 1 and self.grey < self.count:
            notes.append(f"IMG_CHANNELS: {self.count - self.grey} of {self.count} pictures are in colour and are turned grey")
        if self.framed:
            notes.append(f"IMG_FRAMES: {self.framed} of {self.count} files hold several frames or pages; the first is used")
        printed = sum(number for kind, number in self.kinds.items() if kind.endswith("CMYK"))
        if printed:
            notes.append(f"IMG_CMYK: {printed} of {self.count} pictures are CMYK, turned to RGB without a profile")
        return notes


def _same(a: Any, b: Any) -> bool:
    """Whether two sources are equal to the byte."""
    return np.array_equal(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else a == b
