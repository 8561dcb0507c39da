"""The command line as people and machines use it: what each verb says, writes and refuses, and with which exit status."""

import csv
import json
import resource
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from people import people, write
from PIL import Image

from verossim import Model
from verossim.cli import app
from verossim.cli.console import Voice
from verossim.pages.report import COLUMNS
from verossim.safety import verify

FLAGS = {
    "fit": "--budget --components --condition --config --covariance --device --documents --family --force --from --held-out "
           "--json --label --modality --output --over --overwrite --precision --restart --samples --seed --set --size "
           "--strict --target --trace --weight -o",
    "sample": "--after --condition --format --guidance --json --output --overwrite --prompt --regex --schema --seed --set "
              "--solver --steps --stop --temperature --tokens --top-k --top-p --trace --truncation -n -o",
    "log-prob": "--check --condition --json --method --outliers --output --overwrite --tokens --trace -o",
    "predict": "--json --output --overwrite --trace -o",
    "complete": "--json --mask --output --overwrite --seed --trace -o",
    "encode": "--json --output --overwrite --trace -o",
    "decode": "--condition --json --output --overwrite --trace -o",
    "interpolate": "--condition --json --output --overwrite --trace -n -o",
    "mix": "--coarse --condition --fine --json --layer --output --overwrite --seed --trace -o",
    "edit": "--condition --direction --json --output --overwrite --seed --source --strength --trace -n -o",
    "chat": "--json --seed --set --system --trace",
    "translate": "--beam --json --seed --set --trace",
    "import": "--json --output --trace -o",
    "export": "--base --format --json --output --trace -o",
    "evaluate": "--features --json --label --metric --output --overwrite --seed --set --trace --unusual -n -o",
    "compare": "--features --json --label --metric --reference --seed --trace -n",
    "audit": "--held-out --json --output --overwrite --seed --trace --train -n -o",
    "tour": "--budget --families --json --label --output --overwrite --restart --seed --target --trace -o",
    "utility": "--json --label --made --output --overwrite --seed --set --sizes --test --trace --train -o",
    "describe": "--json --trace",
    "list": "--json --trace",
}


def test_help_and_import_load_nothing_heavy_and_are_quick():
    script = ("import sys; from verossim.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
              "heavy = {'torch', 'numpy', 'pyarrow', 'PIL', 'pandas'} & set(sys.modules); assert not heavy, heavy")
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0 and "log-prob" in done.stdout, done.stderr
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.3


def test_the_flags_are_those_that_were_promised():
    commands = typer.main.get_command(app).commands
    options = {name: [o for p in command.params for o in p.opts if o.startswith("-")] for name, command in commands.items()}
    assert {name: " ".join(sorted(flags)) for name, flags in options.items()} == FLAGS


def test_a_wide_table_tears_no_word(capsys):
    row = ["one Gaussian", "5.16 ±0.084 estimate", "-10.6 ±35", "93.9 ±3.6 %", "100 ±0.51 %", "95.3 ±2.3 %", "93.3 ±7.2 %",
           "4.74 ±4.1 %", "0.302 MB", "29.5 s", "0.0360 s", "0.00506 Wh"]
    with Voice(False) as voice:
        voice.table("", ["", *(column.name for column in COLUMNS)], [row])
    words = capsys.readouterr().out.split()
    assert {word for column in COLUMNS for word in column.name.split()} | set(" ".join(row).split()) == set(words)


def test_every_verb_has_help(say):
    assert all("--json" in say(verb, "--help")[1] for verb in FLAGS)
    assert "verossim list settings" in " ".join(say("fit", "--help")[1].split())


def test_fit_says_what_it_took_the_data_for_and_what_it_learned(say, home, tmp_path):
    rows = people()
    for row in range(5, 17):
        rows[row] = [*rows[row], "one cell too many"]
    source = write(tmp_path / "people.csv", rows)
    status, out, err = say("fit", source, "-o", tmp_path / "model", "--label", "kind", "--components", "1")
    assert status == 0
    assert "height" in err and "real" in err and "town" in err and "category" in err
    assert err.count("TAB_RAGGED") == 10 and "and 2 more" in err
    assert "288 records" in err and "held-out bits per dimension" in out and "held-out accuracy" in out
    assert Model.load(tmp_path / "model").card["seed"] == 0
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_fit_as_json_is_one_document(asked, home, tmp_path):
    said = asked("fit", home / "people.csv", "-o", tmp_path / "model", "--label", "kind", "--components", "2", "--seed", "4")
    assert said["settings"]["components"] == 2 and said["seed"] == 4 and said["family"] == "gmm"
    assert said["held_out"]["kind"] in ("exact", "bound") and said["manifest"]["records"] == 300
    assert asked("describe", tmp_path / "model")["sha256"] == said["sha256"]
    again = asked("fit", home / "people.csv", "-o", tmp_path / "model", "--components", "1", "--overwrite")
    assert again["settings"]["components"] == 1 and again["sha256"] != said["sha256"]


def test_the_place_for_the_model_is_tried_before_any_work(say, home, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for place, code in ((home / "table", "OUT_EXISTS"), (tmp_path / "mine", "OUT_EXISTS"), (home / "people.csv", "OUT_EXISTS"),
                        (home / "people.csv" / "model", "OUT_DENIED"), ("/proc/model", "OUT_DENIED")):
        status, _, err = say("fit", "no such data", "-o", place)
        assert status == 73 and err.startswith(f"error {code}: ")
    assert say("fit", "no such data", "-o", home / "table", "--overwrite")[0] == 66
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine" and Model.load(home / "table")


def test_every_setting_is_an_option(asked, home, tmp_path):
    said = asked("fit", "--components", "2", "--iterations", "1", "--categories=7", home / "people.csv", "--set", "jitter=0.5",
                 "--label", "kind", "-o", tmp_path / "model")
    assert said["settings"]["components"] == 2 and said["settings"]["jitter"] == 0.5
    assert said["history"]["sweeps"] == 1
    stored = json.loads((tmp_path / "model" / "model.json").read_bytes())
    assert stored["codec"]["config"]["categories"] == 7


@pytest.mark.parametrize(("words", "status", "code", "near"), [
    (["--compnents", "3"], 64, "USAGE", "'--components'"),
    (["--overwrte"], 64, "USAGE", "'--overwrite'"),
    (["--iterations"], 64, "USAGE", "needs a value"),
    (["--set", "compnents=3"], 78, "CONFIG_KEY", "'components'"),
    (["--set", "components"], 64, "USAGE", "NAME=VALUE"),
    (["--components", "-3"], 64, "SETTING_RANGE", "1 to 100000"),
    (["--covariance", "round"], 64, "SETTING_RANGE", "spherical"),
    (["--covariance", "dig"], 64, "SETTING_RANGE", "'diag'"),
    (["--seed", "-1"], 64, "SEED_RANGE", "2^63"),
    (["--seed", "x"], 64, "USAGE", "integer"),
    (["--held-out", "1"], 64, "SETTING_RANGE", "held_out"),
    (["--family", "gm"], 64, "SHELF_UNKNOWN", "'gmm'"),
    (["--label", "kin"], 65, "COLUMN_UNKNOWN", "'kind'"),
    (["--size", "32"], 78, "CONFIG_KEY", "size"),
])
def test_what_cannot_be_asked_is_told_with_the_way_out(say, home, tmp_path, words, status, code, near):
    ended, out, err = say("fit", home / "people.csv", "-o", tmp_path / "model", *words)
    assert ended == status and f"error {code}: " in err and near in err
    assert "Traceback" not in err + out and not list(tmp_path.iterdir())


def test_a_file_of_options_is_read_and_the_command_line_wins(say, asked, home, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text(f"source = '{home}/people.csv'\noutput = '{tmp_path}/model'\nseed = 9\n[settings]\ncomponents = 2\n")
    said = asked("fit", "--config", config, "--components", "1", "--label", "kind")
    assert (said["seed"], said["settings"]["components"], said["model"]) == (9, 1, f"{tmp_path}/model")
    assert asked("fit", "--config", config, "--seed", "0", "--overwrite")["seed"] == 0
    for text, code in (("sed = 9\n", "CONFIG_KEY"), ("seed = \n", "CONFIG_SYNTAX"), ("[setings]\nseed = 1\n", "CONFIG_KEY")):
        config.write_text(text)
        status, _, err = say("fit", home / "people.csv", "-o", tmp_path / "other", "--config", config)
        assert status == 78 and f"error {code}: " in err and not (tmp_path / "other").exists()


def test_samples_of_a_table(say, asked, home, tmp_path):
    out = tmp_path / "new.csv"
    assert say("sample", home / "table", "-n", "50", "-o", out, "--seed", "3")[0] == 0
    first = out.read_bytes()
    rows = list(csv.DictReader(first.decode().splitlines()))
    assert len(rows) == 50 and list(rows[0]) == ["height", "shoe", "town", "kind"]
    assert {r["kind"] for r in rows} == {"short", "tall"}
    assert {r["town"] for r in rows} == {"'=A", "B"}
    assert all((float(r["height"]) > 170) == (r["kind"] == "tall") for r in rows)
    assert say("sample", home / "table", "-n", "50", "-o", out, "--seed", "3")[0] == 0 and out.read_bytes() == first
    assert verify(out).whole
    made = json.loads((tmp_path / "new.csv.provenance.json").read_bytes())
    assert made["model"] == asked("describe", home / "table")["sha256"] and made["seed"] == 3 and made["settings"] == {"n": 50}
    assert made["data"] == asked("describe", home / "table")["manifest"]["hash"]


def test_a_spreadsheet_runs_nothing_that_was_sampled(say, home, tmp_path):
    _, _, err = say("sample", home / "table", "-n", "50", "-o", tmp_path / "new.csv")
    assert "CSV_FORMULA" in err
    _, _, err = say("sample", home / "table", "-n", "50", "-o", tmp_path / "new.parquet")
    assert "CSV_FORMULA" not in err
    assert "=A" in pq.read_table(tmp_path / "new.parquet")["town"].to_pylist()


def test_samples_go_where_they_are_told(say, asked, home, tmp_path):
    said = asked("sample", home / "table", "-n", "9", "-o", tmp_path / "out", "--format", "parquet", "--condition", "kind=tall")
    assert said["count"] == 9
    table = pq.read_table(tmp_path / "out" / "samples.parquet")
    assert set(table["kind"].to_pylist()) == {"tall"} and verify(tmp_path / "out").good == 1
    _, out, err = say("sample", home / "table", "-n", "45")
    assert "height" in out and "5 more" in err
    records = asked("sample", home / "table", "-n", "45")["records"]
    assert len(records) == 45 and set(records[0]) == {"height", "shoe", "town", "kind"}
    (tmp_path / "mine.csv").write_text("mine")
    status, _, err = say("sample", home / "table", "-o", tmp_path / "mine.csv")
    assert status == 73 and "OUT_EXISTS" in err and (tmp_path / "mine.csv").read_text() == "mine"


def test_sample_seven_is_sample_seven_in_any_block(asked, home, monkeypatch):
    whole = asked("sample", home / "table", "-n", "20")["records"]
    monkeypatch.setattr("verossim.cli.making.BLOCK", {"table": 7})
    assert asked("sample", home / "table", "-n", "20")["records"] == whole
    assert asked("sample", home / "table", "-n", "8")["records"] == whole[:8]


@pytest.mark.parametrize(("words", "status", "code"), [
    (["-n", "0"], 64, "SETTING_RANGE"), (["-n", "three"], 64, "USAGE"), (["--seed", "-1"], 64, "SEED_RANGE"),
    (["--condition", "kind=tal"], 64, "LABEL_UNKNOWN"), (["--condition", "tall"], 64, "USAGE"),
    (["--condition", "town=B"], 64, "USAGE"), (["--format", "xls"], 64, "USAGE"), (["--foo"], 64, "USAGE"),
])
def test_samples_that_cannot_be_asked_for(say, home, tmp_path, words, status, code):
    ended, out, err = say("sample", home / "table", "-o", tmp_path / "out.csv", *words)
    assert ended == status and f"error {code}: " in err and "Traceback" not in err
    assert not list(tmp_path.iterdir()) and not out


def test_samples_of_pictures(say, home, tmp_path):
    out = tmp_path / "out"
    assert say("sample", home / "images", "-n", "20", "-o", out)[0] == 0
    pictures = sorted(out.glob("*/*.png"))
    assert len(pictures) == 20 and {p.parent.name for p in pictures} == {"dark", "bright"}
    for path in pictures:
        picture = Image.open(path)
        assert picture.size == (6, 4) and picture.text["made-by"].startswith("verossim")
        assert (np.asarray(picture).mean() < 120) == (path.parent.name == "dark")
    assert Image.open(out / "sheet.png").width > 6 and verify(out).good == 21
    assert say("sample", home / "images", "-n", "3", "-o", out, "--condition", "label=dark")[0] == 0
    assert {p.parent.name for p in out.glob("*/*.png")} == {"dark"} and verify(out).whole
    status, _, err = say("sample", home / "images", "-n", "3")
    assert status == 64 and "-o FOLDER" in err


def test_scores_are_those_of_the_model_and_outliers_come_first(say, asked, home, tmp_path):
    rows = people()
    rows[41][0] = "400"
    source = write(tmp_path / "people.csv", rows)
    out = tmp_path / "scores.csv"
    said = asked("log-prob", home / "table", source, "-o", out, "--outliers", "3")
    expected = Model.load(home / "table").log_prob(str(source))
    scores = list(csv.DictReader(out.open(encoding="utf-8", newline="")))
    assert np.allclose([float(s["log_prob"]) for s in scores], expected.log_prob.numpy(), rtol=1e-12)
    assert np.allclose([float(s["bits"]) for s in scores], expected.bits.numpy(), rtol=1e-12)
    assert said["kind"] == expected.kind == scores[0]["kind"] and said["records"] == 300
    assert said["mean_log_prob"] == pytest.approx(float(expected.log_prob.mean()))
    assert said["outliers"][0]["record"].endswith("record 41") and len(said["outliers"]) == 3
    assert [o["log_prob"] for o in said["outliers"]] == sorted(expected.log_prob.tolist())[:3]
    _, shown, _ = say("log-prob", home / "table", source)
    assert "record 41" in shown and said["kind"] in shown


def test_predictions(say, asked, home, tmp_path):
    said = asked("predict", home / "table", home / "people.csv", "-o", tmp_path / "p.csv")
    assert said["accuracy"] > 0.95 and sum(map(sum, said["confusion"])) == 300
    rows = list(csv.DictReader((tmp_path / "p.csv").open(encoding="utf-8", newline="")))
    p = Model.load(home / "table").predict_proba(str(home / "people.csv"))
    assert np.allclose([float(r["P(tall)"]) for r in rows], p[:, 1].numpy(), atol=1e-12)
    assert [r["class"] for r in rows] == [["short", "tall"][c] for c in p.argmax(1).tolist()]
    unlabelled = write(tmp_path / "unlabelled.csv", [row[:3] for row in people()])
    assert asked("predict", home / "table", unlabelled)["accuracy"] is None
    _, out, _ = say("predict", home / "images", home / "pictures")
    assert "accuracy: 1.0000 of 60" in out and "Confusion" in out
    assert say("fit", unlabelled, "-o", tmp_path / "m", "--components", "1")[0] == 0
    status, _, err = say("predict", tmp_path / "m", unlabelled)
    assert status == 65 and "NOT_CONDITIONAL" in err


def test_completing_a_table_changes_the_missing_cells_and_no_other_byte(say, asked, home, tmp_path):
    rows = people()
    rows[3][0], rows[7][1], rows[9][2], rows[9][0] = "", "NA", "", ""
    rows[12][0], rows[20][2] = "unreadable", '=HYPERLINK("x")'
    source = write(tmp_path / "gaps.csv", rows)
    said = asked("complete", home / "table", source, "-o", tmp_path / "full.csv")
    assert (said["filled"], said["records"]) == (4, 300) and said["left"] >= 1
    before, after = source.read_bytes().split(b"\r\n"), (tmp_path / "full.csv").read_bytes().split(b"\r\n")
    assert [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b] == [3, 7, 9]
    full = list(csv.reader((tmp_path / "full.csv").open(encoding="utf-8", newline="")))
    for row in (3, 7, 9):
        known = [i for i, cell in enumerate(rows[row]) if cell not in ("", "NA")]
        assert [full[row][i] for i in known] == [rows[row][i] for i in known]
        assert (float(full[row][0]) > 170) == (rows[row][3] == "tall") and full[row][2] in ("'=A", "=A", "B")
    again = asked("complete", home / "table", source, "-o", tmp_path / "drawn.csv", "--seed", "1")
    assert again["how"] == "draws" and (tmp_path / "drawn.csv").read_bytes() != (tmp_path / "full.csv").read_bytes()
    assert verify(tmp_path / "full.csv").whole


def test_completing_pictures_keeps_the_pixels_that_are_known(say, asked, home, tmp_path):
    mask = np.zeros((4, 6), np.uint8)
    mask[:, 4:] = 255
    (tmp_path / "masks" / "dark").mkdir(parents=True)
    Image.fromarray(mask).save(tmp_path / "masks" / "dark" / "001.png")
    said = asked("complete", home / "images", home / "pictures", "--mask", tmp_path / "masks", "-o", tmp_path / "out")
    assert said["records"] == 60 and said["filled"] == 8
    for path in sorted((home / "pictures").glob("*/*.png")):
        old, new = (np.asarray(Image.open(p)) for p in (path, tmp_path / "out" / path.relative_to(home / "pictures")))
        assert np.array_equal(old[:, :4], new[:, :4])
        assert np.array_equal(old, new) == (path.name != "001.png")
    filled = np.asarray(Image.open(tmp_path / "out" / "dark" / "001.png"))[:, 4:]
    assert abs(filled.astype(float).mean() - 60) < 20
    for words in (["complete", home / "table", home / "people.csv", "-o", tmp_path / "x.csv", "--mask", tmp_path / "masks"],
                  ["complete", home / "images", home / "pictures", "-o", tmp_path / "x.csv"],
                  ["complete", home / "table", home / "people.csv", "-o", tmp_path / "x"]):
        assert say(*words)[0] == 64 and not list(tmp_path.glob("x*"))


def test_describe(say, asked, home):
    said = asked("describe", home / "table")
    assert said["family"] == "gmm" and said["classes"] == ["short", "tall"] and said["manifest"]["records"] == 300
    assert [column["column"] for column in said["columns"]] == ["height", "shoe", "town"]
    _, out, _ = say("describe", home / "images")
    assert "Continuous (1, 4, 6)" in out and "bright, dark" in out and said["held_out"]["kind"] in out


def test_lists(say, asked):
    assert [row["name"] for row in asked("list", "families")["families"]] == [
        "autoregressive", "diffusion", "gan", "gmm", "vae"]
    assert {"image", "label", "table"} <= {row["name"] for row in asked("list", "codecs")["codecs"]}
    assert "metrics" in asked("list", "metrics")
    knobs = {row["name"]: row for row in asked("list", "settings", "gmm")["settings"]["gmm"]}
    assert knobs["components"]["low"] == 1 and "auto" in knobs["components"]["choices"]
    _, out, _ = say("list", "settings")
    assert "components" in out and "background" in out and "iterations" in out
    for words in (["list", "familys"], ["list", "settings", "gm"]):
        status, _, err = say(*words)
        assert status == 64 and "Did you mean" in err
