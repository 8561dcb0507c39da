"""Texts of classes: learned from columns or folders, written by class, and told apart by Bayes' rule."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import verossim
from verossim.data import open_source
from verossim.errors import BadConfig, BadData, Incompatible
from verossim.model.texts import opening

SMALL = {"family": "autoregressive", "width": 32, "blocks": 2, "context": 24, "batch": 16, "rate": 0.006}
WORDS = {"good": ("fine", "great", "lovely"), "bad": ("dull", "awful", "poor")}
ROWS = [(f"The {noun} was {word}, and so was the {other}.", label) for label, words in WORDS.items() for word in words
        for noun in ("book", "film", "meal") for other in ("end", "start")]


def written(path, rows=ROWS):
    """The rows as CSV, JSON lines, Parquet, or a folder a class."""
    if path.suffix == ".csv":
        path.write_text("review,stars\n" + "".join(f'"{text}",{label}\n' for text, label in rows))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"review": text, "stars": label}) + "\n" for text, label in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"review": [text for text, _ in rows], "stars": [label for _, label in rows]}), path)
    else:
        for number, (text, label) in enumerate(rows):
            (path / label).mkdir(parents=True, exist_ok=True)
            (path / label / f"{number}.txt").write_text(text)
    return path


def records(path, **asked):
    return [row for block in open_source(path, **asked).blocks() for row in block.rows()]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("labels")
    verossim.fit(written(home / "reviews.csv"), target="review", label="stars", folder=home / "run", samples=4800, held_out=0.0,
                 **SMALL)
    return home


@pytest.fixture(scope="module")
def model(home):
    return verossim.Model.load(home / "run")


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl", "r.parquet", "folder"])
def test_the_label_stands_beside_its_text_whatever_holds_them(tmp_path, name):
    path = written(tmp_path / name)
    asked = {"label": "folder", "modality": "text"} if name == "folder" else {"label": "stars", "target": "review"}
    found = {(row["text"].decode(), row[asked["label"]]) for row in records(path, **asked)}
    assert found == set(ROWS)


def test_a_label_is_read_where_it_is_and_else_missing(tmp_path):
    rows = [{"text": "one", "stars": "a"}, {"text": "two"}, {"text": "three", "stars": ["x"]}]
    source = open_source(rows, label="stars", modality="text")
    assert [row["stars"] for block in source.blocks() for row in block.rows()] == ["a", None]
    assert [problem.code for problem in source.problems] == ["TAB_TYPE"]
    (tmp_path / "t.txt").write_text("no class")
    assert [row.keys() - {"text", "begins", "ends"} for row in records(tmp_path / "t.txt", beside="stars")] == [set()]
    with pytest.raises(BadData, match="stars"):
        open_source(tmp_path / "t.txt", label="stars")
    with pytest.raises(BadConfig, match="another name"):
        open_source([{"text": "one", "ends": 1}], label="ends", modality="text")
    alone = records(written(tmp_path / "r.csv"), label="stars", modality="text")  # the one column beside the label is the text
    assert {row["text"].decode() for row in alone} == {text for text, _ in ROWS}


def test_texts_are_of_their_class(model):
    for label, words in WORDS.items():
        made = model.sample(20, condition=label, seed=3)
        assert sum(any(word in text for word in words) for text in made) >= 18, made
        assert made == model.sample(20, condition={"stars": label}, seed=3)
        assert any(word in model.search(condition=label).text for word in words)
    *_, texts = model.write(40, seed=5)
    assert {text.label for text in texts} == {*WORDS}
    right = [any(word in text.text for word in WORDS[text.label]) for text in texts]
    assert sum(right) >= 36
    *_, later = model.write(3, seed=5, first=7)
    assert [text.text for text in later] == [text.text for text in texts[7:10]]


def test_what_a_condition_does_not_say_is_refused(model):
    with pytest.raises(BadConfig, match="middling"):
        model.sample(1, condition="middling")
    with pytest.raises(BadConfig, match="colour"):
        model.sample(1, condition={"colour": "red"})


def test_classes_are_told_apart_by_bayes_rule_also_in_many_windows(home, model):
    found = model.predict_proba(home / "reviews.csv")
    truth = torch.tensor([model.classes.index(label) for _, label in ROWS])
    assert found.shape == (len(ROWS), 2) and (found.argmax(dim=1) == truth).float().mean() > 0.95
    texts = [text for text, _ in ROWS[:3]] + [" ".join(text for text, _ in ROWS[:6])]
    assert len(texts[-1]) > 5 * model.codec.config.context
    log_p = torch.stack([model.log_prob(texts, condition=label).log_prob for label in model.classes], dim=1)
    by_hand = (log_p + model.label.prior.log()).softmax(dim=1)
    assert torch.allclose(model.predict_proba(texts), by_hand, atol=1e-6)
    assert model.label.prior.tolist() == [0.5, 0.5]


def test_a_report_tells_how_well_classes_are_told_apart(home, model):
    found = model.evaluate(home / "reviews.csv", metrics=())
    assert found["accuracy"].value > 0.95 and found["calibration_error"].value < 0.1
    long = " ".join(text for text, label in ROWS if label == "good")
    assert len(long) > 500
    pieces = model.evaluate([{"review": long, "stars": "good"}, {"review": long[::-1], "stars": "bad"}] * 2, metrics=())
    assert pieces["accuracy"].stamp.real > 4 and "pieces" in pieces["accuracy"].notes[0]
    untold = model.evaluate([text for text, _ in ROWS], metrics=())
    assert "accuracy" not in untold and untold["bits"].value == pytest.approx(found["bits"].value, rel=0.1)


def test_what_is_written_of_a_class_is_as_probable_as_log_prob_says(model):
    for number, label in enumerate(model.classes):
        *_, (text,) = model.write(1, condition=label, seed=4, tokens=20)
        x = torch.cat([opening(model), torch.tensor([*text.text.encode()])])[None]
        said = [float(model.family.log_prob(x, torch.tensor([c])).log_prob) for c in (0, 1)]
        assert text.ended == "length" and text.log_prob == pytest.approx(said[number], abs=1e-4)
        assert abs(said[0] - said[1]) > 1e-3


def test_the_shares_of_classes_are_of_documents_however_long(tmp_path):
    long = "a text " * 9500  # in two stretches, and hundreds of windows
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in
                                              [(long, "x"), ("short", "y"), ("brief", "y"), ("tiny", "y")]))
    model = verossim.fit(tmp_path / "t.jsonl", label="label", held_out=0.0, samples=16, modality="text",
                         **{**SMALL, "context": 512})
    assert model.label.prior.tolist() == [0.25, 0.75]
    assert model.predict_proba(tmp_path / "t.jsonl").shape == (4, 2)
    known = [label for _, _, y in model.classify(tmp_path / "t.jsonl") for label in y.tolist()]
    assert known == [0, 1, 1, 1]


def test_the_command_line_learns_writes_scores_and_predicts_by_class(say, home, tmp_path):
    small = [word for name, value in SMALL.items() for word in (f"--{name}", value)]
    status, _, err = say("fit", written(tmp_path / "folders"), "--modality", "text", "--label", "folder", *small, "--samples",
                         "160", "-o", tmp_path / "run")
    assert status == 0, err
    status, out, err = say("sample", home / "run", "-n", 3, "--condition", "stars=good", "--json")
    assert status == 0 and all(row["label"] == "good" for row in json.loads(out)["records"]), err
    status, out, err = say("predict", home / "run", home / "reviews.csv", "--json")
    assert status == 0 and json.loads(out)["accuracy"] > 0.95 and json.loads(out)["labelled"] == len(ROWS), err
    (tmp_path / "new.csv").write_text("place,review\nhere,The book was lovely.\n")
    status, out, err = say("predict", home / "run", tmp_path / "new.csv", "--json")
    assert status == 0 and json.loads(out)["first"][0]["class"] == "good" and json.loads(out)["accuracy"] is None, err
    scores = [json.loads(say("log-prob", home / "run", tmp_path / "new.csv", "--condition", f"label={label}", "--json")[1])
              for label in WORDS]
    assert scores[0]["mean_log_prob"] > scores[1]["mean_log_prob"] + 1
    for words in (["--condition", "stars=middling"], ["--condition", "colour=red"]):
        assert say("sample", home / "run", *words)[0] == 64


def test_pairs_of_texts_may_have_classes_too(say, tmp_path):
    rows = [{"en": f"the {a}", "pt": f"{a.upper()}{'!' if tone == 'loud' else '.'}", "tone": tone}
            for a in ("fox", "owl", "sea") for tone in ("loud", "calm")] * 10
    model = verossim.fit(rows, condition="en", target="pt", label="tone", samples=3200, held_out=0.0, modality="text", **SMALL)
    said = [model.sample(1, condition={"en": "the owl", "tone": tone}, temperature=0.0)[0] for tone in ("loud", "calm")]
    assert said == ["OWL!", "OWL."]
    assert model.search(condition={"en": "the fox", "tone": "loud"}).text == "FOX!"
    model.save(tmp_path / "model")
    for tone, wanted in (("loud", "OWL!"), ("calm", "OWL.")):
        status, out, err = say("sample", tmp_path / "model", "--condition", "en=the owl", "--condition", f"tone={tone}",
                               "--temperature", "0")
        assert status == 0 and out == f"{wanted}\n", err
    status, _, err = say("sample", tmp_path / "model", "--condition", "tone=loud", "--condition", "label=calm")
    assert status == 64 and "2 times" in err


def test_going_on_keeps_the_classes_of_the_model(home, tmp_path):
    on = {"family": "autoregressive", "start": home / "run", "samples": 32, "batch": 16, "held_out": 0.0}
    model = verossim.fit(written(tmp_path / "r.jsonl"), target="review", label="stars", **on)
    assert model.classes == ["bad", "good"]
    assert verossim.fit(["without a class"] * 3, **on).classes == ["bad", "good"]
    with pytest.raises(BadConfig, match="stars"):
        verossim.fit([{"text": "a", "mood": "b"}], label="mood", modality="text", **on)
    plain = verossim.fit(["some text here"] * 4, samples=16, held_out=0.0, folder=tmp_path / "plain", **SMALL)
    assert plain.label is None
    with pytest.raises(Incompatible, match="without labels"):
        verossim.fit(tmp_path / "r.jsonl", target="review", label="stars", **{**on, "start": tmp_path / "plain"})


def test_a_weight_is_refused_with_the_way_out():
    with pytest.raises(BadConfig, match="weight"):
        verossim.fit([{"text": "a", "weight": 1.0}] * 4, weight="weight", modality="text", **SMALL)
