"""What SDMetrics says of two tables, for tests/metrics/test_associations.py, which holds the numbers: SDMetrics wants pandas
below 3, and the tests run with 3.

    python benchmarks/tables.py      # prints a dictionary: column -> shape, pair -> trend, then missing shares and coverage
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "metrics"))

from test_associations import frame, narrowed, widened

WORDS = ("kind", "truth")


def main() -> None:
    """Prints the numbers."""
    from sdmetrics.column_pairs import ContingencySimilarity, CorrelationSimilarity
    from sdmetrics.single_column import CategoryCoverage, KSComplement, MissingValueSimilarity, RangeCoverage, TVComplement
    real, made = frame(0), widened()
    shapes = {name: (TVComplement if name in WORDS else KSComplement).compute(real[name], made[name]) for name in real}
    plain = [side.assign(day=side["day"].astype("int64").astype(float)) for side in (real, made)]
    names, trends = list(real), {}
    for i, a in enumerate(names):
        for b in names[i + 1:]:
            x, y = (side[[a, b]] for side in plain)
            mixed = a in WORDS or b in WORDS
            trends[a, b] = (ContingencySimilarity.compute(x.copy(), y.copy(), [n for n in (a, b) if n not in WORDS] or None)
                            if mixed else CorrelationSimilarity.compute(x, y))
    few = narrowed()
    missing = np.mean([MissingValueSimilarity.compute(real[name], few[name]) for name in real])
    coverage = np.mean([(CategoryCoverage if name in WORDS else RangeCoverage).compute(real[name], few[name]) for name in real])
    print({name: round(float(value), 7) for name, value in shapes.items()})
    print({pair: round(float(value), 7) for pair, value in trends.items()})
    print(round(float(missing), 10), round(float(coverage), 10))


if __name__ == "__main__":
    main()
