"""Every codec on the shelf: records go to x and come back, and what was learned survives being written down."""

import datetime
import io
import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image

from verossim.codecs import Codec
from verossim.codecs.image import ImageConfig, Pictures
from verossim.codecs.label import Label, LabelConfig
from verossim.codecs.table import Table, TableConfig
from verossim.config import build, plain
from verossim.errors import BadConfig, BadData
from verossim.shelves import CODECS
from verossim.spaces import Continuous, Discrete, Records, space_from, space_plain

few = settings(derandomize=True, max_examples=40, deadline=None)


def written(image: Image.Image, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


def picture_set(*sizes: tuple[int, int], mode: str = "RGB") -> Records:
    """Encoded pictures of the sizes (height, width), all different."""
    return Records({"image": [written(Image.new(mode, (width, height), row)) for row, (height, width) in enumerate(sizes)]})


def table() -> Records:
    """A block with a column of every kind, half of them with gaps."""
    days = [datetime.date(2024, 1, 1) + datetime.timedelta(days=3 * i) for i in range(24)]
    return Records({
        "real": pa.array([0.1 * i * i for i in range(24)]),
        "gaps": pa.array([None if i % 5 == 0 else i / 7 for i in range(24)], pa.float32()),
        "count": pa.array([i * i % 11 for i in range(24)], pa.int16()),
        "word": pa.array([None if i % 7 == 3 else "abc"[i % 3] for i in range(24)]),
        "truth": pa.array([i % 4 == 0 for i in range(24)]),
        "day": pa.array(days),
        "moment": pa.array([datetime.datetime(2024, 1, 1, i) for i in range(24)], pa.timestamp("ns", tz="Asia/Tokyo")),
        "kind": pa.array(["low", "high"] * 12).dictionary_encode(),
        "same": pa.array([7] * 24, pa.uint8()),
        "gappy constant": pa.array([None if i % 2 else "x" for i in range(24)]),
        "nothing": pa.nulls(24),
        "key": pa.array([f"k{i:03d}" for i in range(24)]),
    })


EXAMPLES = {
    "image": (ImageConfig(), picture_set((8, 8), (8, 8))),
    "table": (TableConfig(), table()),
    "label": (LabelConfig(), Records({"label": ["b", "a", "b", None]})),
}


# ---- the shelf -----------------------------------------------------------------------------------------------------------


#: Codecs that are made of records alone; "latent" needs an autoencoder besides, and is asked in identities/test_vae_family.py.
PLAIN = [name for name in CODECS.names() if name != "latent"]


@pytest.mark.parametrize("name", PLAIN)
def test_every_codec_keeps_the_contract(name):
    config, records = EXAMPLES[name]
    kind = CODECS.load(name)
    assert issubclass(kind, Codec) and kind.modality == name
    codec = kind(build(kind.Config, plain(config)))
    assert codec.fit(iter([records])) is codec
    parsed = codec.parse(records, problems := [])
    assert not problems and len(parsed) == len(records)
    x = codec.encode(parsed)
    assert x.shape == (len(records), *codec.space.shape)
    assert codec.log_volume(x).shape == (len(records),)
    assert space_from(json.loads(json.dumps(space_plain(codec.space)))) == codec.space
    assert all({"column", "type", "missing", "distinct", "range", "note"} == row.keys() for row in codec.describe())

    again = kind.restore(config, json.loads(json.dumps(codec.state())))
    assert again.space == codec.space
    assert again.notes == codec.notes and again.describe() == codec.describe()
    assert torch.equal(again.encode(again.parse(records, [])).nan_to_num(-9), x.nan_to_num(-9))
    assert list(again.decode(x).rows()).__repr__() == list(codec.decode(x).rows()).__repr__()


@pytest.mark.parametrize("name", PLAIN)
def test_no_records_become_no_points(name):
    config, records = EXAMPLES[name]
    codec = CODECS.load(name)(config).fit([records])
    none = codec.encode(codec.parse(records.take([]), []))
    assert none.shape == (0, *codec.space.shape)
    assert len(codec.decode(none)) == 0


# ---- pictures ------------------------------------------------------------------------------------------------------------


def test_x_is_the_middle_of_its_step_and_comes_back_bit_for_bit():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    codec = Pictures(ImageConfig()).fit([Records({"image": [levels]})])
    x = codec.encode(codec.parse(Records({"image": [levels]}), []))
    assert codec.space == Continuous(shape=(1, 16, 16), axes=("channel", "height", "width"), levels=256)
    assert x.flatten().tolist() == [(level + 0.5) * 2 / 256 - 1 for level in range(256)]
    assert np.array_equal(codec.decode(x).columns["image"][0], levels)
    edge = 1 / 256 * 0.99
    assert np.array_equal(codec.decode(x + edge).columns["image"][0], levels)
    assert np.array_equal(codec.decode(x - edge).columns["image"][0], levels)
    assert codec.decode(x * 100).columns["image"][0].flatten().tolist()[::255] == [0, 255]


@few
@given(some.integers(2, 9), some.integers(2, 9), some.sampled_from([1, 3]), some.integers(0, 2**32 - 1))
def test_files_come_back_bit_for_bit(height, width, channels, seed):
    levels = np.random.default_rng(seed).integers(0, 256, (3, height, width, channels), np.uint8)
    files = Records({"image": [written(Image.fromarray(image.squeeze(2) if channels == 1 else image)) for image in levels]})
    codec = Pictures(ImageConfig()).fit([files])
    parsed = codec.parse(files, [])
    assert codec.space.shape == (channels, height, width)
    assert np.array_equal(np.stack(codec.decode(codec.encode(parsed)).columns["image"]), levels)


@pytest.mark.parametrize(("sizes", "size", "shape"), [
    ([(28, 28)] * 3, "auto", (28, 28)),
    ([(5, 64)] * 3, "auto", (5, 64)),
    ([(90, 90)] * 3, "auto", (64, 64)),
    ([(100, 150)] * 3, "auto", (64, 96)),
    ([(40, 50), (50, 40), (70, 90)], "auto", (32, 32)),
    ([(4, 5), (5, 4), (6, 6)], "auto", (8, 8)),
    ([(300, 500), (600, 400), (900, 800)], "auto", (64, 64)),
    ([(40, 50), (50, 40)], 24, (24, 24)),
    ([(20, 30)] * 2, 10, (10, 15)),
])
def test_the_size_follows_the_stated_rule(sizes, size, shape):
    records = picture_set(*sizes)
    codec = Pictures(ImageConfig(size=size)).fit([records])
    assert codec.space.shape == (3, *shape)
    assert all(image.shape == (*shape, 3) for image in codec.parse(records, []).columns["image"])
    assert str(shape[0]) in codec.describe()[0]["note"]


def test_fit_reads_headers_only():
    whole = written(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)))
    codec = Pictures(ImageConfig()).fit([Records({"image": [whole[:200]]})])
    assert codec.space.shape == (3, 40, 40)


def test_resampling_crops_about_the_centre():
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = 200
    tall = wide.transpose(1, 0, 2)
    codec = Pictures(ImageConfig(size=8)).fit([Records({"image": [wide, tall]})])
    for image in codec.parse(Records({"image": [wide, tall]}), []).columns["image"]:
        assert np.abs(image[1:-1, 1:-1].astype(int) - 200).max() <= 10


def test_transparent_pixels_are_unknown_where_asked_and_filled_in_by_decode():
    levels = np.full((6, 6, 4), 255, np.uint8)
    levels[..., 0] = 10
    levels[2:4, 2:5, 3] = 0
    levels[0, 0, 3] = 1
    whole = np.full((6, 6, 3), 90, np.uint8)
    records = Records({"image": [written(Image.fromarray(levels)), written(Image.fromarray(whole))]})
    codec = Pictures(ImageConfig()).fit([records])
    assert not codec.encode(codec.parse(records, [])).isnan().any()
    parsed = codec.parse(records, [], unknown=True)
    x = codec.encode(parsed, unknown=True)
    holes = torch.zeros(6, 6, dtype=torch.bool)
    holes[2:4, 2:5] = True
    assert torch.equal(x[0].isnan(), holes.expand(3, 6, 6))
    assert not x[1].isnan().any()
    filled = codec.decode(torch.zeros_like(x), known=parsed).columns["image"]
    assert np.array_equal(filled[0][~holes.numpy()], parsed.columns["image"][0][~holes.numpy()])
    assert (filled[0][holes.numpy()] == 128).all()
    assert np.array_equal(filled[1], whole)


def test_nan_pixels_of_an_array_are_unknown_where_asked():
    ramp = np.linspace(0, 1, 36).reshape(6, 6)
    ramp[1, 2] = np.nan
    codec = Pictures(ImageConfig()).fit([Records({"image": [ramp]})])
    x = codec.encode(codec.parse(Records({"image": [ramp]}), [], unknown=True), unknown=True)
    assert x.isnan().nonzero().tolist() == [[0, 0, 1, 2]]
    assert abs(float(x[0, 0, 5, 5]) - (1 - 1 / 256)) < 1e-6


def test_masks_shrink_to_pixels_that_are_wholly_known():
    levels = np.full((16, 16, 4), 255, np.uint8)
    levels[:5, :, 3] = 0
    codec = Pictures(ImageConfig(size=8)).fit([Records({"image": [levels]})])
    known = codec.parse(Records({"image": [levels]}), [], unknown=True).columns["known"][0]
    assert known.any(axis=1).tolist() == [False] * 3 + [True] * 5


# ---- tables --------------------------------------------------------------------------------------------------------------


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


def test_labels_come_back_in_their_own_type():
    for labels in (["b", "a", None, "b"], pa.array([3, 10, None, 3], pa.int16()), pa.array([True, False, None, True])):
        records = Records({"label": labels})
        codec = Label(LabelConfig()).fit([records])
        assert codec.space == Discrete(shape=(), vocabulary=2, pad=-1)
        x = codec.encode(codec.parse(records, []))
        assert x.dtype == torch.int64 and x[2] == -1
        back = codec.decode(x).columns["label"]
        assert back.equals(labels) if isinstance(labels, pa.Array) else back == labels


def test_classes_are_in_order_and_their_shares_are_the_prior():
    codec = Label(LabelConfig()).fit([Records({"label": ["10", "9", "9"]}), Records({"label": ["9", "10", "100", ""]})])
    assert codec.classes == ("9", "10", "100")
    assert codec.prior.dtype == torch.float64
    assert codec.prior.tolist() == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    assert any("1 of 7" in note for note in codec.notes)


def test_a_label_is_found_by_value_or_as_text():
    codec = Label(LabelConfig()).fit([Records({"label": pa.array([3, 5, 8])})])
    assert codec.index(5) == codec.index("5") == codec.index(" 5 ") == 1
    names = Label(LabelConfig()).fit([Records({"label": ["setosa", "virginica"]})])
    with pytest.raises(BadConfig) as error:
        names.index("setossa\x1b")
    assert error.value.code == "LABEL_UNKNOWN" and error.value.status == 64
    assert "Did you mean 'setosa'" in error.value.hint and "\x1b" not in str(error.value)


def test_a_new_label_is_unknown_and_named():
    codec = Label(LabelConfig()).fit([Records({"label": ["a", "b"]})])
    parsed = codec.parse(Records({"label": ["a", "c", None]}), problems := [])
    assert codec.encode(parsed).tolist() == [0, -1, -1]
    assert [p.code for p in problems] == ["LABEL_UNKNOWN"]
    assert codec.encode(Records({"x": [1, 2]})).tolist() == [-1, -1]


@pytest.mark.parametrize(("labels", "code"), [
    (["a", "a"], "LABEL_SINGLE"), ([None, ""], "LABEL_SINGLE"), (pa.array([i / 7 for i in range(1001)]), "LABEL_MANY"),
])
def test_labels_that_cannot_be_learned_are_refused(labels, code):
    with pytest.raises(BadData, match="'label'") as error:
        Label(LabelConfig()).fit([Records({"label": labels})])
    assert error.value.code == code and error.value.hint


def test_a_label_column_that_is_not_there_is_named_with_near_ones():
    with pytest.raises(BadData) as error:
        Label(LabelConfig(column="labl")).fit([Records({"label": ["a"]})])
    assert error.value.code == "LABEL_MISSING" and "'label'" in error.value.hint
