"""The command line as tests call it."""

import json
from pathlib import Path

import numpy as np
import pytest
from people import people, write
from PIL import Image

from verossim.cli import main


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
