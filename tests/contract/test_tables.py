"""The table codec: what comes back, to which precision, and how sure one can be of it."""

import datetime

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from test_codecs import table

from verossim.codecs.table import Table, TableConfig
from verossim.errors import BadData
from verossim.spaces import Records

few = settings(derandomize=True, max_examples=40, deadline=None)


def round_trip(records: Records, **config) -> Records:
    codec = Table(TableConfig(**config)).fit([records])
    problems: list = []
    parsed = codec.parse(records, problems)
    assert not problems
    return codec.decode(codec.encode(parsed))


def test_a_table_comes_back_with_its_names_order_types_and_gaps():
    records = table()
    back = round_trip(records)
    assert list(back.columns) == list(records.columns)
    for name, column in records.columns.items():
        assert back.columns[name].type == column.type
        if name == "key":
            assert back.columns[name].to_pylist() == [f"k{24 + i:03d}" for i in range(24)]
        elif name in ("real", "gaps"):
            np.testing.assert_allclose(*(np.array(c.to_pylist(), float) for c in (back.columns[name], column)), atol=1e-5)
        else:
            assert back.columns[name].to_pylist() == column.to_pylist()


def cells_of(kind: pa.DataType, values: some.SearchStrategy) -> some.SearchStrategy:
    """Columns of an Arrow type, with gaps."""
    return some.tuples(some.just(kind), some.lists(some.none() | values, min_size=2, max_size=30))


COLUMNS = some.one_of(
    cells_of(pa.int64(), some.integers(10**9, 10**9 + 1000)),
    cells_of(pa.int8(), some.integers(-128, 127)),
    cells_of(pa.uint32(), some.integers(0, 2**20)),
    cells_of(pa.bool_(), some.booleans()),
    cells_of(pa.string(), some.sampled_from(["red", "é", "1", "a b", "no"])),
    cells_of(pa.date32(), some.dates()),
    cells_of(pa.timestamp("s"), some.integers(0, 10**6).map(datetime.datetime.fromtimestamp)),
    cells_of(pa.duration("ms"), some.integers(0, 10**6).map(lambda n: datetime.timedelta(milliseconds=n))),
    cells_of(pa.time32("s"), some.times().map(lambda t: t.replace(microsecond=0))),
)


@few
@given(COLUMNS, some.sampled_from(["value", "unknown"]))
def test_whole_numbers_words_and_dates_come_back_exactly(column, missing):
    kind, cells = column
    records = Records({"anchor": pa.array([0.5 * i for i in range(len(cells))]), "v": pa.array(cells, kind)})
    back = round_trip(records, missing=missing).columns["v"]
    constant = len(set(cells) - {None}) < 2
    if not (constant and missing == "unknown"):
        assert back.to_pylist() == records.columns["v"].to_pylist()
    assert back.type == kind


@few
@given(cells_of(pa.float32(), some.floats(-1e12, 1e12)) | cells_of(pa.float64(), some.floats(-1e12, 1e12)))
def test_real_numbers_come_back_to_the_precision_of_x(column):
    kind, cells = column
    column = pa.array(cells, kind)
    back = round_trip(Records({"v": column, "anchor": pa.array(range(0, 2 * len(cells), 2))})).columns["v"]
    assert back.type == kind and back.is_null().equals(column.is_null())
    values, found = (c.drop_null().to_numpy().astype(float) for c in (column, back))
    loss = 2.0**-22 * (np.abs(values).max() + np.ptp(values)) if len(values) else 0
    assert np.all(np.abs(found - values) <= loss)


@settings(few, max_examples=15)
@given(some.lists(some.integers(-10**6, 10**6), min_size=4, max_size=40), some.integers(2, 9))
def test_blocks_do_not_change_what_is_learned(cells, size):
    columns = {"n": pa.array(cells), "t": pa.array([f"{n / 8}" for n in cells]), "w": pa.array(["ab"[n % 2] for n in cells])}
    blocks = [Records({name: c.slice(i, size) for name, c in columns.items()}, first=i) for i in range(0, len(cells), size)]
    try:
        one = Table(TableConfig()).fit([Records(columns)])
    except BadData:
        with pytest.raises(BadData):
            Table(TableConfig()).fit(blocks)
        return
    many = Table(TableConfig()).fit(blocks)
    for a, b in zip(one.state()["columns"], many.state()["columns"], strict=True):
        # the centre of whole numbers is the whole number nearest the mean, of which there may be two
        loose = {"mean": 1 if b["kind"] == "integer" else 1e-9, "std": 1e-9}
        moments = {name: pytest.approx(b[name], rel=1e-9, abs=loose[name]) for name in loose if name in b}
        assert a == b | moments


def test_large_numbers_of_small_spread_keep_their_digits():
    values = [10**18 + n for n in (3, 1, 4, 1, 5, 9, 2, 6)]
    back = round_trip(Records({"v": pa.array(values)}))
    assert back.columns["v"].to_pylist() == values


def test_a_whole_number_is_a_cell_and_a_wide_one_is_real():
    narrow = Records({"v": pa.array([1, 2, 3, 7, 12])})
    codec = Table(TableConfig()).fit([narrow])
    x = codec.encode(codec.parse(narrow, []))
    assert codec.space.widths == pytest.approx((1 / np.std([1, 2, 3, 7, 12]),))
    assert float(x[1] - x[0]) == pytest.approx(codec.space.widths[0], rel=1e-6)
    assert codec.log_volume(x).tolist() == [0.0] * 5
    values = np.array([1, 2, 3, 7, 12]) * 10**9
    wide = Table(TableConfig()).fit([Records({"v": pa.array(values)})])
    assert wide.space.widths == ()
    assert wide.log_volume(x).tolist() == pytest.approx([-np.log(np.std(values))] * 5)


def test_log_volume_is_the_slope_of_encode():
    v = np.array([0.5, 2.0, 3.0, 8.0, 20.0])
    records = Records({"real": pa.array(v), "log": pa.array(v), "gaps": pa.array([None, 1.0, 2.0, 5.5, None]),
                       "n": pa.array([1, 2, 3, 4, 9]), "w": pa.array(list("abcab"))})
    codec = Table(TableConfig(types=("log=positive",))).fit([records])
    x = codec.encode(codec.parse(records, []))
    expected = -np.log(v.std()) - np.log(np.log(v).std()) - np.log(v)
    expected[1:4] -= np.log(np.std([1.0, 2.0, 5.5]))
    np.testing.assert_allclose(codec.log_volume(x).numpy(), expected, rtol=1e-6)

    place = codec.places[1][0]
    moved = (records.with_columns(log=pa.array(v * factor)) for factor in (0.99, 1.01))
    below, above = (codec.encode(codec.parse(nearby, []))[:, place] for nearby in moved)
    np.testing.assert_allclose((above - below).numpy() / (0.02 * v), 1 / (np.log(v).std() * v), rtol=1e-3)
    np.testing.assert_allclose(codec.decode(x).columns["log"].to_numpy(), v, rtol=1e-5)


def test_missing_cells_have_an_indicator_or_are_unknown():
    records = Records({"v": pa.array([1.5, None, 2.5, 9.0]), "w": pa.array(["a", None, "b", "b"])})
    codec = Table(TableConfig()).fit([records])
    assert codec.space.simplexes == ((1, 3), (3, 5), (5, 7))
    parsed = codec.parse(records, [])
    x = codec.encode(parsed)
    assert x[1, [0, 3, 4]].isnan().all() and x[1, [1, 2, 5, 6]].tolist() == [0, 1, 0, 1]
    assert x[0, 1:].tolist() == [1, 0, 1, 0, 1, 0]
    asked = codec.encode(parsed, unknown=True)
    assert asked[1, [0, 3, 4]].isnan().all() and asked[1, [1, 2, 5, 6]].tolist() == [1, 0, 1, 0]

    unknown = Table(TableConfig(missing="unknown")).fit([records])
    assert unknown.space.simplexes == ((1, 3),)
    assert unknown.encode(parsed)[1].isnan().all()
    assert unknown.space.coordinates == 2


def test_gaps_that_training_had_not_are_unknown():
    codec = Table(TableConfig()).fit([Records({"v": pa.array([1.5, 2.5]), "w": pa.array(["a", "b"])})])
    parsed = codec.parse(Records({"v": pa.array([None, 2.0]), "w": pa.array([None, "b"])}), problems := [])
    assert not problems
    assert codec.encode(parsed)[0].isnan().all()


def test_decode_leaves_known_cells_as_they_were():
    records = Records({"v": pa.array([1 / 3, None, 2 / 3]), "w": pa.array([None, "a", "b"]), "key": pa.array(["r", "s", "t"]),
                       "n": pa.array([10**15 + 1, None, 3])})
    codec = Table(TableConfig(types=("key=identifier",))).fit([records])
    parsed = codec.parse(records, [])
    x = codec.encode(parsed, unknown=True).nan_to_num(0.25)
    filled = codec.decode(x, known=parsed).columns
    assert filled["v"].to_pylist()[::2] == [1 / 3, 2 / 3]
    assert filled["w"].to_pylist() == ["a", "a", "b"]
    assert filled["key"].to_pylist() == ["r", "s", "t"]
    assert filled["n"].to_pylist()[::2] == [10**15 + 1, 3]
    assert all(column.null_count == 0 for column in filled.values())


def test_new_numbers_stay_in_the_observed_range_unless_told():
    records = Records({"v": pa.array([1.0, 2.0, 4.0]), "n": pa.array([1, 5, 3], pa.uint8())})
    far = torch.tensor([[100.0, 1e9], [-100.0, -1e9], [float("inf"), float("-inf")]])
    clipped = Table(TableConfig()).fit([records]).decode(far).columns
    assert clipped["v"].to_pylist() == [4.0, 1.0, 4.0]
    assert clipped["n"].to_pylist() == [5, 1, 1]
    free = Table(TableConfig(bounds="none")).fit([records]).decode(far).columns
    assert free["v"].to_pylist()[0] > 100
    assert free["n"].to_pylist() == [255, 0, 0]


@pytest.mark.parametrize(("cells", "back"), [
    (["Yes", "No", "Yes"], None), (["f", "t", "t"], None),
    (["31/01/2024", "01/12/2023"], None), (["5.1.2024", "31.12.2024"], None),
    (["2024-01-01 10:30", "2024-01-02 11:45"], None), (["2024-01-01T10:30:05Z", "2023-01-01T10:30:05Z"], None),
    (["2024-01-01T10:30:00+02:00", "2024-01-01T10:30:00+00:00"], ["2024-01-01T08:30:00Z", "2024-01-01T10:30:00Z"]),
    (["1", "2", "7"], [1, 2, 7]), ([" a", "b ", "a"], ["a", "b", "a"]), (["0001-01-01", "9999-12-31"], None),
])
def test_text_columns_come_back_as_they_were_written_and_numbers_as_numbers(cells, back):
    assert round_trip(Records({"v": pa.array(cells)})).columns["v"].to_pylist() == (back or cells)


def test_types_can_be_set():
    records = Records({"zip": pa.array([1010, 2020, 1010, 3030]), "flag": pa.array([0, 1, 1, 0]),
                       "age": pa.array(["1", "2", "3", "4"])})
    codec = Table(TableConfig(types=("zip=category", "flag=boolean", "age=real"))).fit([records])
    assert [row["type"] for row in codec.describe()] == ["category", "boolean", "real"]
    back = codec.decode(codec.encode(codec.parse(records, []))).columns
    assert back["zip"].equals(records.columns["zip"]) and back["flag"].equals(records.columns["flag"])
    assert back["age"].type == pa.float64()


def test_frames_keep_integers_with_gaps_as_floats():
    codec = Table(TableConfig()).fit([Records({"v": pa.array([1.0, None, 5.0]), "r": pa.array([1.0, 2.0, 5.0])})])
    assert [row["type"] for row in codec.describe()] == ["integer", "real"]
    assert codec.decode(torch.zeros(1, 4)).columns["v"].type == pa.float64()


def test_what_was_trained_on_text_scores_typed_columns_and_the_other_way():
    text = Records({"n": pa.array(["1", "2", "9"]), "w": pa.array(["a", "b", "a"]), "t": pa.array(["yes", "no", "no"]),
                    "d": pa.array(["2024-01-01", "2024-02-01", "2024-03-01"])})
    typed = Records({"n": pa.array([1, 2, 9]), "w": text.columns["w"].dictionary_encode(), "t": pa.array([True, False, False]),
                     "d": pa.array([datetime.date(2024, month, 1) for month in (1, 2, 3)])})
    for trained, scored in ((text, typed), (typed, text)):
        codec = Table(TableConfig()).fit([trained])
        assert torch.equal(codec.encode(codec.parse(trained, [])), codec.encode(codec.parse(scored, [])))


# ---- labels --------------------------------------------------------------------------------------------------------------


def test_identifiers_that_are_missing_are_not_invented_where_cells_are_filled_in():
    names = pa.array([None if i == 3 else f"n{i:03d}" for i in range(30)])
    records = Records({"name": names, "x": pa.array([None if i == 5 else i / 7 for i in range(30)])})
    codec, problems = Table(TableConfig()).fit([records]), []
    assert codec.describe()[0]["type"] == "identifier"
    parsed = codec.parse(records, problems)
    filled = codec.decode(codec.encode(parsed, unknown=True).nan_to_num(0.25), known=parsed).columns
    assert filled["name"].to_pylist() == names.to_pylist() and filled["x"].null_count == 0
