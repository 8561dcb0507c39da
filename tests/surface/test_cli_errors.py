"""What the command line says when something is wrong, and what it guards people from."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from people import people, write
from PIL import Image

from verossim import Model


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


def test_an_output_that_was_edited_is_not_lost(say, home, tmp_path):
    out = tmp_path / "new.csv"
    sample = "sample", home / "table", "-n", "5", "-o", out
    assert say(*sample)[0] == 0 and say(*sample)[0] == 0  # as it was made it can be made again
    out.write_text(out.read_text() + "99,edited by hand\n")
    status, _, err = say(*sample)
    assert status == 73 and "OUT_EXISTS" in err and "edited by hand" in out.read_text()
    assert say(*sample, "--overwrite")[0] == 0 and "edited by hand" not in out.read_text()
    folder = "sample", home / "images", "-n", "2", "-o", tmp_path / "made"
    assert say(*folder)[0] == 0
    picture = next((tmp_path / "made").rglob("*.png"))
    picture.write_bytes(b"painted over")
    assert say(*folder)[0] == 73 and picture.read_bytes() == b"painted over"


def test_masks_that_are_for_no_picture_are_told(say, home, tmp_path):
    (tmp_path / "masks").mkdir()
    Image.new("L", (6, 4), 255).save(tmp_path / "masks" / "other.png")
    words = "complete", home / "images", home / "pictures", "-o", tmp_path / "out", "--mask", tmp_path / "masks"
    status, _, err = say(*words)
    assert status == 66 and "No mask is named as a picture is; the first one is other." in err
    assert not (tmp_path / "out").exists()


def test_one_record_has_no_error_of_the_mean(asked, home, tmp_path):
    write(tmp_path / "one.csv", people(1))
    assert asked("log-prob", home / "table", tmp_path / "one.csv")["error_of_the_mean"] is None


def test_a_setting_of_words_or_numbers_tells_both(say, home, tmp_path):
    status, _, err = say("fit", home / "people.csv", "-o", tmp_path / "m", "--components", "three")
    assert status == 64 and "a number from 1" in err and "auto" in err
