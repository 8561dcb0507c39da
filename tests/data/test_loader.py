"""The loader: every record once an epoch, the same batches however they are made, resumed or shared out."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verossim import data
from verossim.data.loader import Loader, Permutation
from verossim.errors import BadConfig
from verossim.shelves import CODECS


def split(records, wide=1):
    table = CODECS.load("table")
    source = data.open_source(np.random.default_rng(0).normal(size=(records, wide)))
    codec = table(table.Config()).fit(source.features())
    return data.prepare(source, codec, held_out=0.0).train


def taken(loader, batches):
    return [next(loader).index.tolist() for _ in range(batches)]


@given(st.integers(1, 3000), st.integers(0, 2**63 - 1), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_a_permutation_is_a_bijection_that_its_key_decides(count, seed, epoch):
    images = Permutation(count, seed, epoch)(np.arange(count))
    assert sorted(images) == list(range(count))
    if count > 20:
        assert (images != np.arange(count)).any()
        assert (Permutation(count, seed, epoch + 1)(np.arange(count)) != images).any()
        assert (Permutation(count, (seed + 1) % 2**63, epoch)(np.arange(count)) != images).any()


def test_a_permutation_scatters():
    count = 100_003
    images = Permutation(count, 1, 0)(np.arange(count))
    steps = np.abs(np.diff(images)) / count
    assert abs(steps.mean() - 1 / 3) < 0.01  # the mean distance of two uniform numbers
    assert abs(np.corrcoef(np.arange(count), images)[0, 1]) < 0.02
    firsts = [int(Permutation(10, seed, 0)(np.array([0]))[0]) for seed in range(2000)]
    assert np.bincount(firsts, minlength=10).min() > 140  # 200 expected


def test_a_permutation_of_very_many_needs_no_memory():
    places = np.arange(10**12 - 1000, 10**12)
    images = Permutation(10**12, 3, 2)(places)
    assert len(set(images.tolist())) == 1000 and images.min() >= 0 and images.max() < 10**12


RECORDS = split(23)


@given(batch=st.integers(1, 40), seed=st.integers(0, 100), seen=st.integers(0, 30), prefetch=st.sampled_from([0, 2]))
@settings(max_examples=30, deadline=None)
def test_resumed_equals_continuous_with_and_without_a_thread(batch, seed, seen, prefetch):
    whole = Loader(RECORDS, batch, seed, prefetch=0)
    with Loader(RECORDS, batch, seed, seen * batch, prefetch=prefetch) as rest:
        taken(whole, seen)
        assert whole.samples == rest.samples == seen * batch
        assert taken(whole, 5) == taken(rest, 5)


@given(batch=st.integers(4, 40), ranks=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_ranks_share_out_the_global_batch(batch, ranks):
    with Loader(RECORDS, batch, 5, prefetch=0) as whole:
        shares = [Loader(RECORDS, batch, 5, rank=rank, ranks=ranks, prefetch=0) for rank in range(ranks)]
        for one in taken(whole, 4):
            assert one == [i for share in shares for i in next(share).index.tolist()]


def test_every_record_once_an_epoch_and_each_epoch_its_own_order():
    with Loader(RECORDS, 5, 1) as loader:
        stream = [i for batch in taken(loader, 23) for i in batch]
    epochs = [stream[first:first + 23] for first in range(0, 115, 23)]
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5


def test_the_thread_ends_when_closed_and_when_forgotten():
    before = threading.active_count()
    loader = Loader(RECORDS, 4, 0, prefetch=3)
    next(loader)
    assert threading.active_count() == before + 1
    loader.close()
    assert threading.active_count() == before
    with pytest.raises(StopIteration):
        next(loader)
    loader = Loader(RECORDS, 4, 0, prefetch=3)
    next(loader)
    del loader
    assert threading.active_count() == before


def test_what_fails_in_the_thread_is_raised_by_next():
    class Broken:
        def __len__(self):
            return 10

        def take(self, rows):
            raise OSError("gone")
    with Loader(Broken(), 2, 0, prefetch=2) as loader, pytest.raises(OSError, match="gone"):
        next(loader)


def test_a_seed_out_of_range():
    with pytest.raises(BadConfig) as error:
        Loader(RECORDS, 4, -1)
    assert error.value.code == "SEED_RANGE"


def test_batches_hold_what_the_split_holds():
    with Loader(RECORDS, 6, 2) as loader:
        batch = next(loader)
    assert torch.equal(batch.x, RECORDS.slice(0, 23).x[batch.index])
