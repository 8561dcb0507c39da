"""Tables are read as they were written, whatever the format, the dialect and the encoding."""

import gzip
import json
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verossim.data import open_source

ROWS = [{"name": "José", "size": "1.5", "kind": "a,b"}, {"name": "Zoë", "size": "", "kind": 'two\nlines "quoted"'}]


def read(data, size=8192, **asked):
    source = open_source(data, **asked)
    return [row for block in source.blocks(size) for row in block.rows()]


def csv_text(delimiter=",", line="\n"):
    quoted = ([row["name"], row["size"], '"' + row["kind"].replace('"', '""') + '"'] for row in ROWS)
    return line.join(delimiter.join(cells) for cells in (["name", "size", "kind"], *quoted)) + line


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line", ["\n", "\r\n"])
def test_delimiters_and_line_ends(tmp_path, delimiter, line):
    path = tmp_path / "table.anything"
    path.write_text(csv_text(delimiter, line), encoding="utf-8", newline="")
    assert read(path) == ROWS
    words = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
    assert any(words[delimiter] in note for note in open_source(path).notes)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_encodings(tmp_path, encoding):
    path = tmp_path / "table.csv"
    path.write_text(csv_text(), encoding=encoding)
    assert read(path) == ROWS
    if encoding != "utf-8":
        assert any("encoding" in note for note in open_source(path).notes)


def test_cyrillic_is_told_from_western(tmp_path):
    path = tmp_path / "table.csv"
    text = "имя,город\n" + "Иван,Москва\nОльга,Санкт-Петербург\nПётр,Нижний Новгород\n" * 20
    path.write_text(text, encoding="cp1251")
    assert read(path)[0] == {"имя": "Иван", "город": "Москва"}


def test_a_late_byte_of_another_encoding_is_read_and_noted(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"a,b\n" + b"plain,1\n" * 200_000 + "café,2\n".encode("latin-1"))
    source = open_source(path)
    *_, last = source.blocks()
    assert last.columns["a"][-1].as_py() == "café"
    assert any("Windows-1252" in note for note in source.notes)


def test_decimal_comma_is_reported_and_left_to_the_codec(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a;b\n1,5;x\n1.002,25;y\n;z\n")
    assert [row["a"] for row in read(path)] == ["1,5", "1.002,25", ""]
    assert any("decimal comma in a" in note for note in open_source(path).notes)


@pytest.mark.parametrize(("first", "header"), [("5.1,3.5", False), ("0,0", False), ("0,1", True), ("x,1", True)])
def test_a_first_row_of_measurements_is_no_header(tmp_path, first, header):
    path = tmp_path / "table.csv"
    path.write_text(f"{first}\n1,2\n")
    assert len(read(path)) == (1 if header else 2)
    assert open_source(path).columns == (first.split(",") if header else ["column1", "column2"])


def test_nameless_columns_and_blank_lines(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("\n\n,x\n0,1\n\n1,2\n,\n\n")
    assert read(path) == [{"column1": "0", "x": "1"}, {"column1": "1", "x": "2"}]


def test_blocks_are_bounded_numbered_and_the_same_again(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("n\n" + "".join(f"{n}\n" for n in range(300_000)))
    source = open_source(path)
    blocks = list(source.blocks(1000))
    assert max(map(len, blocks)) <= 1000 and len(blocks) > 2
    assert all(block.columns["n"][0].as_py() == str(block.first) for block in blocks)
    assert sum(map(len, blocks)) == 300_000 == sum(len(block) for block in source.blocks())


def test_json_lines_keep_the_digits_and_the_gaps(tmp_path):
    path = tmp_path / "table.json"
    lines = [{"a": 1, "b": "x", "c": True}, {"a": None, "b": "é"}, {"c": False, "a": 2.50}]
    path.write_text("\n".join(json.dumps(line) for line in lines) + '\n\n{"a": 12345678901234567890.10, "b": "", "c": null}\n')
    assert read(path) == [
        {"a": "1", "b": "x", "c": "true"}, {"a": None, "b": "é", "c": None}, {"a": "2.5", "b": None, "c": "false"},
        {"a": "12345678901234567890.10", "b": "", "c": None}]


TABLE = pa.table({"n": pa.array([1, None, 3], pa.int64()), "x": [0.5, 1.5, None], "s": ["a", None, "c"],
                  "k": pa.array(["u", "v", "u"]).dictionary_encode()})


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_typed_formats_keep_their_types(tmp_path, kind):
    path = tmp_path / "misnamed.csv"
    if kind == "parquet":
        pq.write_table(TABLE, path)
    else:
        make = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
        with make(str(path), TABLE.schema) as writer:
            writer.write_table(TABLE)
    (block,) = open_source(path).blocks()
    assert pa.table(dict(block.columns)).equals(TABLE)
    assert [len(block) for block in open_source(path).blocks(2)] == [2, 1]


def test_npy_and_npz(tmp_path):
    numbers = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.save(tmp_path / "a.npy", np.asfortranarray(numbers))
    assert read(tmp_path / "a.npy", 3)[3] == {"x0": 9.0, "x1": 10.0, "x2": 11.0}
    np.savez(tmp_path / "b.npz", size=numbers, kind=np.array(["u", "v", "u", "v"]))
    assert read(tmp_path / "b.npz")[1] == {"kind": "v", "size0": 3.0, "size1": 4.0, "size2": 5.0}
    digits = np.arange(4 * 6, dtype=np.uint8).reshape(4, 2, 3)
    np.savez_compressed(tmp_path / "c.npz", x=digits, y=np.array([7, 8, 7, 8]))
    source = open_source(tmp_path / "c.npz")
    (block,) = source.blocks()
    assert source.modality == "image" and source.label == "label" and block.columns["label"] == ["7", "8", "7", "8"]
    assert np.array_equal(block.columns["image"][2], digits[2][..., None])


def test_a_folder_of_parts_is_one_table(tmp_path):
    for part in range(3):
        pq.write_table(pa.table({"a": [part], "b": [float(part)]}), tmp_path / f"part-{part}.parquet")
    (tmp_path / "README.txt").write_text("Three, parts, here\n")
    source = open_source(tmp_path)
    assert [row["a"] for row in read(tmp_path)] == [0, 1, 2]
    assert [block.first for block in source.blocks()] == [0, 1, 2]
    assert any("1 file(s)" in note for note in source.notes)


@pytest.mark.parametrize("pack", ["gz", "zip", "tar", "tar.gz", "tar.xz"])
def test_packed_tables(tmp_path, pack):
    inner = tmp_path / "in" / "table.csv"
    inner.parent.mkdir()
    inner.write_text(csv_text(), encoding="utf-8")
    path = tmp_path / f"packed.{pack}"
    if pack == "gz":
        path.write_bytes(gzip.compress(inner.read_bytes()))
    elif pack == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(inner, "deep/table.csv")
    else:
        with tarfile.open(path, f"w:{pack.removeprefix('tar').removeprefix('.')}") as archive:
            archive.add(inner, "deep/table.csv")
    assert read(path) == ROWS


def test_label_and_weight_columns_are_not_features(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,y,w\n1,u,2\n")
    source = open_source(path, label="y", weight="w")
    assert [list(block.columns) for block in source.blocks()] == [["a", "y", "w"]]
    assert [list(block.columns) for block in source.features()] == [["a"]]
