"""The one rate that records of sound or of clips have to share before they can be compared."""

from ..errors import Incompatible
from . import Sample

__all__ = ["shared_rate"]


def shared_rate(real: Sample, made: Sample) -> float:
    """The rate, a second, that all records have in their column "rate". Raises Incompatible METRIC_SHAPE where there is no such
    column, METRIC_RATE where rates differ or are not above 0."""
    rates: set[float] = set()
    for side, what in ((real, "real"), (made, "made")):
        columns = {} if side.records is None else side.records.columns
        if "rate" not in columns:
            raise Incompatible("METRIC_SHAPE", f"The {what} records have no column 'rate'.",
                               "Give the rate of each, a second.")
        rates |= {float(rate) for rate in columns["rate"]}
    if len(rates) > 1 or not min(rates) > 0:
        told = ", ".join(f"{rate:g}" for rate in sorted(rates)[:5])
        raise Incompatible("METRIC_RATE", f"The records have rates of {told} a second; they should have one, above 0.",
                           "Bring all to one rate first.")
    return rates.pop()
