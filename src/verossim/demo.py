"""`make demo`: the tour of every family over the digits that ship with scikit-learn, by the command that a person would use.

Writes the data as files, then runs `verossim tour`: one table on the terminal, and in the folder report.html, the models, and
the runs of those that learn by gradient.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn import datasets

from .cli import main as verossim

__all__ = ["main", "write_data"]

BUDGET = "120s"


def write_data(folder: Path) -> None:
    """digits/ (1,797 pictures of 8 x 8, a folder a class), wine.csv and breast_cancer.csv, as files under `folder`; and
    book.txt, what scikit-learn says of its data, some 25 kB of English."""
    sets = (datasets.load_iris, datasets.load_wine, datasets.load_digits, datasets.load_breast_cancer, datasets.load_diabetes,
            datasets.load_linnerud)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "book.txt").write_text("\n\n".join(load().DESCR for load in sets), encoding="utf-8")
    digits = datasets.load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / "digits" / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.minimum(pixels * 16, 255).astype(np.uint8)).save(path)
    for name, bunch in (("wine", datasets.load_wine()), ("breast_cancer", datasets.load_breast_cancer())):
        header = ",".join([*(str(f).replace(" ", "_").replace("/", "_per_") for f in bunch.feature_names), "class"])
        rows = [",".join([*map(repr, map(float, row)), str(bunch.target_names[t])])
                for row, t in zip(bunch.data, bunch.target, strict=True)]
        (folder / f"{name}.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def main(folder: str | Path = "demo", budget: str = BUDGET) -> None:
    """Runs the demonstration into `folder`."""
    folder = Path(folder)
    write_data(folder / "data")
    verossim(["tour", str(folder / "data" / "digits"), "-o", str(folder / "tour"), "--budget", budget, "--restart",
              "--overwrite"])


if __name__ == "__main__":
    main(*sys.argv[1:3])
