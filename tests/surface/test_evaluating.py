"""evaluate, compare, audit and tour as people use them: on tables, pictures and texts, on models and on samples."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import verossim
from verossim import data
from verossim.errors import BadData, Incompatible
from verossim.metrics import measure
from verossim.model.reference import Reference
from verossim.spaces import Records
from verossim.uses.tour import tour


def clouds(n: int, seed: int, apart: float = 6.0) -> pa.Table:
    """Records of two classes, a normal cloud each."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    x = rng.normal(size=(n, 3)) + apart * y[:, None]
    return pa.table({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "kind": np.where(y, "high", "low")})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Tables to learn from and to hold against, a good model of them, and one that knows nothing of classes b and c."""
    import pyarrow.csv as csv
    place = tmp_path_factory.mktemp("evaluating")
    for name, seed in (("train", 1), ("test", 2)):
        csv.write_csv(clouds(400, seed), place / f"{name}.csv")
    verossim.fit(str(place / "train.csv"), label="kind", components=1).save(place / "good")
    csv.write_csv(clouds(400, 3, apart=1.0), place / "poor.csv")
    return place


@pytest.fixture(scope="module")
def lines(tmp_path_factory) -> list[str]:
    from verossim.demo import write_data
    place = tmp_path_factory.mktemp("lines")
    write_data(place)
    return [line for line in (place / "book.txt").read_text().splitlines() if len(line) > 20]


def test_a_good_model_is_near_the_floor_and_another_is_not(asked, place):
    good = asked("evaluate", place / "good", place / "test.csv")
    poor = asked("evaluate", place / "poor.csv", place / "test.csv", "--label", "kind")
    value = {name: {m["name"]: m for m in told["measured"]} for name, told in (("good", good), ("poor", poor))}
    assert value["good"]["two_sample"]["p_value"] > 0.001 > value["poor"]["two_sample"]["p_value"]
    assert value["good"]["frechet_infinity"]["value"] < 0.2 < 1 < value["poor"]["frechet_infinity"]["value"]
    assert value["good"]["accuracy"]["value"] > 0.99 and value["good"]["bits"]["unit"] == "exact bits/dim"
    assert "bits" not in value["poor"]  # samples say nothing of how probable records are


def test_bits_are_those_of_log_prob(place):
    model = verossim.Model.load(place / "good")
    report = model.evaluate(str(place / "test.csv"), metrics=())
    assert report["bits"].value == pytest.approx(float(model.log_prob(str(place / "test.csv")).bits.mean()), abs=1e-9)
    assert report["bits"].interval.low < report["bits"].value < report["bits"].interval.high


def test_unusual_records_are_told_by_their_probability(asked, place, tmp_path):
    import pyarrow.csv as csv
    csv.write_csv(clouds(100, 4, apart=20.0), tmp_path / "far.csv")
    told = asked("evaluate", place / "good", place / "test.csv", "--metric", "frechet", "--unusual", tmp_path / "far.csv")
    found = {m["name"]: m for m in told["measured"]}
    assert 0.7 < found["anomaly_auc"]["value"] < 0.8  # all of the class that is elsewhere; of the other what chance gives


def test_probabilities_of_a_model_add_up_to_one(asked, place):
    told = asked("log-prob", place / "good", place / "test.csv", "--check")
    assert told["normalisation"]["verdict"] == "consistent with 1" and told["check"] is None


def test_a_reference_that_was_learned_from_is_told(asked, place):
    names = ("train.csv", "test.csv")
    seen, unseen = (asked("evaluate", place / "good", place / name, "--metric", "frechet") for name in names)
    assert seen["warnings"][0].startswith("SEEN") and not unseen["warnings"]


def test_a_tour_spares_what_is_there(say, place, tmp_path):
    for taken in (place / "good", place / "train.csv"):
        status, _, err = say("tour", place / "train.csv", "-o", taken, "--budget", "5s")
        assert status == 73 and "OUT_EXISTS" in err, err


@pytest.mark.parametrize("asking", [
    ("evaluate", "good", "test.csv", "-o", "no.html"), ("audit", "good", "--train", "train.csv", "-o", "no.html"),
    ("utility", "good", "--train", "train.csv", "--test", "test.csv", "-o", "no.json"), ("tour", "train.csv", "-o", "no")])
def test_where_nothing_can_be_written_is_told_before_anything_is_measured(say, place, tmp_path, asking):
    (tmp_path / "file").touch()
    verb, *words = (str(place / word) if (place / word).exists() else word for word in asking)
    *words, name = words
    status, out, err = say(verb, *words, tmp_path / "file" / name)
    assert status == 73 and "OUT_" in err and "file" in err, err
    assert not out and "..." not in err.split("OUT_")[0]


def test_two_runs_give_the_same_bytes_and_a_page_that_asks_for_nothing(say, place, tmp_path):
    for name in ("one.html", "two.html"):
        status, _, err = say("evaluate", place / "good", place / "test.csv", "-n", "200", "-o", tmp_path / name)
        assert status == 0, err
    page = (tmp_path / "one.html").read_text()
    assert page == (tmp_path / "two.html").read_text() and "frechet" in page
    assert "<script" not in page and 'src="http' not in page and (tmp_path / "one.html.provenance.json").exists()


def test_compare_says_what_is_surely_better(asked, place):
    told = asked("compare", place / "good", place / "poor.csv", "--reference", place / "test.csv", "--label", "kind")
    assert told["surely"]["frechet_infinity"].startswith(str(place / "good"))
    assert [report["about"]["name"] for report in told["reports"]] == [str(place / "good"), str(place / "poor.csv")]


def test_numbers_that_were_not_measured_alike_refuse_to_be_compared():
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=(2, 100, 3))
    one, *_ = measure("frechet", real, made)
    for other, word in ((measure("frechet", real, made[:90]), "made is 100 and 90"),
                        (measure("frechet", made, made), "reference"),
                        (measure("frechet", real, made, features="other"), "features is 'given' and 'other'"),
                        (measure("frechet", real, made, seed=1), "seed is 0 and 1")):
        with pytest.raises(Incompatible, match=word) as error:
            one.better_than(other[0])
        assert error.value.code == "PROTOCOL"
    assert one.better_than(measure("frechet", real, made + 9)[0]) is True


def test_an_audit_finds_a_model_that_gives_back_what_it_learned_from(asked, place, tmp_path):
    calm = asked("audit", place / "good", "--train", place / "train.csv", "--held-out", place / "test.csv")
    assert not calm["flagged"] and calm["copying"]["exact"] == 0
    again = asked("audit", place / "good", "--train", place / "train.csv")  # it held some of them out itself
    assert 16 <= again["held_out"] <= 64 and again["train"] + again["held_out"] == 400
    model = verossim.fit(str(place / "train.csv"), components=180, covariance="spherical", prior=1e-6, starts=1, held_out=0.0)
    model.save(tmp_path / "copier")
    copier = asked("audit", tmp_path / "copier", "--train", place / "train.csv", "--held-out", place / "test.csv",
                   "-o", tmp_path / "audit.html")
    page = (tmp_path / "audit.html").read_text()
    assert copier["flagged"] and all(words in page for words in ("copies", "AUC by log prob", "told by distance", ", real "))


def test_a_model_that_held_nothing_out_needs_other_records_for_its_audit(place):
    model = verossim.fit(str(place / "train.csv"), components=1, held_out=0.0)
    with pytest.raises(BadData) as error:
        model.audit(str(place / "train.csv"))
    assert error.value.code == "AUDIT_HELD_OUT" and "--held-out" in error.value.hint


def test_pictures_of_another_size_and_without_classes_are_measured(tmp_path):
    rng = np.random.default_rng(0)
    def folder(name, side, n=60):
        (tmp_path / name).mkdir()
        for i in range(n):
            level = rng.uniform(60, 190)
            pixels = np.clip(rng.normal(level, 20, (side, side)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i:03d}.png")
        return str(tmp_path / name)
    reference = Reference(folder("real", 8))
    report = reference.judge(folder("made", 12)).report
    assert "principal" in report.about["features"] and report["coverage"].value > 0.5
    dark = reference.judge([Image.new("L", (8, 8), 0)] * 60).report
    assert dark["frechet_infinity"].value > report["frechet_infinity"].value and dark["coverage"].value < 0.1


@pytest.mark.parametrize(("more", "code"), [
    (["-n", "5000"], "METRIC_FEW"), (["-n", "1"], "SETTING_RANGE"), (["--metric", "frechte"], "SHELF_UNKNOWN"),
    (["--metric", "diversity"], "METRIC_SHAPE"), (["--features", "pixels"], "FEATURES_MODALITY"),
    (["--features", "pixles"], "SHELF_UNKNOWN"),
    (["-o", "page.pdf"], "USAGE"), (["--set", "stpes=3"], "CONFIG_KEY")])
def test_what_cannot_be_measured_is_refused_by_name(say, place, more, code, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, _, err = say("evaluate", place / "good", place / "test.csv", *more)
    assert status not in (0, 1) and f"error {code}" in err and "Traceback" not in err, err


def test_one_record_constant_columns_and_other_kinds_of_data_are_told(say, place, tmp_path):
    (tmp_path / "one.csv").write_text("a,b,c,kind\n1,2,3,low\n")
    status, _, err = say("evaluate", place / "good", tmp_path / "one.csv")
    assert status == 0 or ("Traceback" not in err and "error" in err), err
    (tmp_path / "same.csv").write_text("a,b,c,kind\n" + "1,2,3,low\n" * 50)
    status, _, err = say("evaluate", place / "good", tmp_path / "same.csv")
    assert "Traceback" not in err and "INTERNAL" not in err, err
    (tmp_path / "book.txt").write_text("Once upon a time. " * 50)
    status, _, err = say("evaluate", place / "good", tmp_path / "book.txt")
    assert status in (65, 66) and "Traceback" not in err and "INTERNAL" not in err, err


def test_a_tour_learns_what_fits_and_measures_baselines_beside(say, place, tmp_path):
    import pyarrow.csv as csv
    csv.write_csv(clouds(240, 5), tmp_path / "some.csv")
    status, out, err = say("tour", tmp_path / "some.csv", "-o", tmp_path / "tour", "--label", "kind", "--families", "gmm",
                           "--budget", "20s", "--json")
    assert status == 0, err
    told = json.loads(out)
    rows = {row["name"]: row for row in told["rows"]}
    assert list(rows) == ["real records", "copies", "noise", "one Gaussian", "gmm"]
    by = {name: {m["name"]: m["value"] for m in row["measured"]} for name, row in rows.items()}
    assert by["noise"]["frechet_infinity"] > by["real records"]["frechet_infinity"]
    assert rows["copies"]["audit"]["flagged"] and not rows["gmm"]["audit"]["flagged"]
    assert rows["gmm"]["utility"]["value"] > 0.95 and by["gmm"]["bits"] < 3
    assert rows["gmm"]["cost"]["fit_seconds"] > 0 and rows["gmm"]["cost"]["watt_hours"] > 0
    page = (tmp_path / "tour/report.html").read_text()
    assert "one Gaussian" in page and "<script" not in page
    assert verossim.Model.load(tmp_path / "tour/models/gmm").classes == ["high", "low"]


def test_a_tour_of_texts_has_the_families_of_texts_only_and_tells_what_the_budget_is_too_small_for(lines, tmp_path):
    (tmp_path / "texts").mkdir()
    for number, line in enumerate(lines):
        (tmp_path / f"texts/{number}.txt").write_text(line)
    (tmp_path / "texts/provenance.json").write_text("{}")  # of texts that were made here: it is none of them
    found = tour(tmp_path / "texts", folder=tmp_path / "tour", budget=0.5)
    rows = {row.name: row for row in found.rows}
    assert list(rows) == ["real records", "copies", "noise", "autoregressive"]
    assert rows["noise"].report["mauve"].value < rows["real records"].report["mauve"].value
    assert rows["real records"].report["coverage"].value > 0.8 and rows["copies"].audit.copying.exact > 0
    assert rows["real records"].report["frechet_infinity"].value < rows["noise"].report["frechet_infinity"].value
    assert "PLAN_BUDGET" in rows["autoregressive"].failed


def test_a_model_of_texts_is_measured_in_bits_a_byte_and_by_what_it_writes(lines):
    model = verossim.fit(lines, family="autoregressive", samples=1280, context=64, width=32, batch=32)
    report = model.evaluate(lines[:60], metrics=["mauve", "diversity"])
    assert 1 < report["bits"].value < 8 and 0 < report["mauve"].value <= 1 and report["self_bleu"].value < 1


def test_texts_of_a_column_are_measured_and_audited_by_what_their_model_held_out(lines, tmp_path):
    rows = "".join(json.dumps({"said": line, "kind": "ab"[i % 2]}) + "\n" for i, line in enumerate(lines))
    (tmp_path / "lines.jsonl").write_text(rows)
    model = verossim.fit(tmp_path / "lines.jsonl", family="autoregressive", target="said", label="kind", samples=320,
                         context=64, width=32, batch=32, held_out=0.3)
    assert model.evaluate(tmp_path / "lines.jsonl", metrics=(), n=50)["bits"].value > 1
    report = model.audit(tmp_path / "lines.jsonl", n=30)
    assert {attack.by for attack in report.membership} >= {"log_prob"}


def test_a_signal_stops_a_tour_and_the_same_command_goes_on(place, tmp_path):
    words = [sys.executable, "-m", "verossim", "tour", str(place / "train.csv"), "--label", "kind", "--families", "vae",
             "--budget", "16s", "-o", str(tmp_path / "tour"), "--json"]
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})
    journal = tmp_path / "tour/models/vae/events.jsonl"
    while running.poll() is None and not (journal.exists() and '"progress"' in journal.read_text()):
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130 and "same command" in out + err, (out, err)
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    cost = {row["name"]: row["cost"] for row in json.loads(done.stdout)["rows"]}
    again = subprocess.run([*words, "--overwrite"], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    later = {row["name"]: row["cost"] for row in json.loads(again.stdout)["rows"]}
    assert later["vae"]["fit_seconds"] == pytest.approx(cost["vae"]["fit_seconds"], rel=0.3)  # of the run, not of this call


def test_texts_with_classes_in_a_table_are_toured_by_the_name_of_their_column(lines, asked, tmp_path):
    (tmp_path / "said.csv").write_text("said,kind\n" + "".join(f'"{line[:60].replace(chr(34), "")}",{"ab"[i % 2]}\n'
                                                              for i, line in enumerate(lines)))
    found = asked("tour", tmp_path / "said.csv", "--target", "said", "--label", "kind", "--budget", "1s", "-o",
                  tmp_path / "tour")
    rows = {row["name"]: row for row in found["rows"]}
    assert found["about"]["label"] == "kind" and "PLAN_BUDGET" in rows["autoregressive"]["failed"]
    assert next(m["value"] for m in rows["real records"]["measured"] if m["name"] == "coverage") > 0.8


def test_chats_are_no_texts_to_measure_and_it_is_said_what_they_are_scored_by(lines, tmp_path):
    chat = {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day."}]}
    (tmp_path / "chats.jsonl").write_text((json.dumps(chat) + "\n") * 30)
    model = verossim.fit(lines[:40], family="autoregressive", samples=64, context=64, width=32, batch=32)
    with pytest.raises(BadData, match="chats") as refused:
        model.evaluate(tmp_path / "chats.jsonl", metrics=())
    assert refused.value.code == "DATA_EMPTY" and "log-prob" in refused.value.hint


def test_records_of_a_long_source_are_taken_from_all_of_it_and_scored_ones_too():
    table = pa.table({"place": np.arange(50_000.0), "kind": np.arange(50_000) // 25_000})
    for of in (Reference(table, metrics=(), most=1000), Reference(table, metrics=(), n=1000)):
        assert np.histogram(np.asarray(of.records.columns["place"]), 5, (0, 50_000))[0] == pytest.approx([200] * 5, abs=60)
    chosen = data.Chosen(100, seed=3)
    for first in range(0, 5000, 70):
        chosen.add(Records({"row": list(range(first, min(first + 70, 5000)))}))
    assert chosen.records().columns["row"] == data.few(Records({"row": list(range(5000))}), 100, 3).columns["row"]


@pytest.mark.parametrize(("more", "code"), [
    (["--families", "gnn"], "SHELF_UNKNOWN"), (["--families", "autoregressive"], "SPACE"), (["--families", ","], "USAGE"),
    (["--budget", "soon"], "SETTING_RANGE")])
def test_tours_that_cannot_be_are_refused_before_any_work(say, place, tmp_path, more, code):
    status, _, err = say("tour", place / "train.csv", "-o", tmp_path / "tour", *more)
    assert status not in (0, 1) and f"error {code}" in err and "Traceback" not in err, err
    assert not (tmp_path / "tour").exists()


def test_too_few_records_for_a_tour_are_told(say, tmp_path):
    (tmp_path / "few.csv").write_text("a,b\n" + "".join(f"{i},{i * i}\n" for i in range(12)))
    status, _, err = say("tour", tmp_path / "few.csv", "-o", tmp_path / "tour")
    assert status == 65 and "DATA_TOO_FEW" in err, err
