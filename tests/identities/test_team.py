"""Threads that join a team see what each wrote before they met; whoever comes too late has no part, and nobody waits for it."""

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest

from verossim.nn.team import joined, met, part, team


@numba.njit(nogil=True)
def _turns(us, wanted, turns, room, found):
    """Each turn everyone writes a number of its own, and after that reads everybody's; returns which of how many it was."""
    me, size = joined(us, wanted, 1 << 31)
    for turn in range(turns if size else 0):
        room[me] = 100 * turn + me
        met(us, size, 2 * turn + 1)
        for other in range(size):
            found[me, turn] += room[other] == 100 * turn + other
        met(us, size, 2 * turn + 2)
    return me, size


def test_one_who_is_alone_goes_on_and_one_who_is_late_goes_home():
    us = team()
    assert joined(us, 2) == (0, 1)
    assert joined(us, 2)[1] == 0
    met(us, 1, 1)


@pytest.mark.parametrize("threads", [2, 3])
def test_those_who_meet_see_what_each_wrote(threads):
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(5):
            us, room, found = team(), np.full(threads, -1), np.zeros((threads, 20), int)
            came = list(pool.map(lambda _, all=(us, threads, 20, room, found): _turns(*all), range(threads)))
            assert sorted(came) == [(me, threads) for me in range(threads)]
            assert (found == threads).all()


@pytest.mark.parametrize(("count", "size"), [(6, 2), (2, 3), (7, 3), (0, 2)])
def test_parts_are_all_of_it_once(count, size):
    parts = [range(*part(count, me, size)) for me in range(size)]
    assert [n for each in parts for n in each] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
