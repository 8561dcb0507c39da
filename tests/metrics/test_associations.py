"""Measures of tables: the numbers of SDMetrics, what they are there to see, and which tables are refused."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn import datasets

from verossim.errors import BadData, Incompatible
from verossim.metrics import Sample, measure
from verossim.metrics.associations import Associations
from verossim.spaces import Records


def numbers(name: str, real: Records, made: Records, **settings) -> dict:
    return {m.name: m.interval for m in measure(name, real, made, **settings)}


def frame(seed: int, count: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=count)
    out = pd.DataFrame({"a": a, "b": a + 0.5 * rng.normal(size=count), "whole": rng.integers(0, 11, count),
                        "kind": np.where(a > 0.5, "x", np.where(a > -0.5, "y", "z")), "truth": rng.random(count) < 0.3,
                        "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.exponential(50, count).astype(int), "D")})
    out.loc[rng.random(count) < 0.1, "b"] = np.nan
    out.loc[rng.random(count) < 0.1 + 0.1 * seed, "kind"] = None
    return out


def rows(data: pd.DataFrame) -> Records:
    return Records({name: pa.array(data[name], from_pandas=True) for name in data})


def widened() -> pd.DataFrame:
    return frame(1).assign(a=lambda d: d["a"] * 1.3).iloc[:250]


def narrowed() -> pd.DataFrame:
    return widened()[lambda d: (d["a"].abs() < 1.5) & (d["kind"] != "z")]


#: Of SDMetrics 0.32.0, by `python benchmarks/tables.py`.
SHAPES = {"a": 0.9013333, "b": 0.9463902, "whole": 0.9746667, "kind": 0.9054135, "truth": 0.9953333, "day": 0.964}
TRENDS = {("a", "b"): 0.9979781, ("a", "whole"): 0.9853229, ("a", "kind"): 0.8006667, ("a", "truth"): 0.8406667, ("a", "day"):
          0.9602578, ("b", "whole"): 0.9869094, ("b", "kind"): 0.7933333, ("b", "truth"): 0.874, ("b", "day"): 0.9869067,
          ("whole", "kind"): 0.804, ("whole", "truth"): 0.8626667, ("whole", "day"): 0.9897351, ("kind", "truth"): 0.874,
          ("kind", "day"): 0.8206667, ("truth", "day"): 0.89}
MISSING, COVERAGE = 0.9724074074, 0.7541046647


def test_column_shapes_are_those_of_sdmetrics():
    ours = Associations().columns(Sample(rows(frame(0))), Sample(rows(widened())))
    assert ours == pytest.approx(SHAPES, abs=1e-5)


def test_pair_trends_are_those_of_sdmetrics():
    ours = Associations().pairs(Sample(rows(frame(0))), Sample(rows(widened())))
    assert len(ours) == 15 and ours == pytest.approx(TRENDS, abs=1e-5)


def test_missing_and_coverage_are_those_of_sdmetrics():
    found = numbers("associations", rows(frame(0)), rows(narrowed()), rounds=40)
    assert found["missing_similarity"].value == pytest.approx(MISSING, abs=1e-9)
    assert found["range_coverage"].value == pytest.approx(COVERAGE, abs=1e-9) and COVERAGE < 0.95


def test_associations_are_calm_on_halves_and_see_columns_shuffled_each_for_itself():
    wine = datasets.load_wine(as_frame=True).frame.astype({"target": str})[["alcohol", "ash", "flavanoids", "hue", "target"]]
    wine = wine.iloc[np.random.default_rng(0).permutation(len(wine))]
    real, half = wine[:89], wine[89:]
    calm = numbers("associations", rows(real), rows(half), rounds=100)
    for name in ("column_shapes", "pair_trends"):
        assert calm[name].p_value > 0.05 and calm[name].high == 1
    rng = np.random.default_rng(1)
    broken = pd.DataFrame({name: rng.permutation(half[name]) for name in half})
    out = measure("associations", rows(real), rows(broken), rounds=100)
    found = {m.name: m.interval for m in out}
    assert found["column_shapes"].value == pytest.approx(calm["column_shapes"].value)
    assert found["pair_trends"].p_value < 0.02 and found["pair_trends"].high < calm["pair_trends"].value
    assert any("flavanoids with target" in note for note in out[0].notes)


def test_a_collapsed_column_counts_and_a_real_constant_has_no_trend():
    real = frame(0).assign(one=1.0)
    made = frame(1).assign(one=1.0, a=0.0)
    ours = Associations().pairs(Sample(rows(real)), Sample(rows(made)))
    rho = real[["a", "b"]].corr().iloc[0, 1]
    assert ours["a", "b"] == pytest.approx(1 - abs(rho) / 2)
    assert np.isnan(ours["a", "one"])
    told = measure("associations", rows(real), rows(made), rounds=40)
    assert any("no trend" in note for note in told[0].notes) and all(np.isfinite(m.value) for m in told)
    assert Associations().columns(Sample(rows(real)), Sample(rows(made)))["one"] == 1


def test_intervals_rest_on_some_records_and_are_scaled_to_all():
    real, made = (rows(frame(seed, 1600)[["a", "kind"]]) for seed in (0, 1))
    few, all_ = (numbers("associations", real, made, rows=n, rounds=40)["column_shapes"] for n in (400, 1600))
    assert few.value == all_.value
    assert 0.4 < (few.value - few.low) / (all_.value - all_.low) < 2.5


def test_tables_that_cannot_be_compared_are_refused():
    data = rows(frame(0))
    with pytest.raises(Incompatible, match="no column 'whole'") as found:
        measure("associations", data, data.without("whole"))
    assert found.value.code == "METRIC_COLUMN"
    with pytest.raises(Incompatible, match="holds"):
        measure("associations", data, data.with_columns(a=pa.array(["x"] * 300)))
    with pytest.raises(BadData, match="infinite in record 8") as found:
        measure("associations", data, data.with_columns(a=pa.array([0.0] * 7 + [np.inf] * 293)))
    assert found.value.code == "METRIC_NONFINITE"
    names = Records({"name": pa.array([f"n{k}" for k in range(60)])})
    with pytest.raises(BadData, match="no column that can be compared") as found:
        measure("associations", names, names)
    assert found.value.code == "METRIC_EMPTY"


def test_the_same_inputs_and_seed_give_the_same_bytes():
    once, again = (measure("associations", rows(frame(0)), rows(widened()), seed=3, rounds=40) for _ in range(2))
    assert repr([m.plain() for m in once]) == repr([m.plain() for m in again])
    for m in once:
        assert m.interval.low is None or m.interval.low <= m.value <= m.interval.high
