"""Runs by gradient as people use them: begun, stopped, gone on with, changed, damaged; and what such models are asked."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from verossim import Model
from verossim.cli import main

FAMILIES = {"vae": ["--width", "4", "--latent", "2", "--draws", "4"], "diffusion": ["--width", "8", "--depth", "1"],
            "gan": ["--width", "4", "--latent", "4", "--chains", "2", "--temperatures", "8"]}


def begin(family: str, home: Path, place: Path, *more: str) -> list[str]:
    return ["fit", str(home / "pictures"), "-o", str(place), "--family", family, *FAMILIES[family], "--samples", "640",
            "--set", "batch=32", *more]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Bright and dark pictures in two folders, and a run of each family."""
    home = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(6)
    for number in range(80):
        path = home / "pictures" / ("dark" if number % 2 else "bright") / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(rng.normal(60 if number % 2 else 180, 12, (6, 5)), 0, 255).astype(np.uint8)).save(path)
    for family in FAMILIES:
        with pytest.raises(SystemExit) as end:
            main(begin(family, home, home / family))
        assert not end.value.code
    return home


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


def test_a_run_says_what_it_will_cost_and_leaves_everything_in_its_folder(say, home, family, tmp_path):
    status, _, err = say(*begin(family, home, tmp_path / "run"))
    assert status == 0, err
    events = [json.loads(line) for line in (tmp_path / "run/events.jsonl").read_text().splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds.index("forecast") < kinds.index("progress")
    forecast = events[kinds.index("forecast")]
    parameters = sum(p.numel() for p in Model.load(tmp_path / "run").family.networks.parameters())
    assert forecast["parameters"] == parameters and forecast["seconds"] > 0 and forecast["memory"] > 0
    last = [event for event in events if event["event"] == "progress"][-1]
    assert last["samples"] == last["total"] == 640 and last["memory"] > 2**20
    assert last["bits"] is None if family == "gan" else last["bits"] > 0
    assert {"model", "state", "previews", "data", "settings.json"} <= {entry.name for entry in (tmp_path / "run").iterdir()}
    with Image.open(next((tmp_path / "run/previews").glob("*.png"))) as sheet:
        assert sheet.size[0] > 5 * 5
    with pytest.raises(SystemExit):
        main(["fit", str(home / "pictures"), "-o", str(tmp_path / "run"), "--family", family])


def test_a_run_that_was_stopped_goes_on_by_the_same_command(home, tmp_path):
    words = [sys.executable, "-m", "verossim", *begin("vae", home, tmp_path / "cut")]
    words[words.index("640")] = "8000"
    journal, seen = tmp_path / "cut/events.jsonl", 0
    for number, status, event in ((signal.SIGTERM, 143, '"saved"'), (signal.SIGINT, 130, '"resumed"')):
        running = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        while running.poll() is None and not (journal.exists() and event in journal.read_text()):
            time.sleep(0.01)
        running.send_signal(number)
        _, err = running.communicate(timeout=60)
        assert running.returncode == status and "same command" in err and "Traceback" not in err
        assert seen < (seen := Model.load(tmp_path / "cut").card["history"]["samples"]) < 8_000
    for place in ("cut", "whole"):
        words[words.index("-o") + 1] = str(tmp_path / place)
        assert subprocess.run(words, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode == 0
    cut, whole = (Model.load(tmp_path / place) for place in ("cut", "whole"))
    for a, b in zip(cut.family.parameters(), whole.family.parameters(), strict=True):
        assert bool((a == b).all())


def test_other_settings_and_other_data_are_refused_with_the_difference(say, home, family, tmp_path):
    shutil.copytree(home / family, tmp_path / "run")
    status, _, err = say(*begin(family, home, tmp_path / "run", "--rate", "0.01"))
    assert status == 78 and "RUN_CHANGED" in err and "'rate'" in err and "0.01" in err and "--restart" in err
    status, _, err = say(*begin(family, home, tmp_path / "run", "--held-out", "0.3"))
    assert status == 78 and "'held_out' was 0.1 and is 0.3" in err
    status, _, err = say(*begin("diffusion" if family == "vae" else "vae", home, tmp_path / "run"))
    assert status == 78 and f"'family' was '{family}'" in err
    shutil.copytree(home / "pictures", tmp_path / "more")
    Image.new("L", (5, 6), 99).save(tmp_path / "more/dark/new.png")
    words = begin(family, home, tmp_path / "run")
    words[1] = str(tmp_path / "more")
    status, _, err = say(*words)
    assert status == 78 and "the data has changed" in err
    status, _, err = say(*begin(family, home, tmp_path / "run", "--rate", "0.01", "--restart"))
    assert status == 0, err
    assert Model.load(tmp_path / "run").card["history"]["training"]["rate"] == 0.01


def checkpoint(run: Path) -> Path:
    return max((run / "state").glob("samples-*"))


def test_damaged_foreign_and_newer_checkpoints_are_told(say, home, tmp_path):
    def again(change) -> tuple[int, str]:
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.copytree(home / "vae", tmp_path / "run")
        for place in (tmp_path / "run/state").glob("samples-*"):
            change(place)
        status, _, err = say(*begin("vae", home, tmp_path / "run"))
        assert "Traceback" not in err
        return status, err

    def flipped(place: Path) -> None:
        content = bytearray((place / "tensors.safetensors").read_bytes())
        content[-5] ^= 16
        (place / "tensors.safetensors").write_bytes(content)

    def pickled(place: Path) -> None:
        (place / "tensors.safetensors").write_bytes(pickle.dumps({"w": 1}))

    def newer(place: Path) -> None:
        from verossim.sealed import sha256, to_json
        manifest = json.loads((place / "manifest.json").read_text())
        del manifest["sha256"]
        manifest["format"] = 99
        (place / "manifest.json").write_bytes(to_json({**manifest, "sha256": sha256(to_json(manifest))}))

    def of_another_family(place: Path) -> None:
        shutil.rmtree(place)
        shutil.copytree(checkpoint(home / "diffusion"), place)
    for change, code, word in ((flipped, "CKPT_CORRUPT", "tensors.safetensors"), (pickled, "CKPT_FORMAT", "pickle"),
                               (newer, "CKPT_VERSION", "99"), (of_another_family, "CKPT_SHAPE", "another network")):
        status, err = again(change)
        assert status != 0 and code in err and word in err, (code, status, err)


def test_a_weights_file_that_is_a_pickle_is_no_data_and_no_model(say, home, tmp_path):
    import torch
    torch.save({"w": torch.zeros(2)}, tmp_path / "weights.pt")
    for words in (["sample", tmp_path / "weights.pt", "-n", "2", "-o", tmp_path / "out"],
                  ["fit", tmp_path / "weights.pt", "-o", tmp_path / "run", "--family", "vae"]):
        status, _, err = say(*words)
        assert status not in (0, 1) and "Traceback" not in err and "weights.pt" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("more", "code", "word"), [
    (["--samples", "0"], "SETTING_RANGE", "samples"), (["--set", "batch=0"], "SETTING_RANGE", "batch"),
    (["--budget", "soon"], "SETTING_RANGE", "budget"), (["--budget", "0.01s"], "PLAN_BUDGET", "budget"),
    (["--precision", "fp8"], "SETTING_RANGE", "precision"), (["--width", "100000"], "SETTING_RANGE", "width"),
    (["--rate", "-1"], "SETTING_RANGE", "rate"), (["--components", "auto"], "CONFIG_TYPE", "components"),
    (["--covariance", "full"], "CONFIG_KEY", "covariance")])
def test_settings_that_cannot_be_are_refused_before_any_work(say, home, tmp_path, more, code, word):
    status, _, err = say(*begin("vae", home, tmp_path / "run"), *more)
    assert status in (64, 78) and word in err and "Traceback" not in err, (status, err)
    assert code in err or "USAGE" in err, err
    assert not (tmp_path / "run/model").exists()


def test_a_network_that_does_not_fit_into_memory_is_refused_by_the_setting_to_change(say, home, tmp_path, monkeypatch):
    from verossim.training import forecast
    monkeypatch.setattr(forecast, "memory", lambda: 30_000)
    status, _, err = say(*begin("vae", home, tmp_path / "run"))
    assert status == 78 and "PLAN_MEMORY" in err and "'width'" in err


def test_samples_are_of_their_class_with_and_without_guidance(say, home, tmp_path):
    run = tmp_path / "run"
    words = begin("diffusion", home, run)
    words[words.index("640")] = "25600"
    assert say(*words)[0] == 0
    def brightness(name: str, *more: str) -> np.ndarray:
        words = ["-n", "32", "-o", tmp_path / name, "--seed", "3", "--steps", "6", "--condition", f"label={name.split('-')[0]}"]
        status, _, err = say("sample", run, *words, *more)
        assert status == 0, err
        return np.array([np.asarray(Image.open(path)).mean() for path in (tmp_path / name).rglob("0*.png")])
    for solver in ("heun", "euler", "dpm", "ancestral"):
        plain = brightness(f"dark-{solver}", "--solver", solver), brightness(f"bright-{solver}", "--solver", solver)
        assert abs(plain[0].mean() - 60) < 12 and abs(plain[1].mean() - 180) < 12  # the means of the data
    guided = brightness("dark-guided", "--guidance", "2"), brightness("bright-guided", "--guidance", "2")
    assert (guided[0] < 120).mean() > 0.9 and (guided[1] > 120).mean() > 0.9
    assert not np.array_equal(guided[0], brightness("dark-again"))
    for words, word in ((["--condition", "label=drak"], "dark"), (["--solver", "hein"], "heun"), (["--steps", "0"], "steps"),
                        (["--guidance", "-1"], "guidance")):
        status, _, err = say("sample", run, "-n", "2", "-o", tmp_path / "none", *words)
        assert status not in (0, 1) and word in err and "Traceback" not in err
    assert not (tmp_path / "none").exists()


def test_samples_are_guided_in_an_interval_and_away_from_a_worse_model(say, home, tmp_path):
    run = home / "diffusion"
    status, _, err = say(*begin("diffusion", home, tmp_path / "worse", "--samples", "64"))
    assert status == 0, err
    def made(name: str, *words: str) -> bytes:
        status, _, err = say("sample", run, "-n", "6", "-o", tmp_path / name, "--guidance", "3", "--condition", "label=dark",
                             "--steps", "6", *words)
        assert status == 0, err
        return (tmp_path / name / "sheet.png").read_bytes()
    guided, worse = made("guided"), made("worst", "--set", f"worse={tmp_path / 'worse'}")
    narrow = made("narrow", "--set", "interval=0.2,30")
    assert guided != worse and narrow not in (guided, worse)
    assert made("nowhere", "--set", "interval=90,100") == made("plain", "--guidance", "1")
    model = Model.load(run)
    again = model.sample(6, {"label": "dark"}, guidance=3, steps=6, interval=(0.2, 30))
    first = sorted(path for path in (tmp_path / "narrow").rglob("0*.png"))[0]
    assert np.array_equal(np.asarray(again[0]), np.asarray(Image.open(first)))
    for words, word in ((["interval=5,0.2"], "comes first"), (["interval=5"], "2 numbers"), (["interval=a,b"], "2 numbers"),
                        (["interval=-1,2"], "interval"), ([f"worse={tmp_path / 'none'}"], "does not exist"),
                        ([f"worse={home / 'vae'}"], "none of diffusion")):
        status, _, err = say("sample", run, "-n", "2", "-o", tmp_path / "none", "--guidance", "2", "--set", *words)
        assert status not in (0, 1, 70) and word in err and "Traceback" not in err


@pytest.mark.parametrize(("family", "method", "kind"), [("vae", "elbo", "bound"), ("vae", "iwae", "bound"),
                                                        ("vae", "ais", "estimate"), ("diffusion", "bound", "bound")])
def test_scores_say_their_kind_and_error(say, home, tmp_path, family, method, kind):
    source = tmp_path / "few"
    (source / "dark").mkdir(parents=True)
    for path in sorted((home / "pictures/dark").iterdir())[:3]:
        shutil.copy(path, source / "dark")
    status, out, err = say("log-prob", home / family, source, "--method", method, "--json")
    assert status == 0, err
    told = json.loads(out)
    assert told["kind"] == kind and told["of_which_by_the_estimate"] > 0 and told["mean_bits_per_dimension"] > 0
    status, _, err = say("log-prob", home / family, source, "--method", "exact")
    assert status not in (0, 1) and method in err


def test_latents_there_and_back(say, home, family, tmp_path):
    source = home / "pictures/dark"
    status, _, err = say("encode", home / family, source, "-o", tmp_path / "z.npy")
    assert status == 0, err
    assert len(np.load(tmp_path / "z.npy")) == 40
    status, _, err = say("decode", home / family, tmp_path / "z.npy", "-o", tmp_path / "back")
    assert status == 0, err
    assert len(list((tmp_path / "back").glob("0*.png"))) == 40
    status, _, err = say("interpolate", home / family, source, "-n", "5", "-o", tmp_path / "strip")
    assert status == 0 and (tmp_path / "strip/strip.png").exists(), err
    np.save(tmp_path / "z.npy", np.zeros((2, 9), np.float32))
    status, _, err = say("decode", home / family, tmp_path / "z.npy", "-o", tmp_path / "wrong")
    assert status == 65 and "LATENT_SHAPE" in err and not (tmp_path / "wrong").exists()


def test_a_run_in_the_middle_of_learning_is_a_model(say, home, tmp_path):
    shutil.copytree(home / "vae", tmp_path / "run")
    shutil.rmtree(tmp_path / "run/state")
    status, _, err = say("sample", tmp_path / "run", "-n", "2", "-o", tmp_path / "out")
    assert status == 0, err


# ---- a model over an autoencoder -----------------------------------------------------------------------------------------


def over(home: Path, place: Path, base: Path, *more: str) -> list[str]:
    return [*begin("diffusion", home, place), "--over", str(base), *more]


@pytest.fixture(scope="module")
def latent_run(home) -> Path:
    with pytest.raises(SystemExit) as end:
        main(over(home, home / "over", home / "vae"))
    assert not end.value.code
    return home / "over"


def test_diffusion_over_an_autoencoder_is_a_model_of_pictures(say, home, latent_run, tmp_path):
    model = Model.load(latent_run)
    assert model.family.space.shape == (2, 3, 3) and model.family.config.network == "unet"
    assert model.describe()["over"]["sha256"] == Model.load(home / "vae").sha256 and model.card["held_out"] is None
    assert list((latent_run / "previews").glob("*.png"))
    status, _, err = say("sample", latent_run, "-n", "6", "-o", tmp_path / "made", "--condition", "label=dark", "--steps", "4")
    assert status == 0, err
    made = sorted((tmp_path / "made").rglob("0*.png"))
    assert len(made) == 6 and Image.open(made[0]).size == (5, 6)
    for words in (["encode", home / "pictures/dark", "-o", tmp_path / "z.npy"],
                  ["decode", tmp_path / "z.npy", "-o", tmp_path / "back"],
                  ["interpolate", home / "pictures/dark", "-n", "3", "-o", tmp_path / "strip"]):
        status, _, err = say(words[0], latent_run, *words[1:])
        assert status == 0, err
    assert np.load(tmp_path / "z.npy").shape == (40, 2, 3, 3) and len(list((tmp_path / "back").glob("0*.png"))) == 40
    status, out, _ = say("describe", latent_run)
    assert status == 0 and "learned over" in out and "6 x 5 pixels" in out
    status, _, err = say("log-prob", latent_run, home / "pictures", "--method", "bound", "-o", tmp_path / "scores.csv")
    assert status == 64 and "LATENT_DENSITY" in err and not (tmp_path / "scores.csv").exists()


def test_a_model_over_another_needs_nothing_but_its_own_folder(home, latent_run, tmp_path):
    shutil.copytree(latent_run / "model", tmp_path / "alone")
    first, second = (np.stack([np.asarray(p) for p in Model.load(place).sample(4, steps=3)]) for place in
                     (latent_run, tmp_path / "alone"))
    assert np.array_equal(first, second)


def test_what_cannot_be_learned_over_is_refused_and_a_changed_base_is_seen(say, home, latent_run, tmp_path):
    status, _, err = say(*over(home, tmp_path / "none", home / "diffusion"))
    assert status == 65 and "AUTOENCODER" in err and "family vae" in err
    status, _, err = say(*over(home, tmp_path / "none", home / "vae", "--size", "8"))
    assert status == 78 and "'size'" in err
    status, _, err = say(*over(home, tmp_path / "none", tmp_path / "nowhere"))
    assert status == 66 and "does not exist" in err and not (tmp_path / "none").exists()
    (tmp_path / "table.csv").write_text("a,b\n1,2\n3,4\n")
    status, _, err = say("fit", tmp_path / "table.csv", "-o", tmp_path / "none", "--family", "diffusion",
                         "--over", home / "vae")
    assert status == 65 and "modality" in err
    shutil.copytree(latent_run, tmp_path / "run")
    status, _, err = say(*begin("vae", home, tmp_path / "other", "--seed", "5"))
    assert status == 0, err
    status, _, err = say(*over(home, tmp_path / "run", tmp_path / "other"))
    assert status == 78 and "RUN_CHANGED" in err and "'over'" in err
    status, _, err = say(*over(home, tmp_path / "run", home / "vae"))
    assert status == 0, err


def test_mixtures_learn_latents_too(home):
    from verossim import fit
    model = fit(home / "pictures", family="gmm", components=1, covariance="diag", over=home / "vae")
    pictures = model.sample(3, {"label": "dark"})
    assert pictures[0].size == (5, 6) and model.card["held_out"] is None
    assert model.predict_proba(home / "pictures").shape == (80, 2)
