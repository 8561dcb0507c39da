"""Preparation: encoded once, split by content, accounted for, kept and found again, and nothing left behind."""

import contextlib
import hashlib
import json
import resource
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image

from verossim import data
from verossim.data import archives, cache, fingerprints
from verossim.data.manifest import Manifest
from verossim.errors import BadConfig, BadData, CannotWrite
from verossim.shelves import CODECS
from verossim.spaces import Records


def prepared(given, label=None, weight=None, held_out=0.1, **asked):
    source = data.open_source(given, label=label, weight=weight)
    kind = CODECS.load(source.modality)
    codec = kind(kind.Config()).fit(source.features())
    labels = None
    if source.label:
        kind = CODECS.load("label")
        labels = kind(kind.Config(column=source.label)).fit(source.blocks())
    return data.prepare(source, codec, labels, held_out=held_out, **asked), codec, source


def everything(split):
    return split.slice(0, len(split))


def frame(records=1000, seed=0):
    generator = np.random.default_rng(seed)
    return pd.DataFrame({"x": generator.normal(size=records), "n": generator.integers(0, 50, records),
                         "kind": generator.choice(["red", "blue", "green"], records)})


def test_records_come_out_as_the_codec_encodes_them():
    rows = frame()
    encoded, codec, source = prepared(rows)
    (block,) = source.blocks()
    x = codec.encode(codec.parse(block, []))
    for split in (encoded.train, encoded.held_out):
        batch = everything(split)
        assert torch.equal(batch.x, x[batch.index]) and batch.condition is None
        assert batch.units.dtype == torch.float32 and (batch.units == 1).all()
    indices = torch.cat([everything(encoded.train).index, everything(encoded.held_out).index])
    assert sorted(indices.tolist()) == list(range(1000))
    assert 60 < len(encoded.held_out) < 140


def test_the_split_is_by_content_and_not_by_order():
    rows = frame()
    shuffled = rows.sample(frac=1, random_state=1)[["kind", "x", "n"]]

    def held(given):
        encoded, *_ = prepared(given)
        return {tuple(given[["x", "n", "kind"]].iloc[i]) for i in everything(encoded.held_out).index.tolist()}
    assert held(rows) == held(shuffled) != set()


def test_identical_records_lie_on_one_side_and_are_counted():
    rows = pd.concat([frame(300)] * 4 + [frame(100, seed=1)], ignore_index=True)
    rows["label"] = np.arange(len(rows)) % 2
    encoded, *_ = prepared(rows, label="label", held_out=0.3)
    content = rows[["x", "n", "kind"]].apply(tuple, axis=1)
    train, held = ({content[i] for i in everything(split).index.tolist()} for split in (encoded.train, encoded.held_out))
    assert not train & held and len(train) + len(held) == 400
    assert encoded.manifest.duplicates == 900


def test_what_is_regenerated_does_not_decide_the_side():
    twice = pd.concat([frame(2000).assign(id=[f"{word}-{i:05}" for i in range(2000)]) for word in ("user", "USER")])
    encoded, codec, _ = prepared(twice)
    assert {row["column"]: row["type"] for row in codec.describe()}["id"] == "identifier"
    assert encoded.manifest.duplicates == 2000


@pytest.mark.parametrize(("records", "share", "held"), [(2, 0.1, False), (19, 0.1, False), (200, 0.1, True), (10, 0.5, True)])
def test_tiny_data_is_all_for_training_unless_more_is_asked(records, share, held):
    encoded, *_ = prepared(frame(records), held_out=share)
    assert (len(encoded.held_out) > 0) == held and len(encoded.train) + len(encoded.held_out) == records


def test_records_that_all_fall_on_the_held_out_side_are_trained_on():
    share = 0.97
    rows = pd.DataFrame({"x": [1.0, 2.0] * 20, "kind": ["a", "b"] * 20})
    encoded, *_ = prepared(rows, held_out=share)
    assert len(encoded.train) > 0 and len(encoded.train) + len(encoded.held_out) == 40


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_cannot_be(share):
    with pytest.raises(BadConfig) as error:
        prepared(frame(30), held_out=share)
    assert error.value.code == "SETTING_RANGE"


def test_labels_and_weights_travel_with_their_records(tmp_path):
    path = tmp_path / "table.csv"
    lines = [f"{i / 7},{'uv'[i % 2] if i % 5 else ''},{i + 1}" for i in range(60)]
    lines[10], lines[20], lines[30], lines[40] = "1,u,0", "1,u,inf", "1,v,nothing", "1,v,-3"
    path.write_text("x,y,w\n" + "\n".join(lines) + "\n")
    encoded, _, source = prepared(path, label="y", weight="w")
    batch = everything(encoded.train)
    assert batch.units.tolist() == [i + 1 for i in batch.index.tolist()]
    assert batch.condition.dtype == torch.int64
    assert batch.condition.tolist() == [-1 if i % 5 == 0 else i % 2 for i in batch.index.tolist()]
    assert [problem.code for problem in source.problems] == ["TAB_WEIGHT"] * 4
    assert "record 11" in source.problems[0].where and "'w'" in source.problems[0].message
    assert encoded.manifest.records == 56 and encoded.manifest.skipped == 4


def test_records_that_cannot_be_used_are_left_out_in_step(tmp_path):
    path = tmp_path / "table.csv"
    lines = [f"{i / 7},{'uv'[i % 2]}" for i in range(200)]
    lines[50] = "inf,u"
    lines[60] = "1,u,9"
    path.write_text("x,y\n" + "\n".join(lines) + "\n")
    encoded, codec, source = prepared(path, label="y")
    assert {problem.code for problem in source.problems} == {"TAB_NONFINITE", "TAB_RAGGED"}
    assert encoded.manifest.records == 198 and encoded.manifest.skipped == 2
    for batch in (everything(encoded.train), everything(encoded.held_out)):
        lines_of = [i if i < 60 else i + 1 for i in batch.index.tolist()]  # the ragged line is no record
        values = codec.decode(batch.x).columns["x"].to_pylist()
        assert [round(float(v) * 7) for v in values] == lines_of
        assert batch.condition.tolist() == [i % 2 for i in lines_of]


def test_strict_raises_at_the_first_problem_and_keeps_nothing(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("x,y\n" + "".join(f"{i % 7}.5,1.{i}\n" for i in range(50)) + "inf,2\n")
    with pytest.raises(BadData) as error:
        prepared(path, folder=tmp_path / "kept", strict=True)
    assert error.value.code == "TAB_NONFINITE" and "51" in error.value.message
    assert list((tmp_path / "kept").iterdir()) == []


def pictures(tmp_path, count=40):
    for number in range(count):
        folder = tmp_path / "pictures" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)).save(folder / f"{number:03}.png")
    return tmp_path / "pictures"


def test_pictures_are_kept_as_levels_and_come_out_exact(tmp_path):
    folder = pictures(tmp_path)
    (folder / "cat" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\njunk")
    encoded, codec, source = prepared(folder, folder=tmp_path / "kept")
    (block,) = source.blocks()
    parsed = codec.parse(block, [])
    x = codec.encode(parsed)
    batch = everything(encoded.train)
    names = [block.names[i] for i in batch.index.tolist()]
    assert torch.equal(batch.x, x[[list(parsed.names).index(name) for name in names]])
    assert [name.split("/")[0] for name in names] == [["cat", "dog"][c] for c in batch.condition.tolist()]
    (place,) = (tmp_path / "kept").iterdir()
    assert (place / "train" / "x").stat().st_size == len(encoded.train) * 64
    assert [problem.where for problem in source.problems] == ["cat/bad.png"]


def test_files_are_mapped_where_they_are_large(monkeypatch):
    held, *_ = prepared(frame(500), held_out=0.2)
    monkeypatch.setattr(cache, "IN_MEMORY_BYTES", 0)
    mapped, *_ = prepared(frame(500), held_out=0.2)
    assert held.train.held and not mapped.train.held
    rows = torch.tensor([5, 3, 3, 0])
    for cut in (lambda s: s.slice(7, 99), lambda s: s.take(rows), lambda s: s.slice(3, 3), lambda s: s.slice(0, 10**6)):
        a, b = cut(held.train), cut(mapped.train)
        assert torch.equal(a.x, b.x) and torch.equal(a.index, b.index) and torch.equal(a.units, b.units)
    mapped.train.slice(0, 10).x.zero_()
    assert torch.equal(held.train.slice(0, 10).x, mapped.train.slice(0, 10).x)


@pytest.mark.parametrize("ranks", [1, 3])
def test_sweeps_of_all_ranks_cover_every_record_once(ranks):
    encoded, *_ = prepared(frame(500))
    seen = [i for rank in range(ranks) for batch in encoded.train.sweep(64, rank, ranks) for i in batch.index.tolist()]
    assert seen == everything(encoded.train).index.tolist()
    assert max(len(batch.x) for batch in encoded.train.sweep(64)) == 64


def test_a_folder_keeps_what_was_encoded_and_finds_it_again(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    frame(300).to_csv(path, index=False)
    first, *_ = prepared(path, folder=tmp_path / "kept")
    (place,) = (tmp_path / "kept").iterdir()
    monkeypatch.setattr(cache, "_write", lambda *_: pytest.fail("encoded again"))
    again, *_ = prepared(path, folder=tmp_path / "kept")
    assert torch.equal(everything(first.train).x, everything(again.train).x) and first.manifest == again.manifest
    monkeypatch.undo()
    (place / "encoded.json").unlink()  # as if it had been cut off
    prepared(path, folder=tmp_path / "other")
    prepared(path, folder=tmp_path / "kept", held_out=0.2)
    path.write_text(path.read_text() + "0.5,3,red\n")
    prepared(path, folder=tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 3


def test_an_unfinished_folder_is_made_anew(tmp_path):
    path = tmp_path / "table.csv"
    frame(300).to_csv(path, index=False)
    first, *_ = prepared(path, folder=tmp_path / "kept")
    (place,) = (tmp_path / "kept").iterdir()
    (place / "encoded.json").unlink()
    (place / "train" / "x").write_bytes(b"half")
    again, *_ = prepared(path, folder=tmp_path / "kept")
    assert torch.equal(everything(first.train).x, everything(again.train).x)


def test_temporary_files_go_with_the_last_split():
    encoded, *_ = prepared(frame(100))
    path, train = encoded.train.path, encoded.train
    del encoded
    assert path.is_dir() and len(train)
    del train
    assert not path.exists()


def test_the_manifest_accounts_for_everything(tmp_path):
    path = tmp_path / "table.csv"
    frame(300).to_csv(path, index=False)
    manifest = prepared(path)[0].manifest
    assert manifest.columns == ("x", "n", "kind") and manifest.records == 300 == manifest.train + manifest.held_out
    (entry,) = manifest.files
    assert entry.name == "table.csv" and entry.bytes == path.stat().st_size
    assert entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert Manifest.from_plain(json.loads(json.dumps(manifest.plain()))) == manifest
    (tmp_path / "moved").mkdir()
    moved = path.rename(tmp_path / "moved" / "table.csv")
    assert prepared(moved)[0].manifest.hash == manifest.hash
    moved.write_text(moved.read_text().replace("red", "rot"))
    assert prepared(moved)[0].manifest.hash != manifest.hash
    of_memory = [prepared(frame(count))[0].manifest.hash for count in (300, 300, 301)]
    assert of_memory[0] == of_memory[1] != of_memory[2]


@pytest.mark.parametrize("column", [
    pa.array([1, 2, None, 1]), pa.array([0.5, -0.0, None, 0.5]), pa.array(["a", "", None, "a"]), ["a", "b", None, "a"],
    pa.array([True, False, None, True]), pa.array([1, 2, None, 1], pa.timestamp("us")),
    pa.array(["u", "v", None, "u"]).dictionary_encode(),
    [np.zeros((2, 3), np.uint8), np.ones((2, 3), np.uint8), np.zeros((3, 2), np.uint8), np.zeros((2, 3), np.uint8)]])
def test_fingerprints_tell_values_apart(column):
    a, b, c, again = fingerprints.fingerprints(Records({"v": column}))
    assert a == again and len({int(a), int(b), int(c)}) == 3
    assert fingerprints.fingerprints(Records({"w": column}))[0] != a


def test_duplicates_are_counted_over_partitions(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprints, "_PARTITION", 100)
    values = np.random.default_rng(0).integers(0, 700, 2000).astype(np.uint64)
    (tmp_path / "prints").write_bytes(values.tobytes())
    assert fingerprints.duplicates(tmp_path / "prints") == 2000 - len(np.unique(values))


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CannotWrite) as error:
        prepared(frame(50), folder=tmp_path / "file" / "kept")
    assert error.value.code == "OUT_DENIED" and error.value.status == 73


@contextlib.contextmanager
def no_file_above(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kept", [False, True])
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, kept):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    folder = tmp_path / "kept" if kept else None
    with pytest.raises(CannotWrite) as error, no_file_above(100_000):
        prepared(np.random.default_rng(0).normal(size=(20_000, 8)), folder=folder)
    assert error.value.code == "DISK_FULL" and error.value.status == 74
    assert not any((tmp_path / "temporary").iterdir()) and not (kept and any(folder.iterdir()))


def spoilt(tmp_path):
    path = tmp_path / "table.csv"
    lines = [f"{i / 7},{'uv'[i % 2]}" for i in range(200)]
    lines[50], lines[60] = "inf,u", "1,u,9"
    path.write_text("x,y\n" + "\n".join(lines) + "\n")
    return path


def test_what_is_found_again_comes_with_its_problems(tmp_path, monkeypatch):
    path = spoilt(tmp_path)
    first, codec, source = prepared(path, folder=tmp_path / "kept")
    assert {problem.code for problem in source.problems} == {"TAB_NONFINITE", "TAB_RAGGED"}
    monkeypatch.setattr(cache, "_write", lambda *_: pytest.fail("encoded again"))
    fresh = data.open_source(path)
    again = data.prepare(fresh, codec, folder=tmp_path / "kept")
    assert fresh.problems == source.problems and fresh.problem_count == source.problem_count == 2
    assert again.manifest == first.manifest
    (tmp_path / "moved").mkdir()
    moved = data.open_source(path.rename(tmp_path / "moved" / "table.csv"))
    data.prepare(moved, codec, folder=tmp_path / "kept")
    assert len(moved.problems) == 2
    assert all(str(tmp_path / "moved") in told.where and str(tmp_path / "moved") in told.message for told in moved.problems)


def test_strict_holds_for_what_is_found_again(tmp_path):
    path = spoilt(tmp_path)
    _, codec, source = prepared(path, folder=tmp_path / "kept")
    with pytest.raises(BadData) as error:
        data.prepare(data.open_source(path), codec, folder=tmp_path / "kept", strict=True)
    assert (error.value.code, error.value.message) == (source.problems[0].code, source.problems[0].message)
    with pytest.raises(BadData):
        data.prepare(data.open_source(path, strict=True), codec, folder=tmp_path / "kept")


@pytest.mark.parametrize("name", ["train/x", "held_out/units", "train/index", "encoded.json"])
@pytest.mark.parametrize("harm", ["cut", "gone", "longer"])
def test_a_kept_file_of_another_size_is_made_anew(tmp_path, name, harm):
    path = tmp_path / "table.csv"
    frame(300).to_csv(path, index=False)
    first, *_ = prepared(path, folder=tmp_path / "kept")
    (place,) = (tmp_path / "kept").iterdir()
    content = (place / name).read_bytes()
    if harm == "gone":
        (place / name).unlink()
    else:
        (place / name).write_bytes(content[:len(content) // 2] if harm == "cut" else content + b"more")
    again, *_ = prepared(path, folder=tmp_path / "kept")
    assert torch.equal(everything(first.train).x, everything(again.train).x) and (place / name).read_bytes() == content


def test_what_a_killed_run_left_is_removed(tmp_path):
    path = tmp_path / "table.csv"
    frame(300).to_csv(path, index=False)
    script = ("import os, sys; from verossim import data; from verossim.data import cache\n"
              "from verossim.codecs.table import MEMBER as Table\n"
              "source = data.open_source(sys.argv[1]); codec = Table(Table.Config()).fit(source.features())\n"
              "cache._write = lambda *_: os._exit(9)\n"
              "data.prepare(source, codec, folder=sys.argv[2])")
    killed = subprocess.run([sys.executable, "-c", script, str(path), str(tmp_path / "kept")], check=False)
    assert killed.returncode == 9 and len(list((tmp_path / "kept").iterdir())) == 1
    prepared(path, folder=tmp_path / "kept")
    (place,) = (tmp_path / "kept").iterdir()
    assert (place / "encoded.json").is_file()


def test_records_are_picked_from_files_that_are_larger_than_memory(tmp_path):
    count, place = 1 << 30, tmp_path / "train"  # half a terabyte of windows, of which a few bytes are there
    place.mkdir()
    layout = {"x": ("int16", (256,)), "units": ("float32", ()), "index": ("int64", ())}
    for name, (dtype, shape) in layout.items():
        with (place / name).open("wb") as file:
            size = np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
            file.truncate(count * size)
            file.seek((count - 1) * size)
            file.write(np.full(shape, 7, dtype).tobytes())
    split = cache.Split(archives.Folder(tmp_path), "train", count, {k: cache._Quantity(*v) for k, v in layout.items()}, None)
    batch = split.take(torch.tensor([count - 1, 0]))
    assert (batch.x == torch.tensor([[7], [0]])).all()
    assert batch.index.tolist() == [7, 0]
