"""A save is the old model or the new one: under kill -9, under every operating system call failing, under flipped bits."""

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from failing import CALLS, fail

from verossim import sealed, store
from verossim.errors import CannotWrite, CorruptStore, Refused
from verossim.folders import rewrite

MODEL = {"family": {"name": "gmm", "config": {"components": 2}}, "codec": None}
CARD = {"seed": 0, "history": {"objectives": [-3.5, -3.25], "held_out": float("nan")}}

KILLS = """
import os, random, signal, sys, time, torch
from verossim import store

torch.set_num_threads(1)

def save_forever(folder, number, tell):
    while True:
        number += 1
        store.save(folder, {"number": number}, {"w": torch.full((3000,), float(number))}, {"number": number})
        os.write(tell, b"%d\\n" % number)

folder, last = sys.argv[1], 0
for _ in range(30):
    hear, tell = os.pipe()
    child = os.fork()
    if not child:
        save_forever(folder, last, tell)
    os.close(tell)
    said = os.read(hear, 1 << 16)
    time.sleep(random.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(hear, 1 << 16):
        said += more
    os.close(hear)
    stored = store.load(folder)
    saved, last = int(said.split()[-1]), stored.model["number"]
    assert last in (saved, saved + 1), f"{saved} was saved and {last} is there"
    assert stored.card["number"] == last and (stored.tensors["w"] == last).all(), "parts of two models"
print(last)
"""


def tensors(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"mean": torch.full((2, 3), value, dtype=torch.float64), "count": torch.tensor([4, 5])}


def value(folder: Path) -> float:
    return float(store.load(folder).tensors["mean"][0, 0])


def beside(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.parent.iterdir() if p.name != folder.name)


@pytest.fixture
def saved(tmp_path) -> Path:
    store.save(tmp_path / "model", MODEL, tensors(), CARD)
    return tmp_path / "model"


def test_what_is_saved_is_loaded(saved):
    loaded = store.load(saved)
    assert loaded.model["family"] == MODEL["family"]
    assert loaded.card["history"] == {"objectives": [-3.5, -3.25], "held_out": None}
    for name, tensor in tensors().items():
        assert loaded.tensors[name].dtype == tensor.dtype and torch.equal(loaded.tensors[name], tensor)
    assert beside(saved) == []


def test_equal_models_give_equal_bytes(saved, tmp_path):
    backwards = {name: tensors()[name] for name in reversed(tensors())}
    first = store.load(saved).sha256
    assert store.save(tmp_path / "again", dict(reversed(MODEL.items())), backwards, dict(reversed(CARD.items()))) == first
    for name in store.FILES:
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert store.save(tmp_path / "other", MODEL, tensors(2.0), CARD) != first


def test_views_and_shared_tensors_are_saved_as_they_are(tmp_path):
    square = torch.arange(9.0).view(3, 3)
    store.save(tmp_path / "model", MODEL, {"a": square.T, "b": square, "c": square[:, 1]}, CARD)
    loaded = store.load(tmp_path / "model").tensors
    assert torch.equal(loaded["a"], square.T) and torch.equal(loaded["b"], square) and torch.equal(loaded["c"], square[:, 1])


def test_a_save_replaces_a_model_and_an_empty_folder_and_nothing_else(saved, tmp_path):
    store.save(saved, MODEL, tensors(2.0), CARD)
    assert value(saved) == 2.0 and beside(saved) == []
    (tmp_path / "empty").mkdir()
    store.save(tmp_path / "empty", MODEL, tensors(), CARD)
    (saved / "notes.txt").write_text("mine")
    with pytest.raises(CannotWrite) as error:
        store.save(saved, MODEL, tensors(3.0), CARD)
    assert (error.value.code, error.value.status) == ("OUT_EXISTS", 73) and "notes.txt" in error.value.message
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CannotWrite, match="file"):
        store.save(tmp_path / "file", MODEL, tensors(), CARD)
    assert (saved / "notes.txt").read_text() == (tmp_path / "file").read_text() == "mine" and value(saved) == 2.0


def test_a_place_that_cannot_be_is_denied(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "model", Path("/proc/model"), tmp_path / ("n" * 300)):
        with pytest.raises(CannotWrite) as error:
            store.save(place, MODEL, tensors(), CARD)
        assert (error.value.code, error.value.status) == ("OUT_DENIED", 73)


def test_a_link_to_a_model_stays_a_link(saved, tmp_path):
    (tmp_path / "link").symlink_to(saved)
    store.save(tmp_path / "link", MODEL, tensors(2.0), CARD)
    assert (tmp_path / "link").is_symlink() and value(saved) == value(tmp_path / "link") == 2.0


@pytest.mark.parametrize(("number", "code", "lasting"), [
    (errno.ENOSPC, "DISK_FULL", False), (errno.ENOSPC, "DISK_FULL", True), (errno.EIO, "IO_ERROR", False)])
def test_whichever_call_fails_the_old_or_the_new_model_loads(tmp_path, monkeypatch, number, code, lasting):
    met = []
    for call in CALLS:
        for nth in range(100):
            folder = tmp_path / f"{call}-{nth}" / "model"
            store.save(folder, MODEL, tensors(1.0), CARD)
            with monkeypatch.context() as patch:
                reached = fail(patch, call, nth, number, lasting)
                try:
                    store.save(folder, MODEL, tensors(2.0), CARD)
                except CannotWrite as error:
                    met.append((call, nth))
                    assert error.code == code
                    assert str(folder) in error.message and error.hint
            assert value(folder) in (1.0, 2.0)
            removable = not lasting or call not in ("open", "unlink", "rmdir")  # else the next save clears up
            assert not (removable and [name for name in beside(folder) if "partial" in name])
            store.save(folder, MODEL, tensors(3.0), CARD)
            assert value(folder) == 3.0 and beside(folder) == []
            if not reached:
                break
    assert {call for call, _ in met} == {"open", "write", "fsync", "rename", "mkdir"}  # what is left over is no one's loss
    assert len(met) >= 20


@pytest.mark.parametrize(("number", "code", "lasting"), [
    (errno.ENOSPC, "DISK_FULL", False), (errno.ENOSPC, "DISK_FULL", True), (errno.EIO, "IO_ERROR", True)])
def test_whichever_call_fails_a_file_rewritten_is_the_old_one_or_the_new(tmp_path, monkeypatch, number, code, lasting):
    met, path = set(), tmp_path / "settings.json"
    for call in CALLS:
        for nth in range(100):
            rewrite(path, b"old")
            with monkeypatch.context() as patch:
                reached = fail(patch, call, nth, number, lasting)
                try:
                    rewrite(path, b"new")
                except CannotWrite as error:
                    met.add(call)
                    assert error.code == code and str(path) in error.message
                    assert path.read_bytes() == b"old" or call in ("open", "fsync")  # of the folder, once the new one is there
                else:
                    assert path.read_bytes() == b"new"
            assert path.read_bytes() in (b"old", b"new") and beside(path) == []
            if not reached:
                break
    assert met == {"open", "write", "fsync", "replace"}


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_file_that_cannot_be_cleared_up_either_is_told_as_what_went_wrong_first(tmp_path, monkeypatch, call):
    rewrite(tmp_path / "settings.json", b"old")
    with monkeypatch.context() as patch:
        fail(patch, call, 0, errno.ENOSPC, True)
        fail(patch, "unlink", 0, errno.EIO, True)
        with pytest.raises(CannotWrite) as error:
            rewrite(tmp_path / "settings.json", b"new")
    assert error.value.code == "DISK_FULL" and (tmp_path / "settings.json").read_bytes() == b"old"


def test_kill_9_at_any_moment_leaves_the_old_or_the_new_model(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLS, tmp_path / "model"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 30
    store.save(tmp_path / "model", MODEL, tensors(), CARD)
    assert beside(tmp_path / "model") == []


def test_a_flipped_bit_anywhere_is_found_and_the_file_named(saved):
    for name in store.FILES:
        good = (saved / name).read_bytes()
        for place in range(0, len(good), 7):
            for bit in (1, 32):
                (saved / name).write_bytes(good[:place] + bytes([good[place] ^ bit]) + good[place + 1:])
                with pytest.raises(CorruptStore) as error:
                    store.load(saved)
                assert error.value.code == "CKPT_CORRUPT" and name in error.value.message and error.value.status == 65
        (saved / name).write_bytes(good[:-1])
        with pytest.raises(CorruptStore, match=name):
            store.load(saved)
        (saved / name).write_bytes(good)
    assert value(saved) == 1.0


def test_a_model_cut_off_between_the_renames_is_found_where_it_lies(saved):
    saved.rename(saved.with_name(".model.previous"))
    assert value(saved) == 1.0
    shutil.copytree(saved.with_name(".model.previous"), saved)
    (saved / "weights.safetensors").unlink()
    assert value(saved) == 1.0


@pytest.mark.parametrize("name", store.FILES)
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(CorruptStore) as error:
        store.load(saved)
    assert (error.value.code, error.value.status) == ("CKPT_MISSING", 66) and name in error.value.message


def test_what_is_no_model_is_told_apart(saved, tmp_path):
    def code(place) -> str:
        with pytest.raises((CorruptStore, Refused)) as error:
            store.load(place)
        return f"{error.value.code} {error.value.status}"
    assert code(tmp_path / "modle") == "CKPT_MISSING 66"
    assert code(saved / "weights.safetensors") == "CKPT_FORMAT 65"
    assert code(tmp_path / "evil.pt") == code("weights.ckpt") == code("weights.pkl") == "PICKLE_REFUSED 77"
    (tmp_path / "pictures").mkdir()
    assert code(tmp_path / "pictures") == "CKPT_FORMAT 65"
    (tmp_path / "pictures" / "provenance.json").write_text("{}")
    assert code(tmp_path / "pictures") == "CKPT_KIND 65"
    for start in (b"\x80\x04\x95", b"PK\x03\x04"):
        (saved / "weights.safetensors").write_bytes(start + b"pickled code")
        assert code(saved) == "CKPT_FORMAT 65"


def test_near_names_are_offered_for_a_model_that_is_not_there(saved):
    with pytest.raises(CorruptStore) as error:
        store.load(saved.with_name("modle"))
    assert "'model'" in error.value.hint


def test_a_newer_format_is_told(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sealed, "FORMAT", sealed.FORMAT + 1)
        store.save(tmp_path / "model", MODEL, tensors(), CARD)
    with pytest.raises(CorruptStore) as error:
        store.load(tmp_path / "model")
    assert error.value.code == "CKPT_VERSION" and "pip install" in error.value.hint


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_tensors_that_are_not_finite_are_neither_saved_nor_loaded(saved, monkeypatch, bad):
    with pytest.raises(CorruptStore) as error:
        store.save(saved, MODEL, tensors(bad), CARD)
    assert error.value.code == "CKPT_NONFINITE" and "mean" in error.value.message
    assert value(saved) == 1.0
    with monkeypatch.context() as patch:
        patch.setattr(store, "check_finite", lambda *_: None)
        store.save(saved, MODEL, tensors(bad), CARD)
    with pytest.raises(CorruptStore, match="mean"):
        store.load(saved)


def test_weights_that_do_not_fit_are_listed(tmp_path):
    expected = {f"layer{i}": torch.zeros(i + 1) for i in range(8)}
    sealed.check_shapes(tmp_path, expected, expected)
    with pytest.raises(CorruptStore) as error:
        sealed.check_shapes(tmp_path, expected, {f"layer{i}": torch.zeros(i + 2) for i in range(8)})
    assert error.value.code == "CKPT_SHAPE"
    assert "'layer4' is float32 (6,), not float32 (5,)" in error.value.message and "and 3 more" in error.value.message
    assert "layer5" not in error.value.message
    with pytest.raises(CorruptStore, match="'layer7' is absent"):
        sealed.check_shapes(tmp_path, expected, {name: t for name, t in expected.items() if name != "layer7"})


def test_a_family_that_is_not_here_is_told(tmp_path):
    store.check_family(tmp_path, "gmm", ["gmm"])
    with pytest.raises(CorruptStore) as error:
        store.check_family(tmp_path, "vae", ["gmm"])
    assert error.value.code == "CKPT_KIND" and "vae" in error.value.message
