"""EM over sweeps: it climbs, it climbs faster when accelerated, and it does not matter how the data is cut."""

import pytest
import torch
from tiny import Normals, batch_of, line

from verossim.errors import Diverged
from verossim.shelves import FAMILIES
from verossim.spaces import Continuous
from verossim.training import InMemory, Journal, Learning, begin, learn, subsample

OVERLAPPING = (-1.0, 1.0)


def fitted(data, components=2, seed=0, batch=2_000, journal=None, **settings):
    family = Normals(Normals.Config(components=components))
    begin(family, data, seed)
    return family, learn(family, data, batch=batch, config=Learning(**settings), journal=journal)


@pytest.mark.parametrize("accelerate", [False, True])
@pytest.mark.parametrize("centres", [(-1.0, 1.0), (-3.0, 0.0, 2.0), (-8.0, 8.0)])
def test_the_objective_never_falls(accelerate, centres):
    for seed in range(3):
        _, history = fitted(line(2_000, centres, seed), len(centres) + 1, seed, iterations=150, tolerance=1e-9,
                            accelerate=accelerate)
        gains = [b - a for a, b in zip(history.objectives, history.objectives[1:], strict=False)]
        assert min(gains) > -1e-12


def test_acceleration_needs_half_the_sweeps_and_ends_no_lower():
    plain_sweeps = fast_sweeps = 0
    for seed in range(3):
        data = line(3_000, OVERLAPPING, seed)
        _, plain = fitted(data, seed=seed, iterations=5_000, tolerance=1e-8, accelerate=False)
        _, fast = fitted(data, seed=seed, iterations=5_000, tolerance=1e-8)
        assert fast.objectives[-1] >= plain.objectives[-1] - 1e-7
        assert fast.accelerated > 0
        plain_sweeps, fast_sweeps = plain_sweeps + plain.sweeps, fast_sweeps + fast.sweeps
    assert fast_sweeps < plain_sweeps / 2


def test_a_jump_that_lands_lower_or_nowhere_is_undone():
    class Slippery(Normals):
        """Every jump is told to land where the numbers end."""

        def move(self, coordinates):
            if not torch.equal(coordinates, self.last):
                raise Diverged("DIVERGED", "Slipped.")
            super().move(coordinates)

        def coordinates(self):
            self.last = super().coordinates()
            return self.last

    data = line(1_000, OVERLAPPING)
    families = [kind(Normals.Config(components=2)) for kind in (Normals, Slippery)]
    for family in families:
        begin(family, data, 0)
    plain = learn(families[0], data, batch=1_000, config=Learning(iterations=40, tolerance=0.0, accelerate=False))
    slipped = learn(families[1], data, batch=1_000, config=Learning(iterations=40, tolerance=0.0))
    assert slipped.rejected > 0
    assert slipped.accelerated == 0
    assert slipped.objectives == pytest.approx(plain.objectives[:len(slipped.objectives)], abs=1e-12)


def test_batches_of_any_size_learn_the_same():
    data = line(3_000, OVERLAPPING)
    whole, history = fitted(data, batch=3_000, iterations=30)
    cut, again = fitted(data, batch=7, iterations=30)
    assert torch.allclose(whole.coordinates(), cut.coordinates(), rtol=0, atol=1e-9)
    assert again.sweeps == history.sweeps


def test_a_weight_counts_a_record_as_often():
    data = line(400, OVERLAPPING).whole
    times = torch.arange(len(data.x)) % 3
    weighted = InMemory(batch_of(data.x, times.double()))
    repeated = InMemory(batch_of(data.x.repeat_interleave(times, 0)))
    families = [Normals(Normals.Config(components=2)) for _ in range(2)]
    for family, split in zip(families, (weighted, repeated), strict=True):
        family.m.copy_(torch.tensor([-1.0, 1.0]))
        learn(family, split, batch=100, config=Learning(iterations=50))
    assert torch.allclose(families[0].coordinates(), families[1].coordinates(), rtol=0, atol=1e-9)


def test_convergence_is_said_honestly():
    data = line(2_000, OVERLAPPING)
    _, short = fitted(data, iterations=3, tolerance=1e-9)
    _, long = fitted(data, iterations=5_000, tolerance=1e-7)
    assert (short.sweeps, short.converged) == (3, False)
    assert long.converged
    assert 3 < long.sweeps < 5_000
    assert 0 < long.objectives[-1] - long.objectives[-2] < 1e-7


def test_no_iterations_leave_the_start():
    data = line(100)
    family = Normals(Normals.Config(components=2))
    begin(family, data, 0)
    before = family.coordinates()
    history = learn(family, data, batch=100, config=Learning(iterations=0))
    assert torch.equal(family.coordinates(), before)
    assert (history.sweeps, history.objectives, history.converged) == (0, (), False)


@pytest.mark.parametrize("stop", range(2, 9))
def test_an_interrupt_leaves_the_best_parameters(stop):
    data = line(500, OVERLAPPING)

    class Interrupted(Normals):
        sweeps = 0

        def absorb(self, statistics):
            objective = super().absorb(statistics)
            self.sweeps += 1
            if self.sweeps == stop:
                self.m.fill_(1e6)
                raise KeyboardInterrupt
            return objective

    family = Interrupted(Normals.Config(components=2))
    begin(family, data, 0)
    journal, best = Journal(), []
    journal.listen(lambda said: best.append(said["objective"]) if said["event"] == "sweep" else None)
    with pytest.raises(KeyboardInterrupt):
        learn(family, data, batch=500, config=Learning(tolerance=0.0), journal=journal)
    assert family.log_prob(data.whole.x).log_prob.mean() >= max(best)


def test_leaving_the_finite_numbers_is_an_error():
    data = line(50).whole
    data.x[7] = float("inf")
    with pytest.raises(Diverged) as error:
        fitted(InMemory(data))
    assert error.value.code == "DIVERGED"


def test_stepwise_reaches_what_sweeps_reach():
    data = line(20_000, (-2.0, 2.0))
    exact, history = fitted(data, tolerance=1e-8)
    stepwise, rough = fitted(data, batch=500, stepwise=True, iterations=6)
    assert rough.sweeps <= 6
    assert rough.objectives[-1] > history.objectives[-1] - 2e-3
    assert torch.allclose(stepwise.m.sort().values, exact.m.sort().values, atol=0.1)


def test_stepwise_is_ahead_after_one_sweep():
    data = line(20_000, OVERLAPPING)
    _, sweeps = fitted(data, iterations=2, accelerate=False)
    _, steps = fitted(data, batch=500, iterations=2, stepwise=True)
    assert steps.objectives[-1] > sweeps.objectives[-1]


def test_the_start_is_a_random_part_that_the_seed_decides():
    data = line(1_000)
    some = subsample(data, 3, most=100)
    assert len(set(some.index.tolist())) == 100
    assert torch.equal(some.index, some.index.sort().values)
    assert torch.equal(some.index, subsample(data, 3, most=100).index)
    assert not torch.equal(some.index, subsample(data, 4, most=100).index)
    assert some.index.max() > 800  # not the head of the data
    assert len(subsample(data, 3, most=5_000).x) == 1_000


def test_progress_goes_through_the_journal(capsys):
    told = []
    journal = Journal()
    journal.listen(told.append)
    _, history = fitted(line(500), iterations=5, tolerance=0.0, accelerate=False, journal=journal)
    sweeps = [said for said in told if said["event"] == "sweep"]
    assert [said["sweep"] for said in sweeps] == [1, 2, 3, 4, 5]
    assert [said["objective"] for said in sweeps] == list(history.objectives)
    assert told[-1]["event"] == "learned"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 7, 100, 1_000])
def test_the_ranks_share_the_records_out(ranks, batch):
    data = line(100)
    shares = [[b.index for b in data.sweep(batch, rank, ranks)] for rank in range(ranks)]
    seen = [index for share in shares for piece in share for index in piece.tolist()]
    assert sorted(seen) == list(range(100))
    assert max(len(piece) for share in shares for piece in share) == min(batch, 100)


def test_every_update_is_about_all_the_units_there_are():
    class Counting(Normals):
        """Remembers how many units each update was about, which is what a prior is weighed against."""

        counted = ()

        def absorb(self, statistics):
            self.counted += (float(statistics["n"].sum()),)
            return super().absorb(statistics)

    units = torch.full((1_000,), 2.5, dtype=torch.float64)
    data = InMemory(batch_of(line(1_000).whole.x, units))
    for stepwise in (False, True):
        family = Counting(Normals.Config(components=2))
        begin(family, data, 0)
        learn(family, data, batch=300, config=Learning(iterations=3, tolerance=0.0, stepwise=stepwise))
        assert family.counted == pytest.approx([2_500.0] * len(family.counted))
        assert len(family.counted) == (9 if stepwise else 3)


@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical", "factors"])
@pytest.mark.parametrize("missing", [False, True])
def test_a_mixture_learned_out_of_core_is_the_one_learned_in_memory(covariance, missing):
    x = torch.randn(600, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).cumsum(1)
    x[::2] += 6
    if missing:
        x[::5, 1] = x[::7, 2] = float("nan")
    kind, ends = FAMILIES.load("gmm"), []
    for batch in (600, 37):
        family = kind(kind.Config(components=3, covariance=covariance, rank=2), Continuous(shape=(4,), axes=("column",)), None)
        begin(family, InMemory(batch_of(x)), 0)
        history = learn(family, InMemory(batch_of(x)), batch=batch, config=Learning(iterations=20, tolerance=0.0))
        gains = [b - a for a, b in zip(history.objectives, history.objectives[1:], strict=False)]
        assert min(gains) > -1e-9
        ends.append((family.coordinates(), history.objectives))
    assert torch.allclose(ends[0][0], ends[1][0], rtol=1e-9, atol=1e-9)
    assert ends[0][1] == pytest.approx(ends[1][1], abs=1e-9)
