"""What is already in Python is read where it is, with its types, and an iterator as often as a file."""

import datetime
import io

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from PIL import Image

from verossim.data import open_source
from verossim.errors import BadData
from verossim.spaces import Records


def table(source):
    blocks = [pa.table(dict(block.columns)) for block in source.blocks(2)]
    return pa.concat_tables(blocks)


@pytest.mark.parametrize("make", [
    np.asarray, np.asfortranarray, torch.tensor, list, lambda x: np.asarray(x)[::-1][::-1], lambda x: np.array(x, ">f4"),
    lambda x: np.array(x, np.float16), lambda x: np.lib.stride_tricks.as_strided(np.asarray(x), writeable=False)])
def test_number_arrays(make):
    rows = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.5]]
    source = open_source(make(rows))
    assert source.modality == "table" and source.columns == ["x0", "x1"]
    assert table(source).to_pydict() == {"x0": [1.0, 3.0, 5.0], "x1": [2.0, 4.0, 6.5]}


def test_vectors_masked_structured_and_boolean_arrays():
    assert table(open_source(np.arange(3))).to_pydict() == {"x0": [0, 1, 2]}
    masked = np.ma.masked_array([[1.0, 2.0], [3.0, 4.0]], [[0, 1], [0, 0]])
    assert table(open_source(masked)).to_pydict() == {"x0": [1.0, 3.0], "x1": [None, 4.0]}
    named = np.array([(1, 2.5), (2, 3.5)], [("a", int), ("b", float)])
    assert table(open_source(named)).to_pydict() == {"a": [1, 2], "b": [2.5, 3.5]}
    assert table(open_source(np.array([True, False]))).column("x0").type == pa.bool_()


@pytest.mark.parametrize("array", [
    np.zeros((2, 2), complex), np.array([[1, "a"], [None, 2]], object), np.zeros((2, 2, 2, 2, 2)), np.zeros((3, 4, 5)),
    np.zeros((3, 7, 8, 9), np.uint8)])
def test_arrays_that_are_neither_tables_nor_pictures(array):
    with pytest.raises(BadData) as error:
        open_source(array)
    assert error.value.code in ("TAB_TYPE", "IMG_SHAPES", "IMG_RANGE") and error.value.hint


def test_pandas():
    frame = pd.DataFrame({
        "n": pd.array([1, None, 3], "Int64"), "s": ["a", None, "c"], "k": pd.Categorical(["u", "v", None]),
        "t": pd.to_datetime(["2024-01-01", None, "2024-01-03"]), "mixed": [12, "abc", None], 5: [0.5, np.nan, 1.5]})
    source = open_source(frame)
    found = table(source).to_pydict()
    assert found["n"] == [1, None, 3] and found["s"] == ["a", None, "c"] and found["k"] == ["u", "v", None]
    assert found["t"][0] == datetime.datetime(2024, 1, 1) and found["t"][1] is None
    assert found["mixed"] == ["12", "abc", None] and found["5"] == [0.5, None, 1.5]
    assert table(open_source(frame["s"])).to_pydict() == {"s": ["a", None, "c"]}


def test_polars_arrow_and_columns():
    columns = {"n": [1, None, 3], "s": ["a", None, "c"]}
    for data in (pl.DataFrame(columns), pl.LazyFrame(columns), pa.table(columns), pa.table(columns).to_batches()[0], columns,
                 pa.table(columns).to_reader(), Records(pa.table(columns).to_pydict())):
        assert table(open_source(data)).to_pydict() == columns


def test_an_iterator_is_read_once_and_given_often():
    def records():
        for n in range(40_000):
            late = {"late": "y"} if n == 39_999 else {}
            yield {"n": n, "x": n if n < 30_000 else 0.5, "both": n if n < 35_000 else "a", **late}
    source = open_source(records())
    for _ in range(2):
        last = pa.table(dict([*source.blocks()][-1].columns)).to_pylist()[-1]
        assert last == {"n": 39_999, "x": 0.5, "late": "y", "both": "a"}
    first = next(source.blocks(1)).columns
    assert first["x"][0].as_py() == 0.0 and first["both"][0].as_py() == "0" and first["late"][0].as_py() is None


def test_spooled_files_go_with_the_source():
    source = open_source(iter([{"a": 1}]))
    folder = source.reader.folder.path
    assert folder.is_dir()
    del source
    assert not folder.exists()


PIXELS = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)


@pytest.mark.parametrize("make", [
    lambda x: x, lambda x: torch.from_numpy(x).permute(0, 3, 1, 2), list, lambda x: [Image.fromarray(p) for p in x],
    lambda x: Records({"image": list(x)})])
def test_pictures_in_memory(make):
    source = open_source(make(PIXELS))
    assert source.modality == "image"
    found = [pixels for block in source.blocks(1) for pixels in block.columns["image"]]
    assert all(np.array_equal(a, b) and a.dtype == np.uint8 for a, b in zip(found, PIXELS, strict=True))


def test_grey_stacks_get_a_channel():
    (block,) = open_source(PIXELS[..., 0]).blocks()
    assert block.columns["image"][0].shape == (4, 5, 1)


def test_pictures_of_other_modes_reach_the_codec_as_files():
    palette = Image.fromarray(PIXELS[0]).convert("P")
    (block,) = open_source([palette, Image.new("CMYK", (3, 3)), Image.new("I;16", (3, 3))]).blocks()
    modes = [Image.open(io.BytesIO(data)).mode for data in block.columns["image"]]
    assert modes == ["P", "CMYK", "I;16"]


def test_pictures_turn_as_their_exif_says():
    turned = Image.fromarray(PIXELS[0])
    turned.getexif()[274] = 6
    (block,) = open_source([turned]).blocks()
    assert block.columns["image"][0].shape == (5, 4, 3)


def test_records_with_pictures_one_by_one():
    source = open_source({"image": Image.fromarray(pixels), "label": n} for n, pixels in enumerate(PIXELS))
    (block,) = source.blocks()
    assert source.modality == "image" and source.label == "label" and block.columns["label"] == ["0", "1"]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(block.columns["image"][1]))), PIXELS[1])


def test_the_datasets_library(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets
    typed = datasets.Features({"a": datasets.Value("int64"), "y": datasets.ClassLabel(names=["u", "v"])})
    rows = datasets.Dataset.from_dict({"a": [1, 2, 3], "y": [0, 1, -1]}, typed)
    rows.save_to_disk(tmp_path / "rows")
    assert table(open_source(f"hf:{tmp_path / 'rows'}", label="y")).to_pydict() == {"a": [1, 2, 3], "y": ["u", "v", None]}
    drawn = datasets.Dataset.from_dict({"picture": [Image.fromarray(p) for p in PIXELS], "class": [1, 0]}, datasets.Features(
        {"picture": datasets.Image(), "class": datasets.ClassLabel(names=["cat", "dog"])}))
    datasets.DatasetDict({"train": drawn, "test": drawn}).save_to_disk(tmp_path / "drawn")
    source = open_source(f"hf:{tmp_path / 'drawn'}#test")
    (block,) = source.blocks()
    assert source.modality == "image" and block.columns["label"] == ["dog", "cat"]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(block.columns["image"][0]))), PIXELS[0])
    with pytest.raises(BadData) as error:
        open_source(f"hf:{tmp_path / 'drawn'}#tests")
    assert error.value.code == "DATA_MISSING" and "'test'" in error.value.hint
    with pytest.raises(BadData) as error:
        open_source("hf:nobody/nothing-of-this-name")
    assert error.value.code == "DATA_MISSING" and error.value.status == 66
