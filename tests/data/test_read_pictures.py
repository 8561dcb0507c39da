"""A folder of pictures: which files, in which order, of which class; bytes as they lie."""

import hashlib
import zipfile

import numpy as np
import pytest
from PIL import Image

from verossim.data import open_source


def draw(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)).save(path, "PNG")
    return path


def read(source):
    blocks = list(source.blocks())
    labels = [label for block in blocks for label in block.columns.get("label", ())]
    return [name for block in blocks for name in block.names], labels


def test_class_by_sub_folder_under_a_common_one(tmp_path):
    for number, name in enumerate(["set/dog/b.png", "set/dog/a.png", "set/cat/deep/c.png"]):
        draw(tmp_path / name, number)
    source = open_source(tmp_path)
    assert read(source) == (["set/cat/deep/c.png", "set/dog/a.png", "set/dog/b.png"], ["cat", "dog", "dog"])
    assert source.modality == "image" and source.label == "label"
    (block,) = source.blocks()
    assert block.columns["image"][1] == (tmp_path / "set/dog/a.png").read_bytes()


def test_pictures_in_one_folder_have_no_class(tmp_path):
    draw(tmp_path / "one" / "a.png")
    draw(tmp_path / "one" / "b.png", 1)
    source = open_source(tmp_path)
    assert source.label is None and read(source) == (["one/a.png", "one/b.png"], [])


def test_pictures_beside_the_classes_have_an_unknown_class(tmp_path):
    draw(tmp_path / "a.png")
    draw(tmp_path / "cat" / "b.png", 1)
    source = open_source(tmp_path)
    assert read(source)[1] == [None, "cat"] and any("no class" in note for note in source.notes)


def test_labels_csv(tmp_path):
    for number, name in enumerate(["a.png", "b.png", "deep/c.png"]):
        draw(tmp_path / name, number)
    (tmp_path / "labels.csv").write_text("label,file\ncat,b.png\n,a.png\ndog,deep/c.png\n")
    assert read(open_source(tmp_path)) == (["a.png", "b.png", "deep/c.png"], [None, "cat", "dog"])


def test_content_makes_a_picture_and_other_files_are_left_alone(tmp_path):
    draw(tmp_path / "no-suffix")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden.png").write_bytes(b"junk")
    source = open_source(tmp_path)
    assert read(source)[0] == ["no-suffix"] and any("1 file(s)" in note for note in source.notes)


@pytest.mark.parametrize("name", ["ação-猫.png", "new\nline.png", "x" * 251 + ".png", "\x1b[31m.png"])
def test_strange_names_are_kept(tmp_path, name):
    draw(tmp_path / name)
    assert read(open_source(tmp_path))[0] == [name]


def test_names_that_differ_by_case(tmp_path):
    draw(tmp_path / "a.png")
    draw(tmp_path / "A.png", 1)
    source = open_source(tmp_path)
    assert read(source)[0] == ["A.png", "a.png"] and any("case only" in note for note in source.notes)


def test_links_inside_the_folder_are_followed(tmp_path):
    draw(tmp_path / "cat" / "a.png")
    (tmp_path / "cat" / "b.png").symlink_to("a.png")
    (tmp_path / "dog").symlink_to("cat")
    names, _ = read(open_source(tmp_path))
    assert names == ["cat/a.png", "cat/b.png", "dog/a.png", "dog/b.png"]


def test_blocks_are_bounded_and_the_digest_is_that_of_the_file(tmp_path):
    for number in range(300):
        draw(tmp_path / f"{number:03}.png", number)
    source = open_source(tmp_path)
    assert [len(block) for block in source.blocks()] == [256, 44]
    data = (tmp_path / "007.png").read_bytes()
    assert source.digests()[7] == ("007.png", len(data), hashlib.sha256(data).hexdigest())
    assert open_source(tmp_path).digests() == source.digests()


def test_a_zip_of_pictures(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for number, name in enumerate(["top/cat/1.png", "top/dog/2.png"]):
            archive.write(draw(tmp_path / f"{number}.png", number), name)
    source = open_source(tmp_path / "set.zip")
    assert read(source) == (["top/cat/1.png", "top/dog/2.png"], ["cat", "dog"])
    unpacked = source.reader.root
    del source
    assert not unpacked.exists()


def test_a_folder_that_holds_both_is_pictures_unless_said(tmp_path):
    draw(tmp_path / "a.png")
    (tmp_path / "b.csv").write_text("x,y\n1,2\n")
    assert open_source(tmp_path).modality == "image"
    source = open_source(tmp_path, modality="table")
    assert source.columns == ["x", "y"] and any("1 file(s)" in note for note in source.notes)


def test_one_picture_is_a_source(tmp_path):
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.png", 1)
    assert read(open_source(tmp_path / "a.png"))[0] == ["a.png"]
