"""A run's folder: begun anew without losing what is there before its time, and held by one trainer at a time."""

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import verossim
from verossim.errors import BadConfig, CannotWrite, CorruptStore
from verossim.training import Checkpoints, locked

SETTINGS = {"family": "vae", "width": 8, "depth": 1, "samples": 320, "batch": 32, "device": "cpu"}


def records() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(120, 3))


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A run that has ended."""
    place = tmp_path_factory.mktemp("runs") / "done"
    verossim.fit(records(), folder=place, **SETTINGS)
    return place


@pytest.fixture
def run(done, tmp_path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "run"))


def whole(place: Path) -> dict[str, bytes]:
    """The run's files, but for its journal."""
    return {str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*"))
            if path.is_file() and path.name not in ("events.jsonl", ".lock")}


def code(kind, **settings) -> str:
    with pytest.raises(kind) as error:
        verossim.fit(records(), **{**SETTINGS, **settings})
    return error.value.code


def test_what_cannot_be_begun_leaves_the_run_that_is_there(run):
    before = whole(run)
    assert code(BadConfig, folder=run, restart=True, budget="0.01s", samples="auto") == "PLAN_BUDGET"
    assert whole(run) == before
    model = verossim.fit(records(), folder=run, **SETTINGS)
    assert model.card["history"]["samples"] == 320 and Checkpoints(run / "state").newest().samples == 320


def test_a_run_begun_anew_leaves_nothing_of_the_one_before(run):
    verossim.fit(records(), folder=run, restart=True, **{**SETTINGS, "samples": 64})
    assert sorted(place.name for place in (run / "state").iterdir()) == [f"samples-{n:015d}" for n in (0, 64)]
    assert json.loads((run / "settings.json").read_text())["asked"]["samples"] == 64


def test_checkpoints_that_cannot_be_removed_are_not_gone_on_from_under_other_settings(run, monkeypatch):
    """What could not be cleared keeps its settings, and the run that it belongs to goes on."""
    before, true = whole(run), shutil.rmtree

    def refusing(path, *more, **how):
        if "samples-" in str(path):
            raise OSError(errno.EACCES, "Permission denied")
        true(path, *more, **how)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refusing)
        assert code(CannotWrite, folder=run, restart=True, samples=64) == "OUT_DENIED"
    assert whole(run) == before


def test_checkpoints_without_their_settings_are_not_gone_on_from(run):
    (run / "settings.json").unlink()
    assert code(CorruptStore, folder=run, samples=640) == "CKPT_MISSING"
    model = verossim.fit(records(), folder=run, restart=True, **{**SETTINGS, "samples": 64})
    assert model.card["history"]["samples"] == 64


def test_a_second_trainer_is_refused_and_changes_nothing(run):
    before = whole(run)
    with locked(run):
        assert code(CannotWrite, folder=run) == "RUN_LOCKED"
        assert code(CannotWrite, folder=run, restart=True) == "RUN_LOCKED"
    assert whole(run) == before
    assert verossim.fit(records(), folder=run, **SETTINGS).card["history"]["samples"] == 320
