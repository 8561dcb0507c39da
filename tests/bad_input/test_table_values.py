"""Cells as they come: what cannot be used is named with its column and record, what is odd but sound is read right."""

import datetime

import numpy as np
import pyarrow as pa
import pytest
import torch

from verossim.codecs.table import Table, TableConfig
from verossim.errors import BadConfig, BadData, Incompatible, VerossimError
from verossim.spaces import Problem, Records


def text(**columns) -> Records:
    """Records as a CSV reader gives them: every column is text."""
    return Records({name: pa.array(cells, pa.string()) for name, cells in columns.items()}, "people.csv")


def fitted(records: Records, **settings) -> Table:
    return Table(TableConfig(**settings)).fit([records])


def parsed(codec: Table, records: Records) -> tuple[dict, list[Problem]]:
    problems: list[Problem] = []
    kept = codec.parse(records, problems)
    return {name: column.to_pylist() for name, column in kept.columns.items()}, problems


def kinds(codec: Table) -> dict[str, str]:
    return {row["column"]: row["type"] for row in codec.describe()}


NUMBERS = [str(n) for n in (3, 1, 4, 1, 5, 9, 2, 6)]


@pytest.mark.parametrize(("cell", "code", "words"), [
    ("inf", "TAB_NONFINITE", "infinite"),
    ("-Infinity", "TAB_NONFINITE", "infinite"),
    ("1e999", "TAB_NONFINITE", "1e999"),
    ("7" * 5000, "TAB_NUMBER", "5,000 digits"),
    ("abc", "TAB_TYPE", "'abc'"),
    ("1e308", "TAB_RANGE", "1e+307"),
    ("-3.5e200", "TAB_RANGE", "standard deviations"),
    ("0x10", "TAB_TYPE", "0x10"),
    ("1_000", "TAB_TYPE", "1_000"),
    ("٣", "TAB_TYPE", "٣"),
])
def test_a_number_that_cannot_be_used_is_named(cell, code, words):
    codec = fitted(text(age=["0.5", *NUMBERS]))
    kept, problems = parsed(codec, text(age=["1", cell, "2"]))
    assert kept == {"age": [1.0, 2.0]}
    (problem,) = problems
    assert problem.code == code
    assert words in problem.message
    assert "'age'" in problem.message and "people.csv, record 2" in problem.message
    assert problem.hint and len(problem.message) < 300


@pytest.mark.parametrize("cell", ["inf", "1e999", "7" * 5000])
def test_infinite_cells_in_training_leave_a_number_column_one(cell):
    codec = fitted(text(age=[*NUMBERS, cell]))
    assert kinds(codec)["age"] in ("real", "integer")
    kept, problems = parsed(codec, text(age=[*NUMBERS, cell]))
    assert len(kept["age"]) == len(NUMBERS)
    assert len(problems) == 1


def test_typed_infinity_is_named_and_nan_is_missing():
    records = Records({"v": pa.array([1.0, float("inf"), float("nan"), None, 2.5])})
    codec = fitted(records)
    kept, problems = parsed(codec, records)
    assert kept["v"] == [1.0, None, None, 2.5]
    assert [p.code for p in problems] == ["TAB_NONFINITE"]


def test_the_words_for_missing_are_missing():
    cells = ["1", "", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "-", " ", "2"]
    codec = fitted(text(v=cells))
    kept, problems = parsed(codec, text(v=cells))
    assert kept["v"] == [1] + [None] * 11 + [2]
    assert not problems
    assert codec.describe()[0]["missing"] == 11


def test_mixed_cells_make_a_category_with_a_warning():
    codec = fitted(text(v=["12", "abc", "3.5", "12"]))
    assert kinds(codec) == {"v": "category"}
    assert any("TAB_TYPE" in note and "'abc' in record 2" in note for note in codec.notes)


def test_mixed_cells_are_problems_where_the_type_was_set():
    records = text(v=["12", "abc", "3.5", "12"])
    codec = fitted(records, types=("v=real",))
    kept, problems = parsed(codec, records)
    assert kept["v"] == [12.0, 3.5, 12.0]
    assert [(p.code, "'abc'" in p.message) for p in problems] == [("TAB_TYPE", True)]


def test_a_fraction_is_not_an_integer():
    codec = fitted(text(v=NUMBERS))
    kept, problems = parsed(codec, text(v=["2.0", "2.5"]))
    assert kept["v"] == [2]
    assert [p.code for p in problems] == ["TAB_TYPE"]


def test_what_is_not_positive_is_named_where_the_scale_is_logarithmic():
    records = text(v=["1", "0", "-2", "100"])
    kept, problems = parsed(fitted(records, types=("v=positive",)), records)
    assert kept["v"] == [1.0, 100.0]
    assert [p.code for p in problems] == ["TAB_RANGE", "TAB_RANGE"]


def test_new_categories_are_named_with_near_ones():
    codec = fitted(text(v=["red", "green", "blue", "red"]))
    kept, problems = parsed(codec, text(v=["red", "gren"]))
    assert kept["v"] == ["red"]
    assert problems[0].code == "TAB_CATEGORY"
    assert "green" in problems[0].hint


def test_new_categories_are_pooled_where_rare_ones_were():
    words = [f"w{i}" for i in range(10) for _ in range(20 - i)]
    codec = fitted(text(v=words), categories=4)
    assert codec.space.shape == (4,)
    x = codec.encode(codec.parse(text(v=["w9", "never seen", "w0"]), problems := []))
    assert not problems
    assert codec.decode(x).columns["v"].to_pylist() == ["w3", "w3", "w0"]
    assert any(note.startswith("TAB_CATEGORY") for note in codec.notes)


@pytest.mark.parametrize(("cells", "values"), [
    (["3,14", "2,5", "7", "-1,0e2"], [3.14, 2.5, 7.0, -100.0]),
    (["1,234,567", "12", "7,000.5"], [1_234_567.0, 12.0, 7000.5]),
    (["+5", "-3", ".5", "5.", "1E3"], [5.0, -3.0, 0.5, 5.0, 1000.0]),
])
def test_ways_of_writing_numbers(cells, values):
    codec = fitted(text(v=cells))
    assert kinds(codec) == {"v": "real"}
    assert parsed(codec, text(v=cells))[0]["v"] == values


def test_a_comma_that_could_divide_thousands_is_said():
    assert any(note.startswith("TAB_NUMBER") for note in fitted(text(v=["1,234", "2,500", "12"])).notes)
    assert not fitted(text(v=["1,23", "2,500", "12"])).notes


def test_a_comma_that_comes_late_does_not_undo_what_was_read():
    codec = Table(TableConfig()).fit([text(v=["10", "20"]), text(v=["30,5", "40"])])
    assert parsed(codec, text(v=["10", "30,5"]))[0]["v"] == [10.0, 30.5]
    mixed = Table(TableConfig()).fit([text(v=["10.5", "20"]), text(v=["30,5", "40"])])
    assert kinds(mixed) == {"v": "category"}


def test_leading_zeros_are_codes():
    codec = fitted(text(zip=["01234", "98765", "01234", "00501"]))
    assert kinds(codec) == {"zip": "category"}
    assert codec.decode(codec.encode(codec.parse(text(zip=["01234"]), []))).columns["zip"].to_pylist() == ["01234"]


def days(*cells: str) -> list:
    """The dates that a column of text cells is read as."""
    codec = fitted(text(d=list(cells)))
    assert kinds(codec) == {"d": "date"}
    step = datetime.timedelta(microseconds=codec.columns[0].unit)
    return [datetime.datetime(1970, 1, 1) + n * step for n in parsed(codec, text(d=list(cells)))[0]["d"]]


def test_dates_in_many_ways_of_writing():
    noon = datetime.datetime
    assert days("2024-02-29", "0001-01-01", "9999-12-31") == [noon(2024, 2, 29), noon(1, 1, 1), noon(9999, 12, 31)]
    assert days("31/01/2024", "01/02/2024") == [noon(2024, 1, 31), noon(2024, 2, 1)]
    assert days("01/31/2024", "01/02/2024") == [noon(2024, 1, 31), noon(2024, 1, 2)]
    assert days("31.1.2024", "1.2.2024") == [noon(2024, 1, 31), noon(2024, 2, 1)]
    assert days("2024-01-01T10:30:00Z", "2024-01-01T10:30:00+02:00", "2024-01-01T10:30:00-0530") == [
        noon(2024, 1, 1, 10, 30), noon(2024, 1, 1, 8, 30), noon(2024, 1, 1, 16, 0)]
    assert days("2024-01-01 10:30:00.25", "2024-01-01 00:00:00.000001")[0] == noon(2024, 1, 1, 10, 30, 0, 250_000)


def test_days_that_do_not_exist_are_no_dates():
    assert kinds(fitted(text(d=["2024-02-30", "2024-01-01"]))) == {"d": "category"}
    assert kinds(fitted(text(d=["2023-02-29", "2024-01-01"]))) == {"d": "category"}
    assert kinds(fitted(text(d=["0000-01-01", "2024-01-01"]))) == {"d": "category"}
    assert kinds(fitted(text(d=["2024-01-01 24:00", "2024-01-01"]))) == {"d": "category"}


def test_dates_that_could_be_read_both_ways_are_taken_day_first_and_said():
    codec = fitted(text(d=["01/02/2024", "03/04/2024"]))
    assert codec.describe()[0]["range"] == "01/02/2024 to 03/04/2024"
    assert parsed(codec, text(d=["01/02/2024"]))[0]["d"] == [(datetime.date(2024, 2, 1) - datetime.date(1970, 1, 1)).days]
    assert any(note.startswith("TAB_DATE") for note in codec.notes)


def test_dates_in_mixed_ways_make_a_category_or_problems_where_set():
    records = text(d=["2024-01-31", "31/01/2024", "2024-02-01", "soon"])
    codec = fitted(records)
    assert kinds(codec) == {"d": "category"}
    assert any("not all dates" in note for note in codec.notes)
    kept, problems = parsed(fitted(records, types=("d=date",)), records)
    assert len(kept["d"]) == 2
    assert [p.code for p in problems] == ["TAB_DATE", "TAB_DATE"]
    assert "'31/01/2024'" in problems[0].message


def test_moments_at_the_ends_of_time_do_not_crash():
    far = pa.array([-(2**62), 0, 2**62, 86_400], pa.timestamp("s"))
    codec = fitted(Records({"t": far}))
    kept, problems = parsed(codec, Records({"t": far}))
    assert kept["t"] == [0, 1]
    assert [p.code for p in problems] == ["TAB_DATE", "TAB_DATE"]


def test_all_missing_and_constant_columns_are_kept_and_said():
    records = text(v=NUMBERS, nothing=[""] * 8, same=["x"] * 8)
    codec = fitted(records)
    assert kinds(codec) == {"v": "integer", "nothing": "constant", "same": "constant"}
    assert codec.space.shape == (1,)
    assert sum(note.startswith("DATA_CONSTANT") for note in codec.notes) == 2
    out = codec.decode(torch.zeros(3, 1)).columns
    assert out["nothing"].to_pylist() == [None] * 3
    assert out["same"].to_pylist() == ["x"] * 3


def test_an_identifier_is_not_learned_nor_kept_and_numbered_anew():
    names = [f"P-{i * 37 % 1000:04d}" for i in range(50)]
    codec = fitted(text(v=NUMBERS * 6 + ["1", "2"], key=names, row=[str(i) for i in range(50)]))
    assert kinds(codec) == {"v": "integer", "key": "identifier", "row": "identifier"}
    out = codec.decode(torch.zeros(2, 1), first=5).columns
    largest = max(int(name[2:]) for name in names)
    assert out["key"].to_pylist() == [f"P-{largest + 6:04d}", f"P-{largest + 7:04d}"]
    assert out["row"].to_pylist() == ["55", "56"]
    assert not any(name in str(codec.state()) for name in names)
    assert sum(note.startswith("TAB_IDENTIFIER") for note in codec.notes) == 2


def test_a_table_of_nothing_to_learn_is_refused():
    with pytest.raises(BadData) as error:
        fitted(text(key=[f"u{i}" for i in range(30)], same=["x"] * 30))
    assert error.value.code == "TAB_NOTHING" and "key: identifier" in error.value.message
    with pytest.raises(BadData) as error:
        fitted(text(v=[]))
    assert error.value.code == "DATA_EMPTY" and error.value.status == 66


@pytest.mark.parametrize("column", [
    pa.array([[1, 2], [3]]), pa.array([{"a": 1}, {"a": 2}]), pa.array([b"x", b"y"]),
    pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16] * 2, pa.binary(16))),
])
def test_cells_that_are_no_table_cells_are_refused(column):
    with pytest.raises(BadData, match="'odd'") as error:
        fitted(Records({"odd": column}))
    assert error.value.code == "TAB_TYPE"


def test_a_column_that_changes_type_on_the_way_is_refused():
    with pytest.raises(BadData, match="'v'") as error:
        Table(TableConfig()).fit([Records({"v": pa.array([1, 2])}), Records({"v": pa.array(["a"])}, first=2)])
    assert error.value.code == "TAB_TYPE"


def test_a_schema_that_differs_is_shown():
    codec = fitted(text(age=NUMBERS, height=NUMBERS))
    with pytest.raises(Incompatible) as error:
        codec.parse(text(age=NUMBERS, heigth=NUMBERS), [])
    assert error.value.code == "TAB_SCHEMA"
    assert "missing 'height'" in error.value.message and "'heigth'" in error.value.message
    assert "Did you mean 'height'" in error.value.hint
    turned = text(height=NUMBERS, age=NUMBERS)
    assert list(codec.parse(turned, []).columns) == ["age", "height"]


@pytest.mark.parametrize(("types", "code"), [
    (("agee=real",), "CONFIG_KEY"), (("age=reel",), "SETTING_RANGE"), (("age",), "SETTING_RANGE"),
    (("age=boolean",), "TAB_TYPE"), (("age=date",), "TAB_TYPE"),
])
def test_types_that_cannot_be_are_refused_with_a_way_out(types, code):
    with pytest.raises(VerossimError) as error:
        fitted(text(age=NUMBERS), types=types)
    assert error.value.code == code
    assert error.value.hint
    assert isinstance(error.value, BadConfig | BadData)


@pytest.mark.parametrize("scale", [1e300, 1e-300, 1e-310, 1.0])
def test_numbers_of_any_size_are_scaled(scale):
    values = np.array([3.0, 1.0, -4.0, 1.0, 5.0, 9.0, -2.0, 6.0]) * scale
    records = Records({"v": pa.array(values)})
    codec = fitted(records)
    x = codec.encode(codec.parse(records, problems := []))
    assert not problems
    assert abs(float(x.mean())) < 1e-6 and abs(float(x.std(unbiased=False)) - 1) < 1e-6
    np.testing.assert_allclose(codec.decode(x).columns["v"].to_numpy(), values, rtol=1e-5, atol=1e-6 * scale)
    assert torch.isfinite(codec.log_volume(x)).all()


def test_hostile_names_are_escaped():
    codec = fitted(text(**{"a\x1b[31m\n": NUMBERS}))
    _, problems = parsed(codec, text(**{"a\x1b[31m\n": ["x"]}))
    assert "\x1b" not in problems[0].message and "\n" not in problems[0].message
