"""The command line as people and machines use it: what each verb says, writes and refuses, and with which exit status."""

import csv
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import typer
from PIL import Image

from verossim import Model
from verossim.cli import app, main
from verossim.safety import verify

FLAGS = {
    "fit": "--budget --components --config --covariance --device --family --force --held-out --json --label --modality "
           "--output --over --overwrite --precision --restart --samples --seed --set --size --strict --trace --weight -o",
    "sample": "--condition --format --guidance --json --output --overwrite --seed --set --solver --steps --trace --truncation "
              "-n -o",
    "log-prob": "--check --condition --json --method --outliers --output --overwrite --trace -o",
    "predict": "--json --output --overwrite --trace -o",
    "complete": "--json --mask --output --overwrite --seed --trace -o",
    "encode": "--json --output --overwrite --trace -o",
    "decode": "--condition --json --output --overwrite --trace -o",
    "interpolate": "--condition --json --output --overwrite --trace -n -o",
    "mix": "--coarse --condition --fine --json --layer --output --overwrite --seed --trace -o",
    "edit": "--condition --direction --json --output --overwrite --seed --source --strength --trace -n -o",
    "describe": "--json --trace",
    "list": "--json --trace",
}


@pytest.fixture
def say(capsys):
    """Runs a command; returns its exit status, its standard output and its standard error."""
    def run(*words) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err
    return run


@pytest.fixture
def asked(say):
    """The JSON that a command that ends well prints."""
    def run(*words) -> dict:
        status, out, err = say(*words, "--json")
        assert status == 0, err
        return json.loads(out)
    return run


def people(count: int = 300) -> list[list[str]]:
    """Two kinds of people: height and shoe are of the kind, the town is anyone's."""
    rng = np.random.default_rng(5)
    kinds = rng.integers(0, 2, count)
    heights, shoes = 160 + 20 * kinds + rng.normal(0, 4, count), 36 + 7 * kinds + rng.integers(0, 3, count)
    rows = zip(heights, shoes, rng.choice(["=A", "B"], count), np.array(["short", "tall"])[kinds], strict=True)
    return [["height", "shoe", "town", "kind"], *([f"{h:.2f}", str(s), t, k] for h, s, t, k in rows)]


def write(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\r\n").writerows(rows)
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with a table and a folder of pictures, and a model of each."""
    home = tmp_path_factory.mktemp("home")
    write(home / "people.csv", people())
    rng = np.random.default_rng(6)
    for number in range(60):
        level = 60 if number % 2 else 180
        path = home / "pictures" / ("dark" if number % 2 else "bright") / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(rng.normal(level, 12, (4, 6)), 0, 255).astype(np.uint8)).save(path)
    fits = ("people.csv", "table", "--label", "kind"), ("pictures", "images", "--covariance", "diag")
    for source, model, option, value in fits:
        with pytest.raises(SystemExit) as end:
            main(["fit", str(home / source), "-o", str(home / model), "--components", "1", option, value])
        assert not end.value.code
    return home


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
    assert [row["name"] for row in asked("list", "families")["families"]] == ["diffusion", "gan", "gmm", "vae"]
    assert {"image", "label", "table"} <= {row["name"] for row in asked("list", "codecs")["codecs"]}
    assert "metrics" in asked("list", "metrics")
    knobs = {row["name"]: row for row in asked("list", "settings", "gmm")["settings"]["gmm"]}
    assert knobs["components"]["low"] == 1 and "auto" in knobs["components"]["choices"]
    _, out, _ = say("list", "settings")
    assert "components" in out and "background" in out and "iterations" in out
    for words in (["list", "familys"], ["list", "settings", "gm"]):
        status, _, err = say(*words)
        assert status == 64 and "Did you mean" in err


def test_errors_are_two_lines_and_the_trace_is_there_for_the_asking(say, home, tmp_path, monkeypatch):
    status, out, err = say("describe", tmp_path / "modle")
    assert status == 66 and not out and err.startswith("error CKPT_MISSING: ") and len(err.splitlines()) <= 2
    said = json.loads(say("describe", tmp_path / "modle", "--json")[1])["error"]
    assert said == {"code": "CKPT_MISSING", "status": 66, "hint": said["hint"], "message": f"{tmp_path}/modle does not exist."}
    assert "Traceback" in say("describe", tmp_path / "modle", "--trace")[2]
    assert say("describe", home / "nothing.pt")[0] == 77
    monkeypatch.setattr(Model, "load", lambda *_: 1 / 0)
    status, _, err = say("describe", home / "table")
    assert status == 70 and "internal error: ZeroDivisionError" in err and "--trace" in err and "Traceback" not in err
    assert "1 / 0" in say("describe", home / "table", "--trace")[2]


def test_ctrl_c_is_no_traceback(say, home, tmp_path, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(Model, "draw", stopped)
    status, _, err = say("sample", home / "table", "-o", tmp_path / "out.csv")
    assert status == 130 and "error INTERRUPTED" in err and "Traceback" not in err and not list(tmp_path.iterdir())


def test_names_from_outside_move_no_cursor_and_are_no_markup(say, tmp_path):
    for name in ("\x1b[2J\x1b]0;evil\x07", "[red]bold[/red]", "[/]", "a\u202eb", "line\nbreak"):
        status, _, err = say("describe", tmp_path / name)
        assert status == 66 and "\x1b" not in err and "\u202e" not in err and "\x07" not in err
        assert "[" not in name or "\x1b" in name or name in err
        assert len(err.splitlines()) <= 2
    source = write(tmp_path / "t.csv", [["[red]x[/red]", "y\x1b[31m"], *([str(i), str(i % 7)] for i in range(40))])
    status, _, err = say("fit", source, "-o", tmp_path / "m", "--components", "1")
    assert status == 0 and "[red]x[/red]" in err and "\x1b[31m" not in err


def test_other_ranks_are_silent_and_write_nothing(say, home, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    model, people = home / "table", home / "people.csv"
    every = (["sample", model, "-o", tmp_path / "a.csv"], ["log-prob", model, people, "--json"], ["predict", model, people],
             ["sample", model, "-n", "0"], ["complete", model, people, "-o", tmp_path / "b.csv"])
    for words in every:
        assert say(*words) == (0, "", "")
    assert not list(tmp_path.iterdir())


def test_a_reader_that_leaves_is_no_error(home):
    command = [sys.executable, "-m", "verossim", "sample", str(home / "table"), "-n", "20000", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() in (0, 1)


def test_a_column_that_a_spreadsheet_would_run_is_guarded_in_what_is_sampled(say, tmp_path):
    source = write(tmp_path / "t.csv", [['=HYPERLINK("x")', "y"], *([str(i), str(i % 7)] for i in range(40))])
    assert say("fit", source, "-o", tmp_path / "m", "--components", "1")[0] == 0
    status, _, err = say("sample", tmp_path / "m", "-n", "5", "-o", tmp_path / "new.csv")
    assert status == 0 and "CSV_FORMULA: 1 " in err
    assert next(csv.reader((tmp_path / "new.csv").open(encoding="utf-8", newline=""))) == ["'=HYPERLINK(\"x\")", "y"]


def test_masked_pictures_are_opened_by_the_codec_alone(say, asked, home, tmp_path, monkeypatch):
    mask = Image.fromarray(np.tile(np.uint8([0, 0, 0, 0, 255, 255]), (4, 1)))  # of the picture as it is seen
    (tmp_path / "masks").mkdir()
    (tmp_path / "pictures").mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by a quarter
    for name, picture, kind, how in (("good", (4, 6), "PNG", {"exif": turned}), ("icon", (16, 16), "ICO", {})):
        Image.new("L", picture, 60).save(tmp_path / "pictures" / f"{name}.png", kind, **how)
        mask.save(tmp_path / "masks" / f"{name}.png")
    Image.new("L", (6, 4), 60).save(tmp_path / "pictures" / "plain.png")
    mask.save(tmp_path / "masks" / "plain.png", "TGA")
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("opened by any plugin of Pillow"))
    said = asked("complete", home / "images", tmp_path / "pictures", "--mask", tmp_path / "masks", "-o", tmp_path / "out")
    assert (said["records"], said["filled"]) == (2, 8)
    told = {Path(problem["where"]).name: problem["code"] for problem in said["problems"]}
    assert set(told) == {"icon.png", "plain.png"} and told["icon.png"] == "IMG_FORMAT"
    assert (tmp_path / "out" / "plain.png").is_file() and not (tmp_path / "out" / "icon.png").exists()


def test_a_mask_that_claims_too_many_pixels_is_never_decoded(asked, home, tmp_path):
    for folder in ("masks", "pictures"):
        (tmp_path / folder).mkdir()
    Image.new("L", (6, 4), 60).save(tmp_path / "pictures" / "a.png")
    Image.new("1", (9000, 9000)).save(tmp_path / "masks" / "a.png")
    said = asked("complete", home / "images", tmp_path / "pictures", "--mask", tmp_path / "masks", "-o", tmp_path / "out")
    assert [problem["code"] for problem in said["problems"]] == ["IMG_TOO_LARGE"] and said["filled"] == 0


def test_a_table_with_decimal_commas_goes_round(say, asked, tmp_path):
    """What is sampled and completed is written as the table was, and the model reads it, and a table with points too."""
    rng = np.random.default_rng(3)
    rows = [["id", "score", "kind"], *([f"c{n:04d}", f"{v:.3f}".replace(".", ","), "ab"[n % 2]]
                                       for n, v in enumerate(rng.normal(0, 1, 200)))]
    rows[7][1] = ""
    (tmp_path / "eu.csv").write_text("\n".join(";".join(row) for row in rows) + "\n", encoding="utf-8")
    assert say("fit", tmp_path / "eu.csv", "-o", tmp_path / "model", "--components", "1")[0] == 0
    assert say("complete", tmp_path / "model", tmp_path / "eu.csv", "-o", tmp_path / "filled.csv")[0] == 0
    assert say("sample", tmp_path / "model", "-n", "40", "-o", tmp_path / "made.csv")[0] == 0
    filled = [row.split(";")[1] for row in (tmp_path / "filled.csv").read_text().splitlines()[1:]]
    assert all("," in cell and "." not in cell for cell in filled)
    for name, count in (("filled.csv", 200), ("made.csv", 40)):
        assert asked("log-prob", tmp_path / "model", tmp_path / name)["records"] == count
    write(tmp_path / "points.csv", [["score", "kind"], ["0.25", "a"], ["-1.5", "b"]])  # and without the identifier
    assert asked("log-prob", tmp_path / "model", tmp_path / "points.csv")["records"] == 2
    assert say("fit", tmp_path / "filled.csv", "-o", tmp_path / "again", "--components", "1")[0] == 0
    means = [float(Model.load(tmp_path / name).codec.columns[1].std) for name in ("model", "again")]
    assert means[0] == pytest.approx(means[1], rel=0.05)


def test_samples_of_a_parquet_file_of_large_strings(say, tmp_path):
    table = pa.table({"name": pa.array([f"=n{n:03d}" for n in range(60)], pa.large_string()), "v": np.arange(60.0) % 7})
    pq.write_table(table, tmp_path / "t.parquet")
    assert say("fit", tmp_path / "t.parquet", "-o", tmp_path / "model", "--components", "1")[0] == 0
    status, _, err = say("sample", tmp_path / "model", "-n", "5", "-o", tmp_path / "s.csv")
    assert status == 0, err


def test_what_an_overwrite_was_for_is_moved_aside_and_told(say, home, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "holiday.txt").write_text("sun")
    status, _, err = say("sample", home / "images", "-n", "2", "-o", tmp_path / "mine", "--overwrite")
    assert status == 0 and "MOVED_ASIDE" in err and "mine.old" in err
    assert (tmp_path / "mine.old" / "holiday.txt").read_text() == "sun"


@pytest.mark.parametrize(("words", "told"), [
    (["fit", "{home}/people.csv", "-o", "{out}", "--samples", "300"], "vae"),
    (["fit", "{home}/people.csv", "-o", "{out}", "--schedule", "vp"], "for diffusion; family 'gmm'"),
    (["fit", "{home}/people.csv", "-o", "{out}", "--device", "tpu"], "cpu"),
    (["fit", "{home}/people.csv", "-o", "{out}", "--device", "cuda"], "learns on the CPU"),
    (["fit", "{home}/people.csv", "-o", "{out}", "--device", "cuda", "--family", "vae"], "GPU"),
    (["fit", "{home}/people.csv", "-o", "{home}/table", "--family", "vae"], "is no run"),
    (["fit", "{home}/people.csv", "-o", "{home}", "--family", "vae"], "is no run"),
    (["sample", "{home}/table", "-n", "3", "-o", "{out}.xlsx"], ".csv"),
    (["sample", "{home}/table", "-n", "3", "-o", "{out}", "--steps", "4"], "There are none"),
    (["log-prob", "{home}/images", "{home}/people.csv"], "Give pictures"),
    (["log-prob", "{home}/table", "{home}/pictures"], "Give a table"),
])
def test_what_belongs_elsewhere_is_told(say, home, tmp_path, words, told, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    status, _, err = say(*(word.format(home=home, out=tmp_path / "out") for word in words))
    assert status not in (0, 1, 70) and told in err and "Traceback" not in err, (status, err)


def test_a_problem_says_its_place_once(say, home, tmp_path):
    write(tmp_path / "bad.csv", [["height", "shoe", "town", "kind"], ["tall", "40", "B", "short"]])
    status, _, err = say("log-prob", home / "table", tmp_path / "bad.csv")
    assert status != 0 and err.count("record 1") == 1, err


def test_nothing_to_fill_is_said(say, home, tmp_path):
    status, _, err = say("complete", home / "images", home / "pictures", "-o", tmp_path / "out")
    assert status == 0 and "Nothing was unknown" in err
