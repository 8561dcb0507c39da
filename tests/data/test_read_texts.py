"""Text is read as it was written, whatever holds it, and cut into documents as asked."""

import gzip
import json
import subprocess
import sys
import zipfile

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from verossim.data import open_source
from verossim.data.documents import STRETCH, stretches

WORDS = "Olá, São Paulo — “to be”\n\nor not\r\nto be\n"


def rows(data, size=8192, **asked):
    return [row for block in open_source(data, **asked).blocks(size) for row in block.rows()]


def texts(data, **asked):
    """The documents of a source, put together from their stretches."""
    found = []
    for row in rows(data, **asked):
        if row["begins"]:
            found.append(b"")
        found[-1] += row["text"]
    return found


def put(path, content):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# ---- files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".txt", ".md", ".text", ".TXT"])
def test_a_text_file_is_one_document_byte_for_byte(tmp_path, suffix):
    path = put(tmp_path / f"book{suffix}", WORDS)
    assert rows(path) == [{"text": WORDS.encode(), "begins": True, "ends": True}]
    source = open_source(path)
    assert (source.modality, source.columns, source.notes) == ("text", ["text", "begins", "ends"], [])


@pytest.mark.parametrize("name", ["code.py", "cells.csv", "page.html", "one.json", "README"])
def test_any_file_is_text_where_that_is_asked(tmp_path, name):
    content = {"one.json": '{\n "a": 1}\n', "page.html": "<html><p>a</p></html>\n"}.get(name, "a,b\n1,2\n")
    assert texts(put(tmp_path / name, content), modality="text") == [content.encode()]


def test_tables_stay_tables(tmp_path):
    assert open_source(put(tmp_path / "cells.csv", "a,b\n1,2\n")).modality == "table"
    put(tmp_path / "README.md", "What it is.\n")
    assert open_source(tmp_path).modality == "table"
    assert open_source(put(tmp_path / "rows.jsonl", '{"text": "a"}\n')).modality == "table"


@pytest.mark.parametrize(("encoding", "told"), [
    ("utf-8-sig", "utf-8-sig"), ("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"), ("utf-16-be", "utf-16-be"),
    ("cp1252", "cp1252"), ("latin-1", "cp1252")])
def test_encodings_are_told_and_said(tmp_path, encoding, told):
    content = "Olá, São Paulo\nto be or not to be\n" * 3
    path = put(tmp_path / "book.txt", content.encode(encoding))
    assert texts(path) == [content.encode()]
    assert open_source(path).notes == [f"{path}: encoding {told}"]


def test_a_first_accent_far_into_the_text_is_told_too(tmp_path):
    content = "to be or not to be\n" * 100_000 + "café\n" * 3
    source = open_source(put(tmp_path / "book.txt", content.encode("cp1252")))
    found = b"".join(text for block in source.blocks() for text in block.columns["text"])
    assert found == content.encode() and source.notes == [f"{tmp_path / 'book.txt'}: encoding cp1252"]


def test_folders_and_archives_are_a_document_a_file(tmp_path):
    folder = tmp_path / "works"
    put(folder / "b.txt", "second")
    put(folder / "deep" / "a.txt", "third")
    put(folder / "a.md", "first é".encode("latin-1"))
    put(folder / "code.py", "fourth = 4")
    put(folder / "empty.txt", "")
    source = open_source(folder)
    (block,) = source.blocks()
    assert block.columns["text"] == ["first é".encode(), b"second", b"third"]
    assert [block.where(row) for row in range(3)] == [f"{folder}/{name}" for name in ("a.md", "b.txt", "deep/a.txt")]
    assert source.notes == [f"{folder}: 2 file(s) that are not text, or empty, were left alone",
                            f"{folder}/a.md: encoding cp1252"]
    assert [entry.name for entry in source.digests()] == ["a.md", "b.txt", "deep/a.txt"]
    assert len(texts(folder, modality="text")) == 4
    with zipfile.ZipFile(tmp_path / "works.zip", "w") as archive:
        archive.writestr("x/one.txt", "one")
        archive.writestr("x/two.txt", "two")
    assert texts(tmp_path / "works.zip") == [b"one", b"two"]
    assert texts(put(tmp_path / "book.txt.gz", gzip.compress(b"whole"))) == [b"whole"]


def test_a_digest_is_that_of_the_file_before_and_after_a_pass(tmp_path):
    path = put(tmp_path / "a.txt", WORDS)
    source = open_source(path)
    before = source.digests()
    list(source.blocks())
    assert source.digests() == before and before[0].bytes == len(WORDS.encode())


# ---- documents -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "documents", "found"), [
    ("a.txt", "file", ["one\n\n two\r\n\n\nX:1\nthree\n"]),
    ("a.txt", "line", ["one", " two", "X:1", "three"]),
    ("a.txt", "blank", ["one", " two", "X:1\nthree"]),
    ("a.abc", "auto", ["one\n\n two\n\n\nX:1\nthree"]),
    ("a.smi", "auto", ["one", " two", "X:1", "three"]),
    ("a.smiles", "file", ["one\n\n two\r\n\n\nX:1\nthree\n"]),
])
def test_documents_are_cut_as_asked(tmp_path, name, documents, found):
    path = put(tmp_path / name, "one\n\n two\r\n\n\nX:1\nthree\n")
    assert texts(path, documents=documents) == [text.encode() for text in found]


def test_tunes_begin_with_their_number(tmp_path):
    path = put(tmp_path / "tunes.abc", "%abc-2.1\n\nX:1\nT:A\n\nw: X:\nabc|\n\n\nX: 2\nT:B\nefg|\n")
    source = open_source(path)
    (block,) = source.blocks()
    assert block.columns["text"] == [b"%abc-2.1\n\nX:1\nT:A\n\nw: X:\nabc|", b"X: 2\nT:B\nefg|"]
    assert [block.where(row) for row in range(2)] == [f"{path}, line 1", f"{path}, line 10"]


@settings(derandomize=True, max_examples=40, deadline=None)
@given(some.lists(some.tuples(some.sampled_from(["a", "é", "—", "\U0001f600", "\n"]), some.integers(1, 60_000)), max_size=6),
       some.integers(1, 100_000))
def test_stretches_join_to_the_whole_and_split_no_character(runs, step):
    text = "".join(character * count for character, count in runs).encode()
    found = list(stretches(text[at:at + step] for at in range(0, len(text), step)))
    assert b"".join(stretch.text for stretch in found) == text
    assert all(len(stretch.text) <= STRETCH and stretch.text.decode() is not None for stretch in found)
    assert [stretch.begins for stretch in found] == [True] + [False] * (len(found) - 1)
    assert [stretch.ends for stretch in found] == [False] * (len(found) - 1) + [True]


def test_stretches_end_with_a_line_where_they_can():
    found = list(stretches([b"a" * 50_000 + b"\n" + b"b" * 50_000]))
    assert [stretch.text[-1:] for stretch in found] == [b"\n", b"b"]


def test_a_line_longer_than_a_stretch_is_one_document(tmp_path):
    path = put(tmp_path / "long.smi", b"C\n" + b"N" * 200_000 + b"\nO\n")
    assert texts(path) == [b"C", b"N" * 200_000, b"O"]
    (block,) = open_source(path).blocks()
    assert block.names[1:4] == [f"{path}, line 2, part {part}" for part in (1, 2, 3)]


def test_one_line_of_200_megabytes_takes_little_memory(tmp_path):
    """The resident size of a process that reads such a file grows by less than a tenth of it."""
    path = tmp_path / "line.txt"
    with path.open("wb") as file:
        for _ in range(200):
            file.write(b"\xc3\xa9x " * (1 << 18))
    code = """
import sys
from pathlib import Path
from verossim.data import open_source
def resident(word):
    return next(int(line.split()[1]) for line in Path('/proc/self/status').read_text().splitlines() if line.startswith(word))
before = resident('VmRSS')
count = sum(sum(map(len, block.columns['text'])) for block in open_source(sys.argv[1]).blocks())
print(count, resident('VmHWM') - before)
"""
    answer = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    count, grown = map(int, answer.stdout.split())
    assert count == 200 << 20 and grown * 1024 < 20 << 20


# ---- fields --------------------------------------------------------------------------------------------------------------

PAIRS = [("Open the file", "Abra o arquivo"), ("Yes, all", "Sim, “todos”\nagora")]


def test_pairs_of_columns(tmp_path):
    frame = pd.DataFrame(PAIRS, columns=["en", "pt"]).assign(number=[1, 2])
    frame.to_csv(tmp_path / "pairs.csv", index=False)
    frame.to_csv(tmp_path / "pairs.tsv", index=False, sep="\t")
    pq.write_table(pa.table(frame), tmp_path / "pairs.parquet")
    (tmp_path / "pairs.jsonl").write_text("\n".join(json.dumps(row) for row in frame.to_dict("records")))
    wanted = [{"given": given.encode(), "text": text.encode()} for given, text in PAIRS]
    assert rows(iter(frame.to_dict("records")), condition="en", target="pt") == wanted
    for data in (*sorted(tmp_path.iterdir()), frame, frame.to_dict("records")):
        assert rows(data, condition="en", target="pt") == wanted
        assert texts(data, target="pt") == [row["text"] for row in wanted]
    source = open_source(tmp_path, condition="en", target="pt")
    assert source.columns == ["given", "text"] and sum(map(len, source.blocks())) == 8


def test_json_lines_with_a_text(tmp_path):
    path = put(tmp_path / "corpus.jsonl", '{"text": "um\\u00e9", "id": 7}\n\n{"text": ""}\n{"id": 8, "text": "x"}\n')
    assert texts(path, modality="text") == ["umé".encode(), b"", b"x"]
    (block,) = open_source(path, modality="text").blocks()
    assert [block.where(row) for row in range(3)] == [f"{path}, line {line}" for line in (1, 3, 4)]


CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Olá"}, {"role": "assistant", "content": "Oi"}]


def test_chats(tmp_path):
    path = put(tmp_path / "chats.jsonl", f'{json.dumps({"messages": CHAT})}\n')
    wanted = [{"messages": [(message["role"], message["content"].encode()) for message in CHAT]}]
    for data in (path, [{"messages": CHAT}], iter([{"messages": CHAT}])):
        assert rows(data, modality="text") == wanted
    assert open_source(path, modality="text").columns == ["messages"]


# ---- Python --------------------------------------------------------------------------------------------------------------


def test_lists_and_iterators_of_texts():
    held = ["Olá", b"\xff\x00", "", "x" * 70_000]
    wanted = ["Olá".encode(), b"\xff\x00", b"", b"x" * 70_000]
    assert texts(held) == wanted and texts(tuple(held)) == wanted
    source = open_source(iter(held), modality="text")
    assert [b"".join(block.columns["text"]) for _ in range(2) for block in source.blocks()] == [b"".join(wanted)] * 2
    assert texts(pd.Series(held[:1]), modality="text") == wanted[:1]
    assert open_source(["a"]).digests() != open_source([b"a"]).digests() != open_source([b"b"]).digests()


def test_records_of_text_are_a_source_again():
    for data in (["a", "b" * 70_000], [{"messages": CHAT}], [{"text": "a"}]):
        (block,) = open_source(data, modality="text").blocks()
        assert rows(block, modality="text") == list(block.rows())


def test_blocks_hold_no_more_than_asked_and_number_on(tmp_path):
    path = put(tmp_path / "a.smi", "C\n" * 25)
    assert [(block.first, len(block)) for block in open_source(path).blocks(10)] == [(0, 10), (10, 10), (20, 5)]


def test_stretches_of_a_document_come_together_again_and_none_is_lost():
    from verossim.data import whole
    from verossim.spaces import Records
    long = b"line\n" * 40_000
    blocks = [*open_source([long, b"short"]).blocks(2)]
    assert sum(len(block) for block in blocks) > 3
    joined = [*whole(blocks)]
    assert [text for block in joined for text in block.columns["text"]] == [long, b"short"]
    assert all(block.columns["begins"] == block.columns["ends"] == [True] * len(block) for block in joined)
    cut = Records({"text": [b"a", b"b", b"c"], "begins": [False, True, False], "ends": [False, False, False]})
    found = [*whole([cut])]
    assert [text for block in found for text in block.columns["text"]] == [b"a", b"bc"]
    assert [begins for block in found for begins in block.columns["begins"]] == [False, True]


def test_bytes_in_records_are_the_same_from_a_list_and_from_an_iterator():
    records = [{"text": b"caf\xc3\xa9"}, {"text": "caf\u00e9"}, {"text": b"caf\xe9"}]
    wanted = [b"caf\xc3\xa9", b"caf\xc3\xa9", b"caf\xe9"]
    for source in (records, iter(records)):
        assert [row["text"] for row in rows(source, modality="text")] == wanted
