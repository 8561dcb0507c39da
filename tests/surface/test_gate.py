"""What leaves is marked, whole, and never in place of what was not made here."""

import csv
import errno
import io
import json
import os

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from verossim.cli.records import guarded
from verossim.errors import BadData, CannotWrite
from verossim.safety import Provenance, contact_sheet, gate, release, release_file, verify

MADE = Provenance(verb="sample", model="m" * 64, data="d" * 64, seed=7, settings={"n": 2})


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def beside(place):
    return sorted(p.name for p in place.parent.iterdir() if p != place)


def put(place, files=("a.txt", "b/c.txt"), content=b"made", **how):
    with release(place, MADE, **how) as out:
        for name in files:
            out.add(name, content)


def test_a_release_has_its_provenance_and_nothing_else_beside_it(tmp_path):
    put(tmp_path / "out")
    said = json.loads((tmp_path / "out" / "provenance.json").read_bytes())
    assert said["made_by"].startswith("verossim ") and said["synthetic"] is True
    asked = {name: said[name] for name in ("verb", "model", "data", "seed", "settings")}
    assert asked == {"verb": "sample", "model": "m" * 64, "data": "d" * 64, "seed": 7, "settings": {"n": 2}}
    assert sorted(said["outputs"]) == ["a.txt", "b/c.txt"] and {len(sha256) for sha256 in said["outputs"].values()} == {64}
    assert beside(tmp_path / "out") == []
    assert verify(tmp_path / "out").whole and verify(tmp_path / "out").good == 2


def test_equal_requests_give_equal_bytes(tmp_path):
    put(tmp_path / "one")
    put(tmp_path / "two", ("b/c.txt", "a.txt"))
    assert (tmp_path / "one" / "provenance.json").read_bytes() == (tmp_path / "two" / "provenance.json").read_bytes()


def test_a_change_to_an_output_is_found(tmp_path):
    put(tmp_path / "out", ("a", "b", "c"))
    (tmp_path / "out" / "a").write_bytes(b"mode")
    (tmp_path / "out" / "c").unlink()
    seen = verify(tmp_path / "out")
    assert (seen.good, seen.changed, seen.missing, seen.whole) == (1, ("a",), ("c",), False)


def test_what_was_not_made_here_has_no_provenance(tmp_path):
    (tmp_path / "file.csv").write_text("a\n1\n")
    for place in (tmp_path, tmp_path / "file.csv"):
        with pytest.raises(BadData) as error:
            verify(place)
        assert error.value.code == "PROVENANCE_MISSING"


def test_only_what_was_made_here_is_replaced(tmp_path):
    place = tmp_path / "out"
    put(place)
    put(place, ("new.txt",))
    assert sorted(p.name for p in place.iterdir()) == ["new.txt", "provenance.json"]
    (place / "mine.txt").write_text("mine")
    with pytest.raises(CannotWrite) as error:
        put(place)
    assert (error.value.code, error.value.status) == ("OUT_EXISTS", 73) and "mine.txt" in error.value.message
    assert sorted(p.name for p in place.iterdir()) == ["mine.txt", "new.txt", "provenance.json"] and beside(place) == []


def test_overwriting_a_folder_of_other_things_moves_it_aside(tmp_path):
    place = tmp_path / "out"
    for content in ("first", "second"):
        place.mkdir(exist_ok=True)
        (place / "mine.txt").write_text(content)
        put(place, overwrite=True)
        assert verify(place).whole
    assert (tmp_path / "out.old" / "mine.txt").read_text() == "first"
    assert (tmp_path / "out.old-2" / "mine.txt").read_text() == "second"


def test_an_error_leaves_what_was_there_and_nothing_half_written(tmp_path):
    put(tmp_path / "out")
    with pytest.raises(ZeroDivisionError), release(tmp_path / "out", MADE) as out:
        out.add("new.txt", b"half")
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), release_file(tmp_path / "new.csv", MADE) as path:
        path.write_text("half")
        raise ZeroDivisionError
    assert names(tmp_path) == ["out"] and verify(tmp_path / "out").good == 2


@pytest.mark.parametrize("call", ["open", "fsync", "rename", "replace", "mkdir"])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, call):
    put(tmp_path / "out")
    with release_file(tmp_path / "a.csv", MADE) as path:
        path.write_text("old")
    failed = 0
    for nth in range(30):
        with monkeypatch.context() as patch:
            true, count = getattr(os, call), [0]

            def failing(*args, true=true, count=count, nth=nth, **kwargs):
                count[0] += 1
                if count[0] > nth:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return true(*args, **kwargs)
            patch.setattr(os, call, failing)
            try:
                put(tmp_path / "out", ("a.txt", "b/c.txt", "d.txt"))
                with release_file(tmp_path / "a.csv", MADE) as path:
                    path.write_text("new")
            except CannotWrite as error:
                failed += 1
                assert (error.code, error.status) == ("DISK_FULL", 74)
        out = tmp_path / "out" if (tmp_path / "out").exists() else tmp_path / ".out.previous"
        assert verify(out).whole
        assert (tmp_path / "a.csv").read_text() in ("old", "new")
        if not failed > nth:
            break
    assert failed
    put(tmp_path / "out")
    with release_file(tmp_path / "a.csv", MADE, overwrite=True) as path:
        path.write_text("new")
    assert names(tmp_path) == ["a.csv", "a.csv.provenance.json", "out"]


def test_a_single_file_has_its_provenance_beside_it(tmp_path):
    place = tmp_path / "a.csv"
    with release_file(place, MADE) as path:
        path.write_text("a\n1\n")
    assert names(tmp_path) == ["a.csv", "a.csv.provenance.json"] and verify(place).whole
    with release_file(place, MADE) as path:
        path.write_text("a\n2\n")
    assert place.read_text() == "a\n2\n" and verify(place).whole
    place.write_text("edited by hand")
    assert verify(place).changed == ("a.csv",)
    mine = tmp_path / "mine.csv"
    mine.write_text("mine")
    with pytest.raises(CannotWrite, match="not made by"), release_file(mine, MADE) as path:
        path.write_text("lost")
    assert mine.read_text() == "mine"
    with release_file(mine, MADE, overwrite=True) as path:
        path.write_text("a\n3\n")
    assert mine.read_text() == "a\n3\n" and verify(mine).whole


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for door, place in ((release, tmp_path / "file"), (release_file, tmp_path / "folder")):
        with pytest.raises(CannotWrite) as error, door(place, MADE, overwrite=True):
            raise AssertionError("nothing is to be made")
        assert error.value.code == "OUT_EXISTS"


def test_names_may_not_lead_out_of_a_release(tmp_path):
    for name in ("../evil", "/evil", "a/../../evil"):
        with pytest.raises(AssertionError), release(tmp_path / "out", MADE) as out:
            out.add(name, b"")
    assert names(tmp_path) == []


def test_pictures_say_who_made_them():
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    png = gate.png(picture)
    again = Image.open(io.BytesIO(png))
    assert again.text["made-by"].startswith("verossim ") and again.mode == "L"
    assert np.array_equal(np.asarray(again), np.asarray(picture)) and gate.png(picture) == png


def test_cells_that_a_spreadsheet_would_run_are_guarded_in_text_only():
    runs = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\tx"]
    cells = [*runs, "-5", "+1.5e3", "a=b", None, "", "'quoted", "1,2", 'a "b"', "x\ny"]
    table = pa.table({"text": cells, "number": np.arange(-5.0, 9.0)})
    columns = [gate.guard(column) for column in table.columns]
    assert [count for _, count in columns] == [5, 0]
    content = gate.csv_block(pa.table([column for column, _ in columns], names=table.column_names), header=True)
    rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
    assert rows[0] == ["text", "number"]
    assert [r[0] for r in rows[1:6]] == [f"'{cell}" for cell in runs]
    assert [r[0] for r in rows[6:]] == ["-5", "+1.5e3", "a=b", "", "", "'quoted", "1,2", 'a "b"', "x\ny"]
    assert [float(r[1]) for r in rows[1:]] == list(np.arange(-5.0, 9.0))


def test_csv_is_plain_where_it_can_be_and_reads_back():
    table = pa.table({"a,b": [0.1, 1e-300, None], "c": ["x", "y", None], "d": pa.array(["k", "l", "k"]).dictionary_encode(),
                      "e": [True, False, None]})
    content = gate.csv_block(table, header=True)
    assert content.decode() == '"a,b",c,d,e\n0.1,x,k,true\n1e-300,y,l,false\n,,k,\n'
    assert gate.csv_block(table, header=False) == content.split(b"\n", 1)[1]
    quoted = pa.table({"n": [0.1, 1e-300], "t": ["a;b", "c"]})
    assert gate.csv_block(quoted, True, ";", "\r\n") == b'n;t\r\n0.1;"a;b"\r\n1e-300;c\r\n'


def test_a_contact_sheet_has_a_row_a_label():
    pictures = [Image.new("L", (8, 8), 10 * i) for i in range(6)]
    sheet = contact_sheet(pictures, ["b", "a", "b", "b", "a", "b"])
    step = (sheet.height - 2) // 2
    assert sheet.getpixel((step // 2, step // 2))[0] == 10 and sheet.getpixel((step // 2, step + step // 2))[0] == 0
    assert sheet.width == 4 * step + 2
    square = contact_sheet(pictures)
    assert square.width == 3 * step + 2 and square.height == 2 * step + 2
    assert max(contact_sheet([Image.new("RGB", (64, 64))] * 5000).size) <= 2100


def test_headers_that_a_spreadsheet_would_run_are_guarded_and_counted():
    class Heard:
        said = ()

        def warn(self, message):
            self.said = (*self.said, message)
    heard = Heard()
    names = ['=HYPERLINK("http://x")', "+1+1", "@SUM(A1)", "-5", "plain"]
    block = pa.table([["=1"], ["a"], ["b"], ["c"], ["d"]], names=names)
    blocks = list(guarded(heard, [block, block]))
    assert [table.column_names for table in blocks] == [[f"'{name}" for name in names[:3]] + names[3:]] * 2
    assert len(heard.said) == 1 and "CSV_FORMULA: 5 cells" in heard.said[0]
    rows = list(csv.reader(io.StringIO(gate.csv_block(blocks[0], header=True).decode(), newline="")))
    assert rows[0][0] == "'=HYPERLINK(\"http://x\")" and rows[1][0] == "'=1"
