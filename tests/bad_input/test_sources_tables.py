"""Bad tables: each case has its code and exit status, names the place, and says what to do."""

import gzip
import io
import os
import pickle
import struct
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusing import refused

from verossim.data import delimited, open_source, tables
from verossim.errors import BadData, Refused, VerossimError


def written(tmp_path, content, name="table.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("content", ["", "\n\n", "a,b\n", "a,b", b"\xef\xbb\xbf"])
def test_empty_and_header_only(tmp_path, content):
    assert refused(written(tmp_path, content), "DATA_EMPTY", 66, "table.csv").hint


def test_missing_with_near_names(tmp_path):
    written(tmp_path, "a,b\n1,2\n", "penguins.csv")
    assert "penguins.csv" in refused(tmp_path / "pengiuns.csv", "DATA_MISSING", 66, "pengiuns.csv").hint
    refused(tmp_path / "no" / "such" / "folder.csv", "DATA_MISSING", 66)
    refused(tmp_path / "penguins.csv" / "x", "DATA_MISSING", 66)
    refused(f"{tmp_path}/a\0b", "DATA_MISSING", 66)
    refused("", "DATA_MISSING", 66)


def test_duplicate_columns(tmp_path):
    refused(written(tmp_path, "a,b,a\n1,2,3\n"), "TAB_DUPCOL", 65, "'a'")
    table = pa.table([pa.array([1]), pa.array([2])], names=["x", "x"])
    refused(table, "TAB_DUPCOL", 65, "'x'")


def test_ragged_rows_are_skipped_with_their_lines(tmp_path):
    path = written(tmp_path, 'a,b\n1,2\n3\n"two\nlines",4\n\n5,6,7\n8,9\n' + "1,1\n" * 400_000 + "only one\n1,1\n")
    source = open_source(path)
    for _ in range(2):
        assert sum(len(block) for block in source.blocks()) == 400_004
    assert [(problem.code, problem.where.rsplit(", ")[1]) for problem in source.problems] == [
        ("TAB_RAGGED", "line 3"), ("TAB_RAGGED", "line 7"), ("TAB_RAGGED", "line 400009")]
    assert "3 cells" in source.problems[1].message and "the header has 2" in source.problems[1].message
    refused(path, "TAB_RAGGED", 65, "line 3", strict=True)


@given(kinds=st.lists(st.sampled_from(["plain", "lines", "ragged", "ragged lines", "blank"]), min_size=1, max_size=60),
       line=st.sampled_from(["\n", "\r\n"]), block=st.integers(40, 200))
@settings(max_examples=60, deadline=None)
def test_lines_are_right_wherever_cells_break_over_them(kinds, line, block):
    rows = {"plain": "1,2", "lines": '"a\nb\nc",2', "ragged": "3", "ragged lines": '"d\ne",4,5', "blank": ""}
    lines, number = [], 2
    for kind in kinds:
        lines += [number] if "ragged" in kind else []
        number += 1 + rows[kind].count("\n")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = written(Path(folder), line.join(["a,b", *(rows[kind] for kind in kinds), "8,9", ""]))
        patch.setattr(delimited, "BLOCK_BYTES", block)
        source = open_source(path)
        assert sum(len(b) for b in source.blocks()) == sum(kind in ("plain", "lines") for kind in kinds) + 1
    assert [int(problem.where.rsplit(" ")[-1]) for problem in source.problems] == lines


def test_a_table_of_ragged_rows_only(tmp_path):
    refused(written(tmp_path, "a,b\n1\n2\n"), "DATA_EMPTY", 66, "line 2")


def test_problems_beyond_count_are_counted(tmp_path):
    source = open_source(written(tmp_path, "a,b\n1,2\n" + "3\n" * 5000))
    for _ in range(2):
        assert sum(len(block) for block in source.blocks()) == 1
    assert len(source.problems) == 1000 and source.problem_count == 5000


def test_a_long_cell_is_skipped(tmp_path):
    path = written(tmp_path, "a,b\n1,2\n" + "x" * 200_000 + ",4\n5,6\n")
    source = open_source(path)
    assert [row["a"] for block in source.blocks() for row in block.rows()] == ["1", "5"]
    (problem,) = source.problems
    assert problem.code == "TAB_CELL" and "record 2" in problem.where
    assert "'a'" in problem.message and "200,000" in problem.message
    refused(path, "TAB_CELL", 65, strict=True)


def test_a_quote_that_never_closes(tmp_path):
    assert "quote" in refused(written(tmp_path, 'a,b\n1,"2\n' + "3,4\n" * 800_000), "TAB_CELL", 65).hint


class Slow(io.FileIO):
    """A file whose reads are overtaken on their way to the system: the descriptor is taken, and used only later."""

    def read(self, size=-1):
        descriptor = self.fileno()
        time.sleep(0.02)
        return os.read(descriptor, size)


def test_a_table_that_is_left_early_takes_no_bytes_of_the_next_file(tmp_path, monkeypatch):
    left, after = written(tmp_path, "a,b\n" + "3,4\n" * 2_000_000, "left.csv"), tmp_path / "after"
    after.write_bytes(b"x" * 5000)
    slow = open_source(left)
    monkeypatch.setattr(delimited, "open_regular", lambda path, origin: Slow(path))
    for _ in range(5):
        blocks = slow.blocks()
        next(blocks)
        blocks.close()
        with after.open("rb", buffering=0) as file:  # under the descriptor that `left` had
            time.sleep(0.05)
            assert len(file.read()) == 5000


def test_a_5000_digit_number_is_delivered_as_text(tmp_path):
    for content in ("a,b\n" + "9" * 5000 + ",1\n", '{"a": ' + "9" * 5000 + "}\n"):
        (block,) = open_source(written(tmp_path, content)).blocks()
        assert block.columns["a"][0].as_py() == "9" * 5000


@pytest.mark.parametrize("content", [
    np.random.default_rng(0).bytes(5000), b"\0" * 5000, b"%PDF-1.7\n", b"<!DOCTYPE html><html>", b'[{"a": 1}]',
    b"SQLite format 3\0" + b"\0" * 100, b"\x7fELF\2\1\1" + bytes(range(32)) * 8])
def test_what_is_no_table_whatever_its_name(tmp_path, content):
    assert refused(written(tmp_path, content), "DATA_FORMAT", 65, "table.csv").hint


def test_json_lines_that_are_not(tmp_path):
    path = written(tmp_path, '{"a": 1}\n{"a": \n[1]\n{"a": 2, "z": 3}\n')
    assert open_source(path).columns == ["a", "z"]
    path.write_text('{"a": 1}\n' * 200_000 + '{"b": 1}\nnot json\n[1]\n' + "[" * 20_000 + '\n{"a": "' + "x" * 200_000 + '"}\n')
    source = open_source(path)
    assert sum(len(block) for block in source.blocks()) == 200_000
    codes = [problem.code for problem in source.problems]
    assert codes == ["TAB_RAGGED", "TAB_CORRUPT", "TAB_RAGGED", "TAB_CORRUPT", "TAB_CELL"]
    assert "line 200001" in source.problems[0].where and "'b'" in source.problems[0].message
    refused(written(tmp_path, '{"a": 1, "b": {"c": 2}}\n'), "TAB_TYPE", 65, "'b'")
    refused(written(tmp_path, '{"a" 1}\n'), "DATA_EMPTY", 66)


NESTED = {"list": pa.array([[1], [2]]), "struct": pa.array([{"a": 1}, {"a": 2}]), "bytes": pa.array([b"a", b"b"]),
          "map": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64()))}


@pytest.mark.parametrize("kind", NESTED)
@pytest.mark.parametrize("form", ["parquet", "arrow", "memory"])
def test_nested_columns_are_named(tmp_path, kind, form):
    table = pa.table({"good": [1, 2], "the one": NESTED[kind]})
    path = tmp_path / "table"
    if form == "parquet":
        pq.write_table(table, path)
    elif form == "arrow":
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    refused(table if form == "memory" else path, "TAB_TYPE", 65, "'the one'")


def test_extension_types_are_refused(tmp_path):
    schema = pa.schema([pa.field("odd", pa.int64(), metadata={"ARROW:extension:name": "somebody.type"})])
    path = tmp_path / "table.arrow"
    with pa.ipc.new_stream(str(path), schema) as writer:
        writer.write_table(pa.table({"odd": [1]}, schema=schema))
    refused(path, "TAB_TYPE", 65, "'odd'", "extension")
    refused(pa.table({"id": pa.array([b"0" * 16], pa.uuid())}), "TAB_TYPE", 65, "'id'", "extension")


@pytest.mark.parametrize("form", ["parquet", "file", "stream", "npy"])
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_cut_off_files(tmp_path, form, keep):
    whole, path = tmp_path / "whole", tmp_path / "cut"
    table = pa.table({"a": np.arange(20_000.0)})
    if form == "parquet":
        pq.write_table(table, whole)
    elif form == "npy":
        with whole.open("wb") as file:
            np.save(file, np.arange(20_000.0))
    else:
        with (pa.ipc.new_file if form == "file" else pa.ipc.new_stream)(str(whole), table.schema) as writer:
            writer.write_table(table)
    path.write_bytes(whole.read_bytes()[: int(keep * whole.stat().st_size)])
    refused(path, "TAB_CORRUPT", 65, "cut")


@pytest.mark.parametrize("form", ["parquet", "file", "stream"])
def test_flipped_bytes_never_get_out_as_another_error(tmp_path, form):
    path = tmp_path / "table"
    table = pa.table({"a": list(range(200)), "s": [str(i) for i in range(200)]})
    if form == "parquet":
        pq.write_table(table, path)
    else:
        with (pa.ipc.new_file if form == "file" else pa.ipc.new_stream)(str(path), table.schema) as writer:
            writer.write_table(table)
    good = path.read_bytes()
    generator = np.random.default_rng(0)
    for place in generator.integers(8, len(good), 60):
        path.write_bytes(good[:place] + bytes([good[place] ^ (1 << int(place) % 8)]) + good[place + 1:])
        try:
            for _ in open_source(path).blocks():
                pass
        except VerossimError as error:
            assert error.code.startswith(("TAB_", "DATA_"))


def test_offsets_that_lead_out_of_their_buffer(tmp_path):
    offsets = pa.py_buffer(np.array([0, 3, 1 << 30, 6], np.int32))
    forged = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"abcdef")])
    path = tmp_path / "forged.arrow"
    with pa.ipc.new_file(str(path), pa.schema([("s", pa.string())])) as writer:
        writer.write_batch(pa.record_batch([forged], ["s"]))
    refused(path, "TAB_CORRUPT", 65)


def test_a_parquet_that_claims_too_much(tmp_path, monkeypatch):
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"a": np.zeros(1 << 22)}), path, compression="zstd", use_dictionary=False)
    assert len(open_source(path).columns) == 1  # by the limit as it is, 32 MB are no harm
    monkeypatch.setattr(tables, "CLAIM_BYTES", 1 << 24)
    refused(path, "TAB_TOO_LARGE", 65, "33,5", f"{path.stat().st_size:,} bytes")


def test_objects_and_pickles_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], object))
    np.savez(tmp_path / "b.npz", x=np.array(["a", None], object))
    (tmp_path / "c.csv").write_bytes(pickle.dumps({"a": [1]}))
    for name in ("a.npy", "b.npz", "c.csv"):
        with pytest.raises(Refused) as error:
            open_source(tmp_path / name)
        assert error.value.code == "PICKLE_REFUSED" and error.value.status == 77 and error.value.hint


def test_an_npy_that_claims_more_than_it_holds(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 8), }"
    header += b" " * (118 - len(header) - 1 + 0) + b"\n"
    refused(written(tmp_path, b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + b"\0" * 800), "TAB_CORRUPT", 65)


def test_parts_of_different_schemas(tmp_path):
    written(tmp_path, "a,b\n1,2\n", "1.csv")
    written(tmp_path, "a,c\n1,2\n", "2.csv")
    refused(tmp_path, "TAB_SCHEMA", 65, "'b'", "'c'", "2.csv")
    np.savez(tmp_path / "x.npz", a=np.zeros(3), b=np.zeros(4))
    refused(tmp_path / "x.npz", "TAB_SCHEMA", 65, "a (3,)", "b (4,)")


def test_columns_that_are_not_there(tmp_path):
    path = written(tmp_path, "species,size\nu,1\n")
    error = refused(path, "COLUMN_UNKNOWN", 65, "'specie'", label="specie")
    assert "'species'" in error.hint
    refused(path, "COLUMN_UNKNOWN", 65, "'mass'", weight="mass")
    refused(path, "DATA_FORMAT", 65, modality="image")


def test_things_that_are_no_data():
    for thing in (3, None, object()):
        refused(thing, "TAB_TYPE", 65)
    refused([], "DATA_EMPTY", 66)
    refused(iter(()), "DATA_EMPTY", 66)
    refused([[1, 2], [3]], "TAB_TYPE", 65)
    refused(iter([{"a": 1}, 5]), "TAB_TYPE", 65, "Record 2")
    refused({"a": [1, 2], "b": [1]}, "TAB_TYPE", 65)


@pytest.mark.parametrize("content", [b"junk", b"\x1f\x8b" + b"\0" * 50, gzip.compress(b"a,b\n" * 1000, mtime=0)[:-20]],
                         ids=["junk", "empty", "cut"])
def test_damaged_gzip(tmp_path, content):
    path = written(tmp_path, content if content[:2] == b"\x1f\x8b" else b"\x1f\x8b\x08" + content, "a.csv.gz")
    refused(path, "ARC_CORRUPT", 65, "a.csv.gz")


def test_the_cell_limit_is_as_stated():
    assert delimited.CELL_BYTES < 200_000


def test_a_folder_without_data(tmp_path):
    with pytest.raises(BadData) as error:
        open_source(tmp_path)
    assert error.value.code == "DATA_EMPTY" and error.value.status == 66 and ".png" in error.value.hint
