"""Bad text: each case has its code and exit status, names the place, and says what to do."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from refusing import refused

from verossim.codecs.text import Text, TextConfig
from verossim.config import build
from verossim.data import open_source
from verossim.errors import VerossimError
from verossim.spaces import Records


def passed_over(data, **asked):
    """Code, place and message of what was passed over, and how many records were not; strict, the first is raised."""
    source = open_source(data, **asked)
    count = sum(map(len, source.blocks()))
    assert all(problem.hint and problem.where in problem.message for problem in source.problems)
    with pytest.raises(VerossimError) as caught:
        list(open_source(data, strict=True, **asked).blocks())
    assert caught.value.code == source.problems[0].code
    return count, [(problem.code, problem.where, problem.message) for problem in source.problems]


def put(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# ---- what is no text -----------------------------------------------------------------------------------------------------


def test_nothing(tmp_path):
    assert refused(put(tmp_path / "empty.txt", ""), "DATA_EMPTY", 66, "empty.txt").hint
    refused(put(tmp_path / "empty.py", ""), "DATA_EMPTY", 66, "empty.py", modality="text")
    refused(put(tmp_path / "blank.txt", "\n \n\n"), "DATA_EMPTY", 66, "blank.txt", documents="line")
    refused(tmp_path, "DATA_EMPTY", 66, tmp_path.name, modality="text", documents="line")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "DATA_EMPTY", 66, "folder", modality="text")
    refused([], "DATA_EMPTY", 66, modality="text")
    refused(iter([]), "DATA_EMPTY", 66, modality="text")
    refused(put(tmp_path / "none.jsonl", "\n\n"), "DATA_EMPTY", 66, "none.jsonl", modality="text")


@pytest.mark.parametrize(("content", "offset", "byte"), [
    ("Olá, café\n".encode() * 2 + b"caf\xe9 ok\n", 27, "0xe9"),
    ("Olá\n".encode() * 400_000 + b"\xe9\n", 2_000_000, "0xe9"),
    (b"plain \xed\xa0\x80 surrogate", 6, "0xed"),
    (b"plain \xe9 and \x81 undefined", 12, "0x81"),
    (b"plain\n" * 300_000 + b"\xe9 and \x81 undefined", 1_800_006, "0x81"),
    ("Olá, olá".encode() + b"\xc3", 10, "0xc3"),
    ("ab".encode("utf-16") + b"\x00\xd8" + "c".encode("utf-16-le"), 6, "0x00"),
])
def test_bytes_that_are_invalid_are_named_by_their_offset(tmp_path, content, offset, byte):
    assert refused(put(tmp_path / "book.txt", content), "TEXT_ENCODING", 65, "book.txt", byte, f"offset {offset:,} ").hint


def test_zero_bytes_and_binary_are_refused_by_name(tmp_path):
    refused(put(tmp_path / "a.txt", b"text " * 20_000 + b"\0 more"), "TEXT_BINARY", 65, "a.txt", "byte 100,000 ")
    refused(put(tmp_path / "a.smi", b"C" * 300 + b"\nC\0\n"), "TEXT_BINARY", 65, "a.smi, line 2", "zero byte")
    refused(put(tmp_path / "b.txt", bytes(range(256)) * 8), "TEXT_BINARY", 65, "b.txt", "binary data")
    refused(put(tmp_path / "c.pdf", b"%PDF-1.4 ..."), "DATA_FORMAT", 65, "c.pdf", "PDF", modality="text")


def test_in_a_folder_what_is_no_text_is_passed_over(tmp_path):
    put(tmp_path / "good.txt", "good\n")
    put(tmp_path / "binary.txt", bytes(range(256)) * 8)
    put(tmp_path / "invalid.txt", "Olá".encode() * 30 + b"\xe9!")
    put(tmp_path / "zero.txt", b"text " * 200 + b"\0")
    picture = io.BytesIO()
    Image.new("L", (4, 4)).save(picture, "PNG")
    put(tmp_path / "picture.bin", picture.getvalue())
    count, problems = passed_over(tmp_path, modality="text")
    assert count == 1
    assert [(code, where.rpartition("/")[2]) for code, where, _ in problems] == [
        ("TEXT_BINARY", "binary.txt"), ("TEXT_ENCODING", "invalid.txt"), ("TEXT_BINARY", "zero.txt")]
    assert any("1 file(s) that are not text" in note for note in open_source(tmp_path, modality="text").notes)


def test_lone_surrogates(tmp_path):
    count, problems = passed_over(["good", "bad \ud800", "good \U0001f600"])
    assert count == 2 and problems[0][:2] == ("TEXT_ENCODING", "texts, record 2") and "U+D800 at character 4" in problems[0][2]
    path = put(tmp_path / "a.jsonl", '{"text": "\\udfff"}\n{"text": "good"}\n')
    count, problems = passed_over(path, modality="text")
    assert count == 1 and problems[0][:2] == ("TEXT_ENCODING", f"{path}, line 1")


# ---- records -------------------------------------------------------------------------------------------------------------


def said(*roles):
    return {"messages": [{"role": role, "content": "words"} for role in roles]}


@pytest.mark.parametrize(("record", "code", "words"), [
    (said("user"), "CHAT_NO_ANSWER", "user"),
    ({"messages": []}, "CHAT_NO_ANSWER", "none"),
    ({"messages": [*said("user")["messages"], {"role": "assistant", "content": ""}]}, "CHAT_NO_ANSWER", "assistant"),
    (said("user", "robot"), "CHAT_ROLE", "'robot'"),
    ({"messages": [{"content": "words"}]}, "CHAT_ROLE", "'None'"),
    ({"messages": "words"}, "CHAT_FORM", "words"),
    ({"messages": [{"role": "assistant", "content": None}]}, "CHAT_FORM", "None"),
    ({"text": "words"}, "CHAT_FORM", "None"),
])
def test_chats_that_cannot_be_learned(tmp_path, record, code, words):
    lines = [said("user", "assistant"), record, said("assistant")]
    path = put(tmp_path / "chats.jsonl", "\n".join(map(json.dumps, lines)))
    count, ((found, where, message),) = passed_over(path, modality="text")
    assert (count, found, where) == (2, code, f"{path}, line 2") and words in message


@pytest.mark.parametrize(("row", "words"), [(",sim", "'en' is ''"), ("yes,", "'pt' is ''"), ("yes,  ", "'pt' is '  '")])
def test_pairs_with_an_empty_side(tmp_path, row, words):
    path = put(tmp_path / "pairs.csv", f"en,pt\nno,não\n{row}\n")
    count, ((code, where, message),) = passed_over(path, condition="en", target="pt")
    assert (count, code, where) == (1, "PAIR_EMPTY", f"{path}, record 2") and words in message
    records = [{"en": "no", "pt": "não"}, {"en": None, "pt": "sim"}]
    lines = put(tmp_path / "pairs.jsonl", "\n".join(map(json.dumps, records)))
    count, ((code, where, message),) = passed_over(lines, condition="en", target="pt")
    assert (count, code, where) == (1, "PAIR_EMPTY", f"{lines}, line 2") and "'en' is missing" in message
    count, ((code, _, message),) = passed_over([{"en": b"no", "pt": b"n\xc3\xa3o"}, {"en": b" ", "pt": "sim"}], condition="en",
                                               target="pt")
    assert (count, code) == (1, "PAIR_EMPTY") and "'en'" in message


@pytest.mark.parametrize(("line", "code", "words"), [
    ('{"text": "cut', "TAB_CORRUPT", "not JSON"), ("[1]", "TAB_RAGGED", "no keys"),
    ('{"text": null}', "TEXT_MISSING", "'text'"),
    ('{"words": "x"}', "TEXT_MISSING", "'text'"), ('{"text": ["a"]}', "TAB_TYPE", "not a text"),
    ('{"a":' * 100_000, "TAB_CORRUPT", "not JSON")])
def test_lines_that_are_no_records(tmp_path, line, code, words):
    path = put(tmp_path / "a.jsonl", f'{{"text": "one"}}\n{line}\n')
    count, ((found, where, message),) = passed_over(path, modality="text")
    assert (count, found, where) == (1, code, f"{path}, line 2") and words in message


def test_columns_that_are_not_there(tmp_path):
    path = put(tmp_path / "pairs.csv", "en,pt\nno,não\n")
    assert "'en'" in refused(path, "COLUMN_UNKNOWN", 65, "'eng'", condition="eng", target="pt").hint
    pq.write_table(pa.table({"a": ["x"], "b": ["y"]}), tmp_path / "t.parquet")
    assert "target=" in refused(tmp_path / "t.parquet", "COLUMN_UNKNOWN", 65, "a, b", modality="text").hint
    refused(put(tmp_path / "x.jsonl", '{"a": 1}\n'), "COLUMN_UNKNOWN", 65, "x.jsonl", modality="text")
    refused([{"a": "x"}], "COLUMN_UNKNOWN", 65, modality="text")
    refused([3.5], "TAB_TYPE", 65, "record 1", modality="text")
    refused(iter(["a", 3]), "TAB_TYPE", 65, "record 2", modality="text")


def test_what_is_asked_must_make_sense(tmp_path):
    path = put(tmp_path / "a.txt", "a\n")
    assert "'line'" in refused(path, "SETTING_RANGE", 64, "'lines'", documents="lines").hint
    refused(path, "SETTING_RANGE", 64, "'condition'", condition="en")


def test_files_of_several_kinds(tmp_path):
    put(tmp_path / "a.jsonl", json.dumps(said("assistant")))
    put(tmp_path / "b.jsonl", '{"text": "a"}')
    refused(tmp_path, "TAB_SCHEMA", 65, "a.jsonl", "b.jsonl", modality="text")


def test_a_line_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("verossim.data.textfiles.LINE_BYTES", 1000)
    path = put(tmp_path / "a.jsonl", json.dumps({"text": "x"}) + "\n" + json.dumps({"text": "x" * 1000}))
    refused(path, "TAB_CELL", 65, "line 2", modality="text")


# ---- the codec -----------------------------------------------------------------------------------------------------------


def codec(**settings):
    return Text(build(TextConfig, settings)).fit([Records({"text": [b"to be or not to be"]})])


def broken(code, status, act):
    with pytest.raises(VerossimError) as caught:
        act()
    assert (caught.value.code, caught.value.status) == (code, status) and caught.value.hint
    return caught.value.message


@pytest.mark.parametrize("settings", [
    {"tokens": "words"}, {"tokens": "bpe:256"}, {"tokens": "bpe:"}, {"tokens": "bpe:-1"}, {"tokens": "bpe:1000001"},
    {"context": 1}, {"context": 65_537}, {"stride": 0}, {"stride": 17, "context": 16}, {"gaps": -0.1}, {"gaps": 1.1}])
def test_settings_out_of_range(settings):
    broken("SETTING_RANGE", 64, lambda: codec(**settings))


def test_records_that_do_not_fit():
    text = codec(context=16)
    records = text.parse(Records({"text": ["a" * 15, "b" * 16]}, "mine"), [])
    assert "mine, record 2 has 18 tokens and 17 fit" in broken("TEXT_LONG", 65, lambda: text.encode(records))
    broken("SETTING_RANGE", 64, lambda: text.cut(records, learning=False, stride=17))
    assert "columns a" in broken("TEXT_COLUMNS", 65, lambda: text.parse(Records({"a": [1]}), []))
    broken("DATA_EMPTY", 66, lambda: Text(TextConfig()).fit([Records({"text": [b"", b""]})]))


def test_records_that_cannot_be_written_are_named():
    problems = []
    parsed = codec().parse(Records({"text": ["a", "b\ud800", "c"]}, "mine"), problems)
    assert len(parsed) == 2 and [(p.code, p.where) for p in problems] == [("TEXT_ENCODING", "mine, record 2")]
    parsed = codec().parse(Records({"messages": [[("robot", b"a")]]}, "mine"), problems)
    assert not len(parsed) and (problems[1].code, problems[1].where) == ("CHAT_ROLE", "mine, record 1")


def test_one_symbol_and_little_text_are_warned_of():
    (note,) = Text(TextConfig()).fit([Records({"text": [b"a" * 1000]})]).notes
    assert note.startswith("DATA_CONSTANT") and "1,000" in note
    (note,) = Text(TextConfig(context=18)).fit([Records({"text": [b"to be or not to be"]})]).notes
    assert note.startswith("TEXT_SHORT") and "18" in note
    assert codec(context=17).notes == []
