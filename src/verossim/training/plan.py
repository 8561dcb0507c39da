"""What learning will cost, known before it starts: how many records at a time, and whether the parameters fit in memory.

Memory while learning by statistics is one batch plus a few copies of the parameters (the parameters, their factorisation,
the statistics, the points that acceleration remembers); it does not grow with the number of records. The settings that
decide it have the same names in every family: `components` K, `covariance`, `rank`.
"""

import os
import resource
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..config import knobs
from ..errors import BadConfig
from ..spaces import Discrete, Space

__all__ = ["Plan", "memory", "plan", "resident"]

FLOAT = 8  # bytes of a float64
COPIES = 8  # of the parameters, alive at once while learning
BATCH_BYTES = 64 << 20
BATCH_LIMITS = (64, 1 << 18)  # records: below, calls cost more than sums; above, nothing is gained
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Plan:
    """batch: records at a time; bytes: memory that learning takes at its height; sweep_bytes: what one sweep reads."""

    batch: int
    bytes: int
    sweep_bytes: int


def plan(space: Space, records: int, config: Any, condition: Space | None = None, limit: int | None = None) -> Plan:
    """Chooses the batch, and refuses what cannot fit in `limit` bytes (the machine's memory when None).

    Raises BadConfig PLAN_MEMORY naming the setting to change and values that fit.
    """
    limit = memory() if limit is None else limit
    row = FLOAT * 2 * (space.dims + _groups(config, condition))
    batch = min(max(BATCH_BYTES // row, BATCH_LIMITS[0]), BATCH_LIMITS[1], max(records, 1))
    need = COPIES * _parameter_bytes(space, config, condition) + batch * row
    if need > limit:
        raise _too_large(space, config, condition, need, limit, batch * row)
    return Plan(batch, need, records * space.dims * FLOAT // 2)


def memory() -> int:
    """Bytes of memory that this process may use: the machine's, or less where a control group sets a limit, or where it has a
    GPU that has less."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    limits += [torch.cuda.mem_get_info()[1]] if torch.cuda.is_initialized() else []
    for path in map(Path, CGROUP_LIMITS):
        text = path.read_text().strip() if path.exists() else "max"
        limits += [int(text)] if text.isdigit() else []
    return min(limits)


def resident() -> int:
    """The most bytes of memory that the process has held, or where it has a GPU, of that one's."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _groups(config: Any, condition: Space | None) -> int:
    """Components over all classes; one where the number is still to be chosen."""
    components = vars(config).get("components", 1)
    classes = condition.vocabulary if isinstance(condition, Discrete) else 1
    return (components if isinstance(components, int) else 1) * classes


def _parameter_bytes(space: Space, config: Any, condition: Space | None) -> int:
    D, K = space.dims, _groups(config, condition)
    rank = vars(config).get("rank", 1)
    covariance = {"full": K * D * D, "tied": D * D, "factors": K * D * (1 + (rank if isinstance(rank, int) else 1))}
    return FLOAT * (K * D + covariance.get(vars(config).get("covariance"), K * D))


def _too_large(space: Space, config: Any, condition: Space | None, need: int, limit: int, batch: int) -> BadConfig:
    """The error, with the values of `covariance` that would fit, or else how many components would."""
    shape = vars(config).get("covariance")
    settings = knobs(type(config))
    words = settings["covariance"].metadata["choices"] or () if "covariance" in settings else ()
    fitting = [w for w in words if w not in (shape, "auto")
               and COPIES * _parameter_bytes(space, replace(config, covariance=w), condition) + batch <= limit]
    one = COPIES * _parameter_bytes(space, config, condition) / _groups(config, condition)
    most = int((limit - batch) // one)
    ways = [f"set 'covariance' to {' or '.join(map(repr, fitting))}"] if fitting else []
    ways += [f"set 'components' to at most {most}"] if shape != "tied" and most >= 1 else []
    ways += [] if ways else ["make the records smaller (fewer columns, smaller pictures)"]
    named = f"'covariance' is {shape!r}: learning" if fitting else "Learning"
    way = ", or ".join(ways)
    return BadConfig("PLAN_MEMORY", f"{named} {_groups(config, condition)} components over {space.dims:,} numbers a record "
                     f"takes {need / 2**30:,.1f} GiB, and {limit / 2**30:,.1f} GiB are there.", f"{way[0].upper()}{way[1:]}.")
