"""Any text: plays, two Bibles, tunes in ABC, molecules in SMILES, a table cell by cell. Bits a byte of held-out documents.

    python benchmarks/corpora.py                                 # six corpora, 3 minutes each
    python benchmarks/corpora.py --budget 20s --corpora tunes    # a quick look

Each is learned by `verossim.fit --budget` from nine tenths of its documents, which are plays, books, tunes, molecules and rows;
the held-out ones are scored exactly. Beside that stands what xz (preset 9e) makes of them after what was learned: the bytes by
which the packed file grows. Of what is written then, 200 documents: new, the share that does not occur in the corpus; and good:
tunes that have a number, a key and bars of notes; molecules that RDKit (`pip install rdkit`) can read; rows of as many numbers
as the table has columns. Results: benchmarks/results/corpora.jsonl.
"""

import argparse
import io
import lzma
import math
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import verossim
from real import bible, molecules, plays, tunes
from timing import host, write
from verossim.data import open_source, sides

WRITTEN, ALL = 200, 1 << 40
SHARE = 0.1
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 26}]


def table() -> list[str]:
    """The rows of scikit-learn's breast-cancer table, with their class."""
    from sklearn.datasets import load_breast_cancer
    file, data = io.StringIO(), load_breast_cancer()
    np.savetxt(file, np.column_stack([data.data, data.target]), fmt="%.5g", delimiter=",")
    return file.getvalue().splitlines()


def is_tune(text: str) -> bool:
    """Whether it has a number, a key, and bars of notes."""
    return text.startswith("X:") and all(re.search(part, text, re.M) for part in ("^K:", r"^[^:\n]*[A-Ga-g][^\n]*\|"))


def is_molecule(text: str) -> bool:
    """Whether RDKit can read it."""
    from rdkit import Chem, RDLogger
    RDLogger.DisableLog("rdApp.*")
    return bool(text) and Chem.MolFromSmiles(text) is not None


def is_row(text: str) -> bool:
    """Whether it is 31 numbers."""
    cells = text.split(",")
    return len(cells) == 31 and all(re.fullmatch(r"\d+(\.\d+)?(e[+-]\d+)?", cell) for cell in cells)


#: The documents, how a file of them is cut, and what is good of those written.
CORPORA: dict[str, tuple[Callable[[], list[str]], str, Callable[[str], bool] | None]] = {
    "plays": (lambda: [text.decode(errors="replace") for text in plays().values()], "file", None),
    "kjv": (lambda: bible("kjv"), "file", None), "web": (lambda: bible("web"), "file", None),
    "tunes": (tunes, "tune", is_tune), "molecules": (molecules, "line", is_molecule),
    "table": (table, "line", is_row),
}


def packed(data: bytes) -> int:
    """Bytes of it as xz has them."""
    return len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=FILTERS))


def main() -> None:
    """All that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=lambda names: names.split(","), default=list(CORPORA))
    parser.add_argument("--budget", default="3m")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    about = host()
    for name in asked.corpora:
        documents, cut, good = CORPORA[name]
        texts = documents()
        with tempfile.TemporaryDirectory() as place:
            source = Path(place)
            if cut == "file":
                for number, text in enumerate(texts):
                    (source / f"{number:03}.txt").write_text(text, encoding="utf-8", newline="")
            else:
                source = source / "corpus.txt"
                source.write_text("\n".join(texts) + "\n", encoding="utf-8", newline="")
            read = {"modality": "text", "documents": cut}
            began = time.perf_counter()
            model = verossim.fit(source, "autoregressive", budget=asked.budget, held_out=SHARE, seed=asked.seed, documents=cut)
            seconds = time.perf_counter() - began
            seen, unseen = sides(open_source(source, **read), model.codec, SHARE, ALL)
            learned, held = (b"\n".join(side.columns["text"]) for side in (seen, unseen))
            nats = -float(model.log_prob(unseen).log_prob.double().sum())
        size = sum(map(len, unseen.columns["text"]))
        found = {"bits": nats / math.log(2) / size, "xz": 8 * (packed(learned + b"\n" + held) - packed(learned)) / size,
                 "held": len(unseen), "bytes": size}
        if good is not None:
            said = model.sample(WRITTEN, seed=1)
            known = {*map(str.strip, texts)}
            found |= {"new": sum(text.strip() not in known for text in said) / WRITTEN,
                      "good": sum(map(good, map(str.strip, said))) / WRITTEN}
        training = model.card["history"]["training"]
        print(f"{name:10}", " ".join(f"{key} {value:.4g}" for key, value in found.items()), f"{seconds:.0f} s", flush=True)
        write("corpora.jsonl", corpus=name, budget=asked.budget, seed=asked.seed, seconds=seconds, **found,
              width=model.family.config.width, tokens=model.codec.config.tokens, samples=training["samples"],
              parameters=sum(p.numel() for p in model.family.parameters()), **about)


if __name__ == "__main__":
    main()
