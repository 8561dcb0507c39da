"""What people ask of an adversarial pair, and what they give it that cannot be learned from."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import verossim
from verossim.cli import main
from verossim.errors import BadData, Incompatible
from verossim.training import read_events

SMALL = ["--family", "gan", "--width", "4", "--latent", "4", "--chains", "2", "--temperatures", "8", "--set", "batch=16"]


def pictures(folder: Path, count: int = 40, size=(8, 8), seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for number in range(count):
        path = folder / ("dark" if number % 2 else "bright") / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(rng.normal(60 if number % 2 else 180, 12, size), 0, 255).astype(np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("gan")
    with pytest.raises(SystemExit) as end:
        main(["fit", str(pictures(home / "pictures")), "-o", str(home / "run"), *SMALL, "--samples", "1600",
              "--held-out", "0.4"])
    assert not end.value.code
    return home


def test_health_is_in_the_journal(home):
    health = [event for event in read_events(home / "run" / "events.jsonl") if event["event"] == "health"]
    assert len(health) == 2  # every fifty steps of a hundred
    assert {"coverage", "diversity", "spread", "overfit", "margin"} <= health[0]["signs"].keys()
    assert "movement" in health[1]["signs"]


def test_truncated_samples_are_more_alike(home):
    model = verossim.Model.load(home / "run")
    whole, none = (np.stack([np.asarray(p, float) for p in model.sample(16, "dark", truncation=t)]) for t in (1.0, 0.0))
    assert none.std(axis=0).max() <= 1 < whole.std(axis=0).max()


@pytest.mark.parametrize("z", [np.zeros((0, 4), np.float32), np.full((2, 4), 1e39), np.zeros((2, 4), int)])
def test_latents_that_are_none_are_refused(say, home, tmp_path, z):
    np.save(tmp_path / "z.npy", z)
    status, _, err = say("decode", home / "run", tmp_path / "z.npy", "-o", tmp_path / "out")
    assert status in (65, 66) and "z.npy" in err and not (tmp_path / "out").exists()


def test_mix_and_edit_write_strips(say, home, tmp_path):
    status, _, err = say("mix", home / "run", "--coarse", 3, "--fine", 8, "-o", tmp_path / "mixed")
    assert status == 0, err
    layers = verossim.Model.load(home / "run").family.layers
    assert len(list((tmp_path / "mixed").glob("0*.png"))) == layers + 1
    assert (tmp_path / "mixed" / "strip.png").exists() and (tmp_path / "mixed" / "provenance.json").exists()
    status, out, err = say("edit", home / "run", "--direction", 1, "--strength", "-3..3", "-n", 2, "-o", tmp_path / "edited",
                           "--json")
    assert status == 0 and json.loads(out)["count"] == 14, err
    status, _, err = say("edit", home / "run", "--direction", 0, "--strength", "-1,1", "--source", home / "pictures" / "dark",
                         "-o", tmp_path / "own")
    assert status == 0 and len(list((tmp_path / "own").glob("0*.png"))) == 40, err
    model, source = verossim.Model.load(home / "run"), home / "pictures"
    still, back = model.moved(0, [0.0], source), model.encode(source)
    labels = torch.cat([y for _, _, y in model._points(source)])
    known = model.codec.decode(model.family.decode(back, labels))
    assert all(np.array_equal(a, b) for a, b in zip(still.columns["image"], known.columns["image"], strict=True))
    with Image.open(tmp_path / "edited" / "strip.png") as strip:
        assert strip.width > 3 * strip.height  # two rows of seven


@pytest.mark.parametrize(("words", "code"), [
    (["mix", "{run}", "--coarse", "-1", "--fine", "2", "-o", "{out}"], "SETTING_RANGE"),
    (["mix", "{run}", "--coarse", "1", "--fine", "2", "--layer", "99", "-o", "{out}"], "SETTING_RANGE"),
    (["edit", "{run}", "--direction", "999", "-o", "{out}"], "SETTING_RANGE"),
    (["edit", "{run}", "--direction", "0", "--strength", "much", "-o", "{out}"], "USAGE"),
    (["sample", "{run}", "--truncation", "-1", "-o", "{out}"], "SETTING_RANGE"),
    (["sample", "{run}", "--steps", "5", "-o", "{out}"], "CONFIG_KEY"),
    (["fit", "{pictures}", "-o", "{out}", "--family", "gan", "--penalty", "-1"], "SETTING_RANGE"),
    (["fit", "{pictures}", "-o", "{out}", "--family", "gan", "--augment", "0.95"], "SETTING_RANGE"),
])
def test_settings_out_of_range_are_refused_and_leave_nothing(say, home, tmp_path, words, code):
    place = {"run": home / "run", "out": tmp_path / "out", "pictures": home / "pictures"}
    status, _, err = say(*(word.format(**place) for word in words))
    assert status == 64 or code == "CONFIG_KEY", err
    assert f"error {code}" in err and not (tmp_path / "out").exists()


def test_pictures_of_another_size_are_cut_to_the_model_and_inverted(say, home, tmp_path):
    pictures(tmp_path / "large", 2, (31, 20))
    status, _, err = say("encode", home / "run", tmp_path / "large", "-o", tmp_path / "z.npy")
    assert status == 0, err
    assert np.load(tmp_path / "z.npy").shape == (2, verossim.Model.load(home / "run").family.layers, 4)
    status, _, err = say("decode", home / "run", tmp_path / "z.npy", "-o", tmp_path / "back")
    assert status == 0 and len(list((tmp_path / "back").glob("0*.png"))) == 2, err


def test_too_little_to_learn_from_is_refused_by_name_unless_forced(tmp_path):
    same = [Image.fromarray(np.full((8, 8), 90, np.uint8))] * 12
    few = [Image.fromarray(np.full((8, 8), 20 * n, np.uint8)) for n in range(3)]
    for given, code in ((same, "DATA_CONSTANT"), (few, "DATA_TOO_FEW")):
        with pytest.raises(BadData) as error:
            verossim.fit(given, family="gan", samples=32)
        assert error.value.code == code and "--force" in error.value.hint
    settings = {"width": 4, "latent": 2, "samples": 32, "batch": 16, "chains": 2, "temperatures": 4}
    model = verossim.fit(same, family="gan", force=True, **settings)
    assert np.asarray(model.sample(1)[0]).shape == (8, 8)
    one = pictures(tmp_path / "one", 20)
    (one / "single").mkdir()
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(one / "single" / "x.png")
    with pytest.raises(BadData) as error:
        verossim.fit(one, family="gan", held_out=0.0, **settings)
    assert error.value.code == "CLASS_TOO_FEW" and "single" in error.value.message


def test_an_estimate_is_checked_on_records_of_the_model(say, home):
    status, out, err = say("log-prob", home / "run", home / "pictures" / "dark", "--check", "--json")
    assert status == 0, err
    told = json.loads(out)
    low, high = told["check"]["lower"], told["check"]["upper"]
    assert told["kind"] == "estimate" and told["check"]["gap"] == pytest.approx(high - low, abs=1e-2)


def test_a_text_space_names_the_family_to_use():
    from verossim.families.gan import GAN
    from verossim.spaces import Discrete
    with pytest.raises(Incompatible, match="family vae"):
        GAN(GAN.Config(), Discrete(shape=(9,), vocabulary=256))


def test_a_table_with_categories_goes_the_whole_way(tmp_path):
    import pandas as pd
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.normal(5, 2, 200), "count": rng.integers(0, 9, 200),
                          "kind": rng.choice(list("abc"), 200)})
    model = verossim.fit(frame, family="gan", width=8, samples=3200, batch=32, chains=2, temperatures=8)
    made = model.sample(50)
    assert list(made.columns) == list(frame.columns) and set(made["kind"]) <= set("abc")
    assert (made["count"] == made["count"].round()).all()
    said = model.log_prob(frame[:4])
    assert said.kind == "estimate" and said.log_prob.isfinite().all() and (said.stderr > 0).all()
    model.save(tmp_path / "model")
    again = verossim.Model.load(tmp_path / "model")
    assert again.sample(50).equals(made)


@pytest.mark.parametrize("strength", ["nan", "-1,0,nan", "inf", "1e30", "-2000..3"])
def test_strengths_that_lead_nowhere_are_refused(say, home, tmp_path, strength):
    status, _, err = say("edit", home / "run", "--direction", 0, "-o", tmp_path / "out", "--strength", strength)
    assert status == 64 and "error SETTING_RANGE: 'strength' is" in err and not list(tmp_path.iterdir())


def test_a_number_of_samples_is_not_for_records(say, home, tmp_path):
    source = pictures(tmp_path / "p", 2)
    status, _, err = say("edit", home / "run", "--direction", 0, "-o", tmp_path / "out", "--source", source, "-n", 3)
    assert status == 64 and "--source" in err and not (tmp_path / "out").exists()
