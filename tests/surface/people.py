"""A table of two kinds of people."""

import csv
from pathlib import Path

import numpy as np


def people(count: int = 300) -> list[list[str]]:
    """Two kinds of people: height and shoe are of the kind, the town is anyone's."""
    rng = np.random.default_rng(5)
    kinds = rng.integers(0, 2, count)
    heights, shoes = 160 + 20 * kinds + rng.normal(0, 4, count), 36 + 7 * kinds + rng.integers(0, 3, count)
    rows = zip(heights, shoes, rng.choice(["=A", "B"], count), np.array(["short", "tall"])[kinds], strict=True)
    return [["height", "shoe", "town", "kind"], *([f"{h:.2f}", str(s), t, k] for h, s, t, k in rows)]


def write(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\r\n").writerows(rows)
    return path
