"""`make demo`: models of real data that ships with scikit-learn, by the same verbs that a person would use: mixtures of
pictures and tables, and for the pictures a small autoencoder and a small diffusion model beside them.

Writes the data as files, fits each, and leaves in the folder: the models, new pictures and tables, completed pictures, and
report.html with all of it on one page.
"""

import base64
import html
import io
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn import datasets

from . import Model, data, fit
from .safety.gate import contact_sheet, csv_block, png, release, release_file
from .safety.provenance import Provenance

__all__ = ["Learned", "main", "write_data"]

SEED = 7
HEADINGS = ("data", "records", "mixture", "bits/dim", "base", "kind", "accuracy", "base", "s")
SHEETS = {"real.png": "real digits", "made.png": "new digits, ten of each class",
          "completed.png": "digits with their lower half taken away, and filled in again by the mixture",
          "vae.png": "new digits by the autoencoder, ten of each class",
          "diffusion.png": "new digits by the diffusion model, ten of each class"}
#: What learns by gradient, each in about a minute on two cores.
NETWORKS: dict[str, dict[str, Any]] = {"vae": {"width": 32, "levels": 2, "samples": 60_000},
                                       "diffusion": {"width": 32, "samples": 36_000}}
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>verossim: models of real data</title>
<style>:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: auto; padding: 1em }}
table {{ border-collapse: collapse; display: block; overflow-x: auto }}
td, th {{ padding: .3em .7em; border-bottom: 1px solid #8886; text-align: right }}
figure {{ margin: 1em 1em 1em 0; display: inline-block; max-width: 100% }}
img {{ max-width: 100% }}</style>
<h1>Gaussian mixtures of each class, on real data</h1>
<p>Bits per dimension and accuracy are of records held out by a hash of their content; lower is better. The baseline is one
diagonal Gaussian a class. "bound": the pixels are whole levels, so what is given is never below the true number of bits.</p>
<table><tr>{heads}</tr>{rows}</table><h2>Three families on the digits</h2><table>
<tr><th>family</th><th>bits/dim</th><th>kind</th>
<th>s</th></tr>{families}</table>{pictures}<h2>Learning</h2>{curves}</html>"""


@dataclass(frozen=True)
class Learned:
    """One fit of the demonstration, and the baseline beside it."""

    name: str
    model: Model
    baseline: Model
    seconds: float

    def row(self) -> list[str]:
        """What it came to, as text."""
        config, held, base = self.model.family.config, self.model.card["held_out"], self.baseline.card["held_out"]
        return [self.name, str(self.model.card["manifest"]["records"]), f"{config.components} {config.covariance}",
                f"{held['bits']:.3f}", f"{base['bits']:.3f}", held["kind"],
                f"{held['accuracy']:.1%}", f"{base['accuracy']:.1%}", f"{self.seconds:.1f}"]


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


def learn(name: str, source: Path, label: str | None = None, **settings: Any) -> Learned:
    """Fits mixtures of each class, beside the baseline that they should beat: one diagonal Gaussian a class."""
    start = time.perf_counter()
    model = fit(source, family="gmm", label=label, seed=0, **settings)
    seconds = time.perf_counter() - start
    baseline = fit(source, family="gmm", label=label, seed=0, components=1, covariance="diag")
    return Learned(name, model, baseline, seconds)


def masked(pixels: np.ndarray) -> np.ndarray:
    """A grey picture (H, W, 1) with its lower half transparent, (H, W, 2): what `complete` fills in."""
    alpha = np.full_like(pixels, 255)
    alpha[len(pixels) // 2:] = 0
    return np.concatenate([pixels, alpha], axis=2)


def table(learned: list[Learned]) -> Table:
    """What was learned, a line a data set."""
    out = Table(title="Gaussians of each class, on real data", caption="bits per dimension and accuracy on records held out; "
                "lower bits are better; base: one diagonal Gaussian a class", box=None, pad_edge=False, padding=(0, 1, 0, 0),
                header_style="bold")
    for heading in HEADINGS:
        out.add_column(heading, justify="left" if heading in ("data", "mixture", "kind") else "right", no_wrap=True)
    for one in learned:
        out.add_row(*one.row())
    return out


def compared(digits: Learned, networks: dict[str, Model]) -> list[list[str]]:
    """Family, bits per dimension of held-out digits, kind and seconds, a row a family."""
    models = {"gmm": digits.model, **networks}
    return [[name, f"{m.card['held_out']['bits']:.3f}", m.card["held_out"]["kind"],
             f"{digits.seconds if name == 'gmm' else m.card['history']['seconds']:.0f}"] for name, m in models.items()]


def families(rows: list[list[str]]) -> Table:
    """Families beside each other."""
    out = Table(title="Three families on the digits", caption="bits per dimension of digits held out; lower is better")
    for heading in ("family", "bits/dim", "kind", "s"):
        out.add_column(heading, justify="right" if heading in ("bits/dim", "s") else "left")
    for row in rows:
        out.add_row(*row)
    return out


def report(learned: list[Learned], networks: dict[str, Model], folder: Path) -> str:
    """One page with everything, pictures inside."""
    rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in one.row())}</tr>" for one in learned)
    pictures = "".join(f"<figure>{picture(Image.open(folder / name))}<figcaption>{html.escape(said)}</figcaption></figure>"
                       for name, said in SHEETS.items())
    beside = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in compared(learned[0], networks))
    return PAGE.format(heads="".join(f"<th>{h}</th>" for h in HEADINGS), rows=rows, families=beside, pictures=pictures,
                       curves=curve(learned))


def curve(learned: list[Learned]) -> str:
    """The objective of each fit over its sweeps, as one line drawing each."""
    drawings = []
    for one in learned:
        y = np.array(one.model.card["history"]["objectives"])
        span = max(float(np.ptp(y)), 1e-12)
        points = " ".join(f"{300 * i / max(len(y) - 1, 1):.1f},{90 - 80 * (v - y.min()) / span:.1f}" for i, v in enumerate(y))
        drawings.append('<figure><svg viewBox="0 0 300 100" width="300"><polyline fill="none" stroke="currentColor" '
                        f'points="{points}"/></svg>'
                        f"<figcaption>{html.escape(one.name)}: mean log-likelihood plus prior over {len(y)} updates, "
                        f"{y[0]:.2f} to {y[-1]:.2f} nats</figcaption></figure>")
    return "".join(drawings)


def picture(image: Image.Image) -> str:
    """A picture as an HTML element that holds its own bytes."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}">'


def sheets(model: Model, source: Path) -> dict[str, Image.Image]:
    """Contact sheets of real digits, of new ones, and of completed ones, each beside what it was completed from."""
    some = data.joined(list(data.open_source(source).blocks())).take(range(0, 1797, 36))
    pixels = model.codec.parse(some.without("label"), []).columns["image"]
    half = [masked(p) for p in pixels]
    pairs = zip(map(Image.fromarray, half), model.complete(half, seed=SEED), strict=True)
    return {"real.png": contact_sheet([Image.fromarray(p[:, :, 0]) for p in pixels]),
            "made.png": made(model),
            "completed.png": contact_sheet([p for pair in pairs for p in pair])}


def made(model: Model) -> Image.Image:
    """Ten new pictures of each class, a row a class."""
    pictures = [p for label in model.classes for p in data.to_pictures(model.draw(10, condition=label, seed=SEED))]
    return contact_sheet(pictures, [label for label in model.classes for _ in range(10)])


def _origin(model: Model) -> Provenance:
    return Provenance(verb="demo", model=model.sha256, data=model.card["manifest"]["hash"], seed=SEED)


def main(folder: Path = Path("demo")) -> None:
    """Runs the demonstration into `folder`."""
    console = Console()
    started = time.perf_counter()
    inputs = folder / "data"
    write_data(inputs)
    fits = (("digits", inputs / "digits", None, {"components": 4, "covariance": "factors", "rank": 6}),
            ("wine", inputs / "wine.csv", "class", {"components": 1, "covariance": "full"}),
            ("breast cancer", inputs / "breast_cancer.csv", "class", {"components": 2, "covariance": "factors", "rank": 4}))
    learned = []
    for name, source, label, settings in fits:
        console.print(f"fitting {name} ...", style="dim")
        learned.append(learn(name, source, label, **settings))
        learned[-1].model.save(folder / "models" / source.stem)
    digits, wine = learned[0].model, learned[1].model
    networks: dict[str, Model] = {}
    for family, given in NETWORKS.items():
        console.print(f"training a small {family} on the digits ...", style="dim")
        networks[family] = fit(inputs / "digits", family=family, folder=folder / "runs" / family, restart=True, **given)
        if stopped := networks[family].card["history"]["interrupted"]:
            sys.exit(128 + stopped)
    with release(folder / "pictures", _origin(digits), overwrite=True) as out:
        for name, sheet in sheets(digits, inputs / "digits").items():
            out.add(name, png(sheet))
        for family, model in networks.items():
            out.add(f"{family}.png", png(made(model)))
    with release_file(folder / "new_wine.csv", _origin(wine), overwrite=True) as path:
        path.write_bytes(csv_block(data.to_table(wine.draw(178, seed=SEED)), header=True))
    (folder / "report.html").write_text(report(learned, networks, folder / "pictures"), encoding="utf-8")
    console.print(table(learned))
    console.print(families(compared(learned[0], networks)))
    console.print(f"In {time.perf_counter() - started:.0f} s. Look at {folder}/report.html; "
                  "beside it lie models/, runs/, pictures/, new_wine.csv.")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
