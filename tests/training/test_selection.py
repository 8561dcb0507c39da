"""The right number of groups is found, its criteria are what they are called, and doubt is said aloud."""

import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from tiny import LINE, Normals, batch_of, line

from verossim.config import knob
from verossim.errors import BadConfig, BadData
from verossim.shelves import FAMILIES
from verossim.spaces import Continuous, Discrete
from verossim.training import InMemory, Journal, candidates, plan, select, wants_selection

AUTO = Normals.Config(components="auto", covariance="shared")


def chosen(centres, config=AUTO, seed=0, records=900, journal=None, resamples=10):
    train, held_out = line(records, centres, seed), line(records // 3, centres, seed + 100)
    return select(Normals, candidates(Normals, config, LINE, records), train, held_out, seed, journal, resamples)


@pytest.mark.parametrize("seed", range(3))
def test_three_groups_are_found_and_are_stable(seed):
    selection = chosen((-9.0, 0.0, 9.0), seed=seed)
    assert selection.choice.config.components == 3
    assert selection.stability > 0.95
    assert selection.agreed
    assert selection.warnings == ()
    assert len(selection.scores) == 10


def test_the_criteria_are_what_they_are_called():
    selection = chosen((-2.0, 2.0), resamples=0)
    for row in selection.rows:
        assert row.bic == pytest.approx(row.freedom * math.log(900) - 2 * row.log_likelihood)
        assert row.icl >= row.bic
    one = next(row for row in selection.rows if row.config.components == 1)
    x = line(900, (-2.0, 2.0)).whole.x
    normal = torch.distributions.Normal(x.mean(), x.std(correction=0))
    assert one.freedom == 2
    assert one.log_likelihood == pytest.approx(float(normal.log_prob(x).sum()), rel=1e-9)
    assert one.icl == one.bic  # one group: every record is surely in it
    assert one.held_out == pytest.approx(float(normal.log_prob(line(300, (-2.0, 2.0), 100).whole.x).mean()), rel=1e-9)
    assert min(selection.rows, key=lambda row: row.bic) is selection.choice


@pytest.mark.parametrize("seed", range(3))
def test_groups_that_are_not_there_are_called_unstable(seed):
    told = []
    three_groups = [Normals.Config(components=3, covariance="free")]  # asked of one bell
    train, held_out = line(300, (0.0,), seed), line(100, (0.0,), seed + 50)
    selection = select(Normals, three_groups, train, held_out, seed, Journal(None, told.append))
    assert selection.stability < 0.7
    assert "not stable" in selection.warnings[0]
    assert "SELECT_UNSTABLE" in [said.get("code") for said in told if said["event"] == "warning"]


def test_disagreement_of_the_criteria_is_said():
    told = []
    selection = chosen((-1.4, 1.4), records=3_000, journal=Journal(None, told.append), resamples=2)
    icl = min(selection.rows, key=lambda row: row.icl)
    assert icl.config.components == 1  # groups that overlap are no groups to ICL, but two normals to BIC
    assert selection.choice.config.components == 2
    assert not selection.agreed
    assert any("ICL chooses 1 components" in warning for warning in selection.warnings)
    assert "SELECT_DISAGREE" in [said.get("code") for said in told if said["event"] == "warning"]


def test_larger_sizes_are_not_tried_once_bic_worsens_twice():
    selection = chosen((-9.0, 9.0), resamples=0)
    assert [row.config.components for row in selection.rows] == [1, 2, 3, 4]


def test_every_open_setting_is_tried_and_nothing_else():
    config = Normals.Config(components="auto", covariance="auto")
    assert wants_selection(config)
    configs = candidates(Normals, config, LINE, 30)
    assert [(c.covariance, c.components) for c in configs] == [(s, k) for s in ("free", "shared") for k in range(1, 7)]
    fixed = Normals.Config(components=2, covariance="auto")
    assert [(c.components, c.covariance) for c in candidates(Normals, fixed, LINE, 30)] == [(2, "free"), (2, "shared")]
    assert not wants_selection(Normals.Config(components=2, covariance="free"))


def test_candidates_that_cannot_be_fitted_are_left_out():
    def build(config):
        if config.components == 2:
            raise BadConfig("PLAN_MEMORY", "Too large.")
        return Normals(config)

    train = line(200, (-9.0, 9.0))
    selection = select(build, candidates(Normals, AUTO, LINE, 200), train, line(50, (-9.0, 9.0), 1), 0, resamples=0)
    assert 2 not in [row.config.components for row in selection.rows]
    with pytest.raises(BadData) as error:
        select(build, [replace(AUTO, components=2)], train, train, 0)
    assert error.value.code == "SELECT_NONE"


def test_without_held_out_records_the_rest_still_chooses():
    selection = select(Normals, candidates(Normals, AUTO, LINE, 300), line(300, (-9.0, 9.0)), line(0), 0, resamples=2)
    assert selection.choice.config.components == 2
    assert math.isnan(selection.choice.held_out)
    assert json.loads(json.dumps(selection.plain(), allow_nan=False))["choice"]["components"] == 2


@dataclass(frozen=True, kw_only=True)
class Shaped:
    """Settings of the names that decide memory."""

    components: int | str = knob(10, "groups", choices=("auto",))
    covariance: str = knob("full", "shape", choices=("full", "tied", "diag", "spherical", "factors", "auto"))
    rank: int = knob(8, "factors")


def test_what_cannot_fit_is_refused_with_the_way_out():
    wide = Continuous(shape=(20_000,), axes=("column",))
    with pytest.raises(BadConfig) as error:
        plan(wide, 1_000, Shaped(), limit=20 << 30)
    assert error.value.code == "PLAN_MEMORY"
    assert "'covariance' is 'full'" in error.value.message
    assert "'diag'" in error.value.hint
    assert "'factors'" in error.value.hint
    assert "'tied'" not in error.value.hint  # one matrix and its copies take 24 GiB
    for covariance in ("diag", "factors"):
        assert plan(wide, 1_000, Shaped(covariance=covariance), limit=20 << 30).bytes < 20 << 30


def test_too_many_components_are_refused_with_a_number_that_fits():
    space, limit = Continuous(shape=(500,), axes=("column",)), 1 << 30
    with pytest.raises(BadConfig) as error:
        plan(space, 10_000, Shaped(components=5_000, covariance="full"), limit=limit)
    most = int("".join(c for c in error.value.hint.split("at most")[1] if c.isdigit()))
    assert plan(space, 10_000, Shaped(components=most), limit=limit).bytes <= limit
    with pytest.raises(BadConfig):
        plan(space, 10_000, Shaped(components=most + 100), limit=limit)


def test_classes_count_as_components():
    space, label = Continuous(shape=(100,), axes=("column",)), Discrete(shape=(), vocabulary=1_000, pad=-1)
    assert plan(space, 100, Shaped(), limit=1 << 30).bytes < 1 << 30
    with pytest.raises(BadConfig):
        plan(space, 100, Shaped(), label, limit=1 << 30)


@pytest.mark.parametrize("dims", [1, 64, 3_072, 200_000])
def test_a_batch_is_bounded_in_bytes_whatever_the_records(dims):
    space = Continuous(shape=(dims,), axes=("column",))
    batch = plan(space, 10_000_000, Shaped(covariance="diag"), limit=1 << 40).batch
    assert batch >= 64  # fewer, and calls cost more than sums
    assert batch == 64 or batch * dims * 8 <= 64 << 20
    assert batch < 10_000_000  # narrow records too come in batches
    assert plan(space, 5, Shaped(covariance="diag"), limit=1 << 40).batch == 5


def test_the_machine_has_some_memory():
    assert plan(LINE, 10, Normals.Config(components=2)).bytes > 0


def stretched(seed):
    """Three round groups stretched along one diagonal, where Euclidean starts fail; (train, held out)."""
    from sklearn.datasets import make_blobs

    X, _ = make_blobs(1_500, random_state=170)
    X = X @ np.array([[0.6, -0.6], [-0.4, 0.8]])
    order = np.random.default_rng(seed).permutation(1_500)
    X = torch.from_numpy(((X - X.mean(axis=0)) / X.std(axis=0))[order])
    return InMemory(batch_of(X[:1_350])), InMemory(batch_of(X[1_350:]))


def mixtures(covariance, seed, resamples):
    kind = FAMILIES.load("gmm")
    train, held_out = stretched(seed)
    plane = Continuous(shape=(2,), axes=("column",))
    configs = candidates(kind, kind.Config(components="auto", covariance=covariance), plane, len(train))
    configs = [config for config in configs if config.components <= 6]
    return select(lambda config: kind(config, plane, None), configs, train, held_out, seed, resamples=resamples)


@pytest.mark.parametrize("seed", range(3))
def test_three_stretched_groups_are_three(seed):
    selection = mixtures("full", seed, 3)
    assert selection.choice.config.components == 3
    assert selection.stability > 0.95


def test_three_stretched_groups_of_one_shape_are_found_among_all_shapes():
    selection = mixtures("auto", 0, 3)
    assert selection.choice.config.components == 3
    assert selection.choice.config.covariance == "tied"  # one stretch made all three
    assert selection.agreed
    assert selection.stability > 0.95
    settings = [(row.config.covariance, row.config.components) for row in selection.rows]
    assert len(settings) == len(set(settings))  # a shape under two names is tried once
