"""`verossim utility` as it speaks: words and tables, one JSON document, a report with its provenance."""

import json

import numpy as np
import pytest
from sklearn.datasets import load_wine

import verossim
from verossim.cli.console import Voice
from verossim.cli.utility import utility
from verossim.errors import VerossimError
from verossim.safety import gate

QUICK = {"classifier": "logistic", "repeats": "2"}


@pytest.fixture(scope="module")
def wine(tmp_path_factory):
    """A folder with a model of wine, the records that it learned from, and others."""
    home = tmp_path_factory.mktemp("wine")
    frame = load_wine(as_frame=True).frame.sample(frac=1, random_state=np.random.RandomState(0))
    frame[:100].to_csv(home / "train.csv", index=False)
    frame[100:].to_csv(home / "test.csv", index=False)
    verossim.fit(home / "train.csv", family="gmm", label="target", components=1, covariance="diag").save(home / "model")
    return home


def said(wine, as_json, output=None, **settings):
    with Voice(as_json) as voice:
        paths = (str(wine / name) for name in ("model", "train.csv", "test.csv"))
        document = utility(voice, *paths, output, None, "200", "20", 0, False, {**QUICK, **settings})
        voice.answer(document)
        return document


def test_it_says_the_verdict_and_writes_it(wine, capsys):
    document = said(wine, False, str(wine / "report.json"))
    out = capsys.readouterr().out
    assert document["words"] in out and "augmentation" in out and "made on real" in out
    written = json.loads((wine / "report.json").read_text())
    assert written == json.loads(json.dumps({k: v for k, v in document.items() if k != "output"}))
    assert written["verdict"] == document["verdict"] and written["protocol"]["settings"]["repeats"] == 2
    assert gate.verify(wine / "report.json").whole


def test_as_json_it_is_one_document(wine, capsys):
    said(wine, True)
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] in ("helps", "does not", "cannot tell") and found["labels"] == ["0", "1", "2"]
    assert {gain["real"] for gain in found["gains"]} == {20, 100} and found["protocol"]["made"] == 200


def test_a_taken_place_is_refused_before_anything_is_learned(wine):
    (wine / "mine.json").write_text("{}")
    with pytest.raises(VerossimError) as error:
        said(wine, False, str(wine / "mine.json"))
    assert error.value.code == "OUT_EXISTS" and (wine / "mine.json").read_text() == "{}"
