"""Which records are held out: whole documents where there are enough of them, and the same ones whenever they are asked for."""

import numpy as np
import pytest

from verossim.codecs.label import Label
from verossim.codecs.table import Table
from verossim.codecs.text import Text
from verossim.data import open_source, prepare, sides
from verossim.data.documents import stretches


def library(folder, count, size):
    """A folder of so many files of random letters, of about so many bytes."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        letters = random.integers(97, 123, size + 1000 * number, dtype=np.uint8)
        letters[::60] = 10
        (folder / f"{number}.txt").write_bytes(letters.tobytes())
    return folder


def parted(folder, share):
    """What is learned from and held out, as documents or stretches, and the two sides as prepared."""
    codec = Text(Text.Config(tokens="bytes", context=64)).fit(open_source(folder).blocks())
    found = sides(open_source(folder), codec, share)
    return [list(side.rows()) for side in found], prepare(open_source(folder), codec, held_out=share)


def test_documents_are_held_out_whole_and_found_again(tmp_path):
    (learned, unseen), prepared = parted(library(tmp_path / "books", 40, 150_000), 0.2)
    assert all(row["begins"] and row["ends"] for row in learned + unseen)
    books = sorted(path.read_bytes() for path in (tmp_path / "books").iterdir())
    assert sorted(row["text"] for row in learned + unseen) == books
    assert len(unseen) > 1
    cut = [stretch for row in unseen for stretch in stretches([row["text"]])]
    tokens = sum(len(one.text) - (not one.begins) + one.ends for one in cut)  # what opens a later stretch is given
    assert float(prepared.held_out.slice(0, len(prepared.held_out)).units.sum()) == tokens


@pytest.mark.parametrize("count", [1, 5])
def test_of_few_documents_stretches_are_held_out_and_found_again(tmp_path, count):
    (learned, unseen), prepared = parted(library(tmp_path / "books", count, 3_000_000 // count), 0.2)
    assert unseen and not all(row["begins"] and row["ends"] for row in learned + unseen)
    tokens = sum(len(row["text"]) - (not row["begins"]) + row["ends"] for row in unseen)
    assert float(prepared.held_out.slice(0, len(prepared.held_out)).units.sum()) == tokens


def test_a_label_named_side_stays_what_it_is(tmp_path):
    texts = [{"text": f"{number} " * 40, "side": "left" if number % 3 else "right"} for number in range(200)]
    source = open_source(texts, modality="text", target="text", label="side")
    codec = Text(Text.Config(tokens="bytes", context=64)).fit(source.features())
    learned, unseen = sides(source, codec, 0.2)
    assert sorted(row["side"] for side in (learned, unseen) for row in side.rows()) == sorted(row["side"] for row in texts)
    labels = Label(Label.Config(column="side")).fit(source.blocks())
    prepared = prepare(source, codec, labels, held_out=0.2)
    assert prepared.manifest.skipped == 0 and len(prepared.held_out) > 0


def test_a_column_named_side_decides_nothing():
    table = {"side": ["left", "right"] * 100, "goals": [0.5 + number * number % 97 for number in range(200)]}
    codec = Table(Table.Config()).fit(open_source(table).blocks())
    for side in sides(open_source(table), codec, 0.3):
        assert {row["side"] for row in side.rows()} == {"left", "right"}
