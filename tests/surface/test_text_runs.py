"""What people ask of a model of texts, and what they give it that cannot be learned from."""

import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import verossim
from verossim.cli import main
from verossim.cli.console import Voice
from verossim.cli.texts import _Shown
from verossim.errors import BadConfig, BadData, Incompatible
from verossim.model.texts import Written, opening

SMALL = ["--family", "autoregressive", "--width", "32", "--blocks", "2", "--context", "32", "--set", "batch=16",
         "--rate", "0.006"]
BOOK = "".join(f"The {noun} saw the {other}.\n" for noun in ("fox", "owl", "bear", "crow", "mole")
               for other in ("moon", "sun", "sea")) * 40


def fitted(home: Path, name: str, *words: object) -> Path:
    """A run in a folder of `home`."""
    with pytest.raises(SystemExit) as end:
        main([*map(str, words), "-o", str(home / name)])
    assert not end.value.code
    return home / name


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("texts")
    (home / "book.txt").write_text(BOOK)
    fitted(home, "run", "fit", home / "book.txt", *SMALL, "--samples", "4800", "--tokens", "bytes")
    pairs = "".join(f"the {a} {b},{b.upper()} {a.upper()}\n" for a in ("red", "old", "big") for b in ("fox", "owl", "sea")) * 10
    (home / "pairs.csv").write_text("en,pt\n" + pairs)
    fitted(home, "pairs", "fit", home / "pairs.csv", *SMALL[2:], "--condition", "en", "--target", "pt", "--samples", "6400",
           "--rate", "0.005", "--held-out", "0")
    chats = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
             for q, a in (("Hello", "Good day!"), ("Bye", "See you."), ("Who are you?", "A fox."))] * 30
    (home / "chats.jsonl").write_text("\n".join(map(json.dumps, chats)))
    return home


@pytest.fixture(scope="module")
def model(home) -> verossim.Model:
    return verossim.Model.load(home / "run")


def test_it_writes_like_the_book_and_the_same_for_the_same_seed(say, home, model):
    status, out, err = say("sample", home / "run", "--prompt", "The fox", "--seed", 7, "--tokens", 30)
    assert status == 0 and out.startswith("The fox"), err
    again, *others = (model.sample(1, prompt="The fox", seed=seed, tokens=30)[0] for seed in range(7, 17))
    assert out == f"The fox{again}\n" and {*others} - {again}
    assert " saw the " in model.sample(1, prompt="The owl", temperature=0.0, tokens=30)[0]


def test_what_is_streamed_joins_to_the_whole_and_a_batch_is_as_one_by_one(model):
    joined = [""] * 5
    for texts in model.write(5, "The ", seed=3, tokens=40):
        joined = [before + text.new for before, text in zip(joined, texts, strict=True)]
    assert joined == [text.text for text in texts] == model.sample(5, prompt="The ", seed=3, tokens=40)
    assert [model.sample(1, prompt="The ", seed=3, first=n, tokens=40)[0] for n in range(5)] == joined
    assert all(text.ended in ("stop", "length") for text in texts)


def test_a_text_ends_before_a_stop_string_even_if_that_comes_in_pieces(model):
    whole = model.sample(1, prompt="The bear", temperature=0.0, tokens=40)[0]
    assert " the " in whole
    *_, (text,) = model.write(1, "The bear", temperature=0.0, tokens=40, stop=[" the ", "never"])
    assert text.text == whole.partition(" the ")[0] and text.ended == "string"
    *_, (text,) = model.write(1, "The bear", temperature=0.0, tokens=10, stop="never")
    assert text.text == whole[:10] and text.ended == "length"


@pytest.mark.parametrize(("name", "read"), [
    ("one.txt", lambda path: [path.read_text()]),
    ("many.jsonl", lambda path: ["The " + json.loads(line)["text"] for line in path.read_text().splitlines()]),
    ("folder", lambda path: [file.read_text() for file in sorted(path.glob("0*.txt"))])])
def test_files_hold_what_was_written_and_are_marked_as_made(say, home, model, tmp_path, name, read):
    n = 1 if name.endswith(".txt") else 3
    status, _, err = say("sample", home / "run", "-n", n, "--prompt", "The ", "--tokens", 20, "-o", tmp_path / name)
    assert status == 0, err
    assert read(tmp_path / name) == ["The " + text for text in model.sample(n, prompt="The ", tokens=20)]
    assert any("provenance" in file.name for file in tmp_path.rglob("*"))


def test_bits_are_for_a_byte_and_a_long_text_is_the_sum_of_its_windows(model):
    scored = model.log_prob([BOOK[:300], "The fox saw"])
    assert scored.kind == "exact" and scored.coordinates.tolist() == [300, 11]
    assert 0 < float(scored.bits[0]) < 1 < 2 < float(model.log_prob(["zqxj kw"]).bits[0])
    block = verossim.data.open_source([BOOK[:300]]).reader.blocks(1, print).__next__()
    x, of = model.codec.cut(model.codec.parse(block, []), False)
    assert len(of) > 10 and math.isclose(float(model.family.log_prob(x).log_prob.sum()), float(scored.log_prob[0]),
                                         rel_tol=1e-9)
    with torch.no_grad():
        whole = model.family.net(model.family.plain(x[:1, :-1]))[0].log_softmax(dim=1)
    tokens = torch.tensor([*BOOK[:32].encode()])
    assert math.isclose(float(whole[torch.arange(32), tokens].sum()), float(model.family.log_prob(x[:1]).log_prob),
                        rel_tol=1e-4)


def test_each_token_has_its_nats(say, home, model, tmp_path):
    (tmp_path / "t.txt").write_text("The owl saw the moon.")
    status, out, _ = say("log-prob", home / "run", tmp_path / "t.txt", "--tokens", "--json")
    row = json.loads(out)["records"][0]
    assert status == 0 and "".join(token["token"] for token in row["tokens"]) == "The owl saw the moon."
    whole = -float(model.log_prob(["The owl saw the moon."]).log_prob)
    assert sum(token["nats"] for token in row["tokens"]) == pytest.approx(whole)
    status, out, _ = say("log-prob", home / "run", tmp_path / "t.txt", "--tokens")
    assert "The owl saw the moon." in out


def test_text_that_spells_a_special_token_stays_text(model):
    x = opening(model, "<|stop|><|assistant|>")
    assert (x < 0).all() and ((~x[1:]) < 256).all() and len(x) == 1 + len("<|stop|><|assistant|>")


def test_a_pair_is_translated_by_sampling_and_by_search(say, home):
    status, out, err = say("translate", home / "pairs", "the old owl", "--json")
    assert status == 0 and json.loads(out)["text"] == "OWL OLD", err
    model = verossim.Model.load(home / "pairs")
    assert model.sample(1, condition="the old owl", temperature=0.0) == ["OWL OLD"]
    found = model.search(condition="the big sea", beam=4)
    given = opening(model, None, "the big sea")
    x = torch.cat([given, torch.tensor([*found.text.encode(), model.codec.space.stop])])[None]
    assert found.log_prob == pytest.approx(float(model.family.log_prob(x).log_prob), abs=1e-4)


def test_a_text_may_be_given_a_record(say, tmp_path):
    rows = [{"name": name, "price": price, "note": None, "said": f"{name.upper()} for {price}!"}
            for name in ("fox", "owl", "sea", "sun") for price in (1, 2.5, 30)] * 8
    (tmp_path / "goods.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run = fitted(tmp_path, "goods", "fit", tmp_path / "goods.jsonl", *SMALL[2:], "--condition", "name, price,note", "--target",
                 "said", "--samples", "9600", "--rate", "0.005", "--held-out", "0", "--context", "64")
    asked = "sample", run, "--temperature", "0"
    for price in ("2.5", "30"):
        status, out, err = say(*asked, "--condition", "name=owl", "--condition", f"price={price}")
        assert status == 0 and out.splitlines()[-1] == f"OWL for {price}!", err
    model = verossim.Model.load(run)
    assert model.search(condition={"price": 1, "name": "sun"}).text == "SUN for 1!"
    assert model.log_prob(tmp_path / "goods.jsonl").log_prob.mean() > -2
    with pytest.raises(BadConfig, match="'cost'"):
        model.sample(1, condition={"name": "owl", "cost": 1})
    status, _, err = say(*asked, "--condition", "nmae=owl")
    assert status == 64 and "'name'" in err
    for condition in (",", "", "said", "name,said"):
        with pytest.raises(BadConfig, match="condition"):
            verossim.fit(tmp_path / "goods.jsonl", condition=condition, target="said")
    status, _, err = say("fit", tmp_path / "goods.jsonl", "--condition", "name,cost", "--target", "said", "-o", tmp_path / "x")
    assert status == 65 and "'cost'" in err


def test_texts_are_shown_one_after_the_other_as_they_are_written(capsys):
    shown, texts = _Shown(Voice(as_json=False), 0, 2, {"prompt": "a", "after": "z"}), [Written(), Written()]
    seen = []
    for first, second, ended in (("b", "1", ""), ("bc", "12", "stop"), ("bc", "123", "")):
        texts[0].text, texts[1].text, texts[0].ended = first, second, ended or texts[0].ended
        shown.go_on(texts)
        seen.append(capsys.readouterr().out)
    shown.go_on(texts, done=True)
    assert [*seen, capsys.readouterr().out] == ["ab", "cz\na12", "3", "z\n"]


def test_a_gap_is_filled_by_what_stands_after_it():
    words = ["fox", "owl", "bear", "crow", "mole", "sea", "sun", "moon"]
    model = verossim.fit([f"{n} {word} is {word.upper()}." for n in range(100) for word in words], family="autoregressive",
                         gaps=0.8, width=32, blocks=2, context=32, samples=12_800, batch=16, rate=0.006, held_out=0)
    filled = [model.sample(1, prompt=f"{n} ", after=f" is {word.upper()}.", temperature=0.0)[0]
              for n, word in enumerate(words, start=20)]
    assert sum(a == b for a, b in zip(filled, words, strict=True)) >= 6  # by chance one


def test_what_stands_after_a_gap_stands_in_the_files_too(say, tmp_path):
    (tmp_path / "book.txt").write_text(BOOK)
    run = fitted(tmp_path, "gaps", "fit", tmp_path / "book.txt", *SMALL, "--gaps", "0.5", "--samples", "160")
    asked = "sample", run, "--prompt", "The fox", "--after", "moon", "--tokens", "8"
    for output in ("one.txt", "folder", "rows.jsonl"):
        status, _, err = say(*asked, "-o", tmp_path / output)
        assert status == 0, err
    (folder,) = (path for path in (tmp_path / "folder").iterdir() if path.suffix == ".txt")
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    wanted = row["prompt"] + row["text"] + row["after"]
    assert wanted.startswith("The fox") and wanted.endswith("moon")
    assert (tmp_path / "one.txt").read_text() == folder.read_text() == wanted


@pytest.mark.parametrize(("words", "status", "said"), [
    (["sample", "--regex", ""], 78, "empty"), (["sample", "--regex", "(fox"], 78, "unclosed"),
    (["translate", "--set", "tokens=1k"], 0, ""), (["translate", "--set", "tokens=many"], 78, "tokens"),
    (["sample", "--schema", "\ufeff[" + "1" * 300], 78, "rule"), (["sample", "--schema", "x" * 300], 66, "no JSON schema")])
def test_clumsy_words_give_no_traceback(say, home, words, status, said):
    verb, *rest = words
    given = ["translate", home / "pairs", "the old owl"] if verb == "translate" else ["sample", home / "run"]
    found, _, err = say(*given, *rest)
    assert found == status and said in err, err


def test_a_chat_in_another_encoding_or_none_is_no_traceback(say, home, tmp_path, monkeypatch):
    fitted(tmp_path, "chat", "fit", home / "chats.jsonl", *SMALL, "--samples", "160", "--held-out", "0")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf-8"))
    status, _, err = say("chat", tmp_path / "chat")
    assert status == 65 and "0xe9" in err
    monkeypatch.setattr("sys.stdin", None)
    assert say("chat", tmp_path / "chat")[0] == 0
    status, _, err = say("chat", home / "run")  # before a word is written
    assert status == 65 and "no chats" in err


def test_the_side_that_is_written_is_no_condition(say, home):
    status, _, err = say("sample", home / "pairs", "--condition", "pt=OWL OLD")
    assert status == 64 and "'pt'" in err and "en=" in err


def test_output_that_cannot_be_written_is_said(home):
    command = f"{sys.executable} -m verossim sample {home / 'run'} --tokens 4 > /dev/full"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert ended.returncode == 74 and "error IO_ERROR" in ended.stderr and ended.stderr.count("Error") == 0, ended.stderr


def test_a_model_learns_to_chat_from_where_another_stands(say, home, tmp_path, monkeypatch):
    status, _, err = say("fit", home / "chats.jsonl", "--family", "autoregressive", "--from", home / "run", "--samples", "3200",
                         "--set", "batch=16", "--rate", "0.006", "--held-out", "0", "-o", tmp_path / "chat")
    assert status == 0, err
    model = verossim.Model.load(tmp_path / "chat")
    assert model.card["start"]["sha256"] == verossim.Model.load(home / "run").sha256
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\n\nWho are you?\n"))
    status, out, err = say("chat", tmp_path / "chat", "--set", "temperature=0")
    assert status == 0 and out.splitlines() == ["Good day!", "A fox."], err
    status, _, err = say("fit", home / "chats.jsonl", "--family", "autoregressive", "--from", home / "run", "--width", "64",
                         "-o", tmp_path / "other")
    assert status == 78 and "SETTING_FIXED" in err


def test_what_is_written_by_a_rule_always_matches_and_its_probability_is_of_what_that_allows(model):
    written = []
    for first in range(0, 1000, 250):
        *_, texts = model.write(250, "The ", regex="(fox|owls?) [0-9]{2}", first=first)
        written += texts
    assert all(re.fullmatch("(fox|owls?) [0-9]{2}", text.text) and text.ended == "stop" for text in written)
    assert len({text.text for text in written}) > 100
    *_, texts = model.write(200, "The ", regex="fox|owl")
    words = {text.text: math.exp(text.log_prob) for text in texts}
    assert sum(words.values()) == pytest.approx(1, abs=1e-4) and len(words) == 2


def test_a_schema_is_kept_to(model):
    age = {"type": "integer", "minimum": 0, "maximum": 99}
    schema = {"type": "object", "properties": {"name": {"enum": ["fox", "owl"]}, "age": age},
              "required": ["name", "age"], "additionalProperties": False}
    for first in range(0, 1000, 250):
        *_, texts = model.write(250, schema=json.dumps(schema), first=first, tokens=100)
        for found in (json.loads(text.text) for text in texts):
            assert found.keys() == {"name", "age"} and found["name"] in ("fox", "owl") and 0 <= found["age"] <= 99
    for rule in ({"regex": "("}, {"schema": "[1"}):
        with pytest.raises(BadConfig, match="rule"):
            next(model.write(1, **rule))


def test_a_gap_is_opened_by_what_stands_on_both_sides_of_it(say, tmp_path, model):
    (tmp_path / "book.txt").write_text(BOOK)
    run = fitted(tmp_path, "gaps", "fit", tmp_path / "book.txt", *SMALL, "--gaps", "0.5", "--samples", "160")
    gaps = verossim.Model.load(run)
    special, x = gaps.codec.special, ~opening(gaps, "The fox", after="moon")
    tokens = [special["start"], special["before"], *b"The fox", special["after"], *b"moon", special["middle"]]
    assert x.tolist() == tokens
    status, out, err = say("sample", run, "--prompt", "The fox", "--after", "moon", "--tokens", "8")
    assert status == 0 and out.splitlines()[-1].endswith("moon") and "The fox" in out, err
    with pytest.raises(Incompatible, match="gaps"):
        opening(model, "The fox", after="moon")


def test_what_a_model_did_not_learn_is_refused_with_the_way_out(say, home, model):
    with pytest.raises(Incompatible, match="no chats"):
        opening(model, [{"role": "user", "content": "Hello"}])
    for words in (["translate", home / "run", "the fox"], ["sample", home / "run", "--condition", "label=3"]):
        status, _, err = say(*words)
        assert status == 65 and "--target" in err
    status, _, err = say("complete", home / "run", home / "book.txt", "-o", home / "none")
    assert status == 65 and "--after" in err
    with pytest.raises(BadConfig, match="one of them"):
        next(model.write(1, regex="a", schema="{}"))


@pytest.mark.parametrize(("words", "said"), [
    (["--temperature", "-1"], "temperature"), (["--top-p", "0"], "top_p"), (["--stop", ""], "stop string"),
    (["-n", "0"], "-n is 0"), (["-o", "x.png"], "Name it")])
def test_clumsy_settings_are_named(say, home, words, said):
    status, _, err = say("sample", home / "run", *words)
    assert status not in (0, 70) and said in err


def test_a_prompt_longer_than_the_context_goes_on_from_its_end(model):
    long, short = (model.sample(1, prompt=BOOK[:length] + "The fox saw", temperature=0.0, tokens=8)[0] for length in (600, 0))
    assert " the " in long and " the " in short
    assert len(model.sample(1, prompt=BOOK[:600], seed=2)[0]) > 8  # also where nothing is said of how many tokens
    ragged = model.sample(2, prompt="T", seed=5, tokens=90)[1]
    assert ragged == model.sample(1, prompt="T", seed=5, first=1, tokens=90)[0]


def test_a_long_document_is_scored_as_one_and_two_writers_do_not_disturb_each_other(model):
    long = (BOOK * 8)[:70_000]
    scored = model.log_prob([long, "The fox"])
    assert scored.coordinates.tolist() == [70_000, 7] and len(scored.log_prob) == 2
    first, second = model.write(1, "The ", seed=1, tokens=6), model.write(1, "The ", seed=2, tokens=6)
    for _ in range(6):
        next(first), next(second)
        assert not torch.is_inference_mode_enabled()


def test_the_same_columns_read_the_other_way_are_other_data(tmp_path):
    (tmp_path / "p.csv").write_text("en,pt\n" + "open,abra\nshut,feche\n" * 8)
    said = {"family": "autoregressive", "samples": 16, "batch": 8, "width": 16, "context": 24, "held_out": 0}
    verossim.fit(tmp_path / "p.csv", condition="en", target="pt", folder=tmp_path / "run", **said)
    model = verossim.fit(tmp_path / "p.csv", condition="pt", target="en", folder=tmp_path / "run", restart=True, **said)
    assert model.log_prob(tmp_path / "p.csv").coordinates[:2].tolist() == [4, 4]  # "open" and "shut" are what is predicted


@pytest.mark.parametrize("texts", [[], [""], ["\ud800"]])
def test_nothing_to_learn_from_is_said(texts):
    with pytest.raises(BadData):
        verossim.fit(texts, family="autoregressive", samples=32)


def test_other_families_say_which_learns_text(home):
    for family in ("gmm", "gan", "diffusion", "vae"):
        with pytest.raises(Incompatible, match="autoregressive"):
            verossim.fit(home / "book.txt", family=family, modality="text")
    with pytest.raises(BadConfig, match="guidance"):
        verossim.Model.load(home / "pairs").sample(1, condition="the fox", guidance=2)
    with pytest.raises(BadConfig, match="'label'"):
        verossim.Model.load(home / "pairs").sample(1, condition={"label": 3})
