"""While a network learns, a step takes no memory anew from the system; afterwards it has it back."""

import resource
import threading
from pathlib import Path

import torch

from verossim.training.heap import kept

MIB = 1 << 20
NUMBERS = 4 * MIB  # of 4 bytes: a block of 16 MiB, which glibc would give back each time it is free
PAGE = resource.getpagesize()


def faults(steps: int) -> int:
    """Pages that the system made for so many steps, each of which needs three blocks and frees them."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        _ = [torch.ones(NUMBERS) for _ in range(3)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """Bytes in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def test_steps_use_the_same_pages_again_and_the_system_gets_them_back() -> None:
    with kept():
        faults(10)
        assert faults(10) < 3 * 10 * 4 * NUMBERS / PAGE / 10  # of their pages no tenth is new
        held = [torch.ones(16 * NUMBERS)]
        peak = resident()
        held.clear()
    assert resident() < peak - 200 * MIB


def test_threads_get_blocks_beyond_their_heaps() -> None:
    sums = list[float]()
    with kept():
        worker = threading.Thread(target=lambda: sums.append(float(torch.ones(64 * MIB).sum())))
        worker.start()
        worker.join()
    assert sums == [float(64 * MIB)]


def test_after_an_error_it_is_as_after_success() -> None:
    try:
        with kept():
            held = torch.ones(16 * NUMBERS)
            peak = resident()
            del held
            raise MemoryError
    except MemoryError:
        assert resident() < peak - 200 * MIB
