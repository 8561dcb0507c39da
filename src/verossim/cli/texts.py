"""Texts on the command line: written as they come, answers in a chat, translations, and how probable each token is."""

import codecs
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.text import Text as Line

from ..config import build
from ..data import given_columns
from ..data.paths import read_regular
from ..errors import BadConfig, BadData, near, printable
from ..model import Model
from ..model.exchanging import export, imported
from ..model.texts import Written, opening, weighed
from ..safety import release, release_file
from ..seeds import check_seed
from .console import Voice, first_rank
from .records import class_of, provenance, tell_aside

__all__ = ["chat", "give_out", "heat", "sample", "take_in", "translate"]

AT_ONCE = 16  # texts written together
LARGEST = 1 << 24  # bytes of a schema
SUFFIXES = {".txt", ".jsonl"}
COLOURS = ("#2e7d32", "#689f38", "#c0a000", "#e07020", "#c62828")  # of tokens, from what was sure to what surprised
BITS = (1.0, 3.0, 6.0, 10.0)  # between two colours


def sample(voice: Voice, path: str, model: Model, n: int, output: str | None, conditions: list[str], seed: int,
           overwrite: bool, settings: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """Writes n texts: to the terminal as they come, or into a folder of .txt files, one .txt, or JSON lines. asked: prompt,
    stop and what else `Model.write` takes; the schema may be a file."""
    check_seed(seed)
    prompt, after = asked.get("prompt") or "", asked.get("after") or ""
    if "schema" in asked and not asked["schema"].lstrip("\ufeff \t\r\n").startswith(("{", "[")):
        asked = asked | {"schema": _read(asked["schema"])}
    knobs = {**asked, **settings, "condition": _conditions(model, conditions), "seed": seed}
    blocks = _written(voice, model, n, knobs, live=output is None)
    source = provenance("sample", path, model, n=n, **knobs)
    if output is None:
        texts = [_row(asked, text) for block in blocks for text in block]
        return {"count": n, "records": texts}
    suffix = Path(output).suffix.lower()
    if suffix == ".txt" and n > 1:
        raise BadConfig("USAGE", f"{n} texts do not go into one {printable(output)}.", "Name it .jsonl, or give a folder.")
    if suffix not in {*SUFFIXES, ""}:
        raise BadConfig("USAGE", f"The output is named {printable(output)}.", "Name it .txt or .jsonl, or give a folder.")
    if suffix:
        with release_file(output, source, overwrite) as path_of, path_of.open("w", encoding="utf-8", newline="") as file:
            for text in (text for block in blocks for text in block):
                row = json.dumps(_row(asked, text), ensure_ascii=False) + "\n"
                file.write(prompt + text.text + after if suffix == ".txt" else row)
    else:
        with release(output, source, overwrite) as out:
            for number, text in enumerate(text for block in blocks for text in block):
                out.add(f"{number:06d}.txt", (prompt + text.text + after).encode())
        tell_aside(voice, out)
    voice.quiet_bars()
    voice.say(f"{n:,} text{'s' if n > 1 else ''}: {printable(output)}")
    return {"output": output, "count": n, "provenance": vars(source)}


def _conditions(model: Model, said: list[str]) -> Any:
    """What every --condition says, together. Raises BadConfig where two say the same, and as `_condition`."""
    found = [_condition(model, one) for one in said]
    if len(found) < 2:
        return found[0] if found else None
    pair = model.card.get("read", {}).get("condition")
    both: dict[str, Any] = {}
    for one in found:
        both |= one if isinstance(one, dict) else {pair: one}
    if len(both) < len(found) or None in both:
        raise BadConfig("USAGE", f"--condition is given {len(found)} times.", "Give each column and a class once.")
    return both


def _condition(model: Model, said: str) -> Any:
    """What --condition says: the text of a pair, or a class as label=VALUE. Raises BadConfig as `class_of`."""
    pair, target = (model.card.get("read", {}).get(name) for name in ("condition", "target"))
    name, equals, value = said.partition("=")
    if len(given := given_columns(pair)) > 1:
        known = [*given, *([model.label.config.column] if model.label is not None else [])]
        if name not in known or not equals:
            raise BadConfig("USAGE", f"--condition is '{printable(said, 60)}'; it should be COLUMN=VALUE.", near(name, known))
        return {name: value}
    if pair is not None and target is not None and said.startswith(f"{target}="):
        raise BadConfig("USAGE", f"--condition names '{printable(target)}', which is what this model writes.",
                        f"Give the other side: --condition \"{printable(pair)}=...\".")
    if pair is None and model.label is None:
        return said
    if pair is None or (model.label is not None and said.startswith(("label=", f"{model.label.config.column}="))):
        value = class_of(model, said)
        return {model.label.config.column: value} if model.label is not None else value
    return said.removeprefix(f"{pair}=")


def _read(path: str) -> str:
    """A schema's file. Raises BadData where there is none, or it is larger than a schema is."""
    try:
        there = Path(path).exists()
    except (OSError, ValueError):  # too long for a name, or with a NUL
        there = False
    if not there:
        raise BadData("DATA_MISSING", f"{printable(path, 100)} is no JSON schema, and no file of that name is there.",
                      "Give a schema, which begins with a brace, or the path of one.")
    found = read_regular(Path(path), printable(path), LARGEST)
    if found is None:
        raise BadData("DATA_FORMAT", f"{printable(path)} is larger than a schema is.", "Give a JSON schema.")
    return found.decode(errors="replace")


def _row(asked: dict[str, Any], text: Written) -> dict[str, Any]:
    told = {"prompt": asked.get("prompt"), "after": asked.get("after"), "label": text.label}
    return {**{name: value for name, value in told.items() if value is not None}, "text": text.text,
            "log_prob": text.log_prob, "ended": text.ended}


def _written(voice: Voice, model: Model, n: int, knobs: dict[str, Any], live: bool) -> Iterator[list[Written]]:
    """Texts in blocks, each text the same whatever the block. live: shown as they are written, one after the other."""
    for first in range(0, n, AT_ONCE):
        texts: list[Written] = []
        shown = _Shown(voice, first, n, knobs)
        if not live:
            voice.bar("writing", first, n)
        for texts in model.write(min(AT_ONCE, n - first), first=first, **knobs):
            if live:
                shown.go_on(texts)
        if live:
            shown.go_on(texts, done=True)
        if {"regex", "schema"} & knobs.keys() and (cut := sum(text.ended == "length" for text in texts)):
            voice.warn(f"LENGTH: {cut} text(s) came to the limit of tokens before they matched. Raise --tokens.")
        yield texts


class _Shown:
    """Texts written side by side, on their way to the terminal: the first as it comes, then what there is of the next."""

    def __init__(self, voice: Voice, first: int, n: int, knobs: dict[str, Any]):
        self.voice, self.first, self.n = voice, first, n
        self.prompt, self.after = knobs.get("prompt") or "", knobs.get("after") or ""
        self.row, self.letters = 0, -1  # which text is shown, and how many of its letters were; -1 before its beginning

    def go_on(self, texts: list[Written], done: bool = False) -> None:
        """Shows what is new. done: nothing more will be written."""
        while self.row < len(texts):
            text = texts[self.row]
            if self.letters < 0:
                if self.n > 1:
                    label = "" if text.label is None else f", {printable(text.label, 40)}"
                    self.voice.note(f"--- {self.first + self.row + 1} of {self.n}{label} ---")
                _stream(self.voice, self.prompt)
                self.letters = 0
            _stream(self.voice, text.text[self.letters:])
            self.letters = len(text.text)
            if not (text.ended or done):
                return
            _stream(self.voice, self.after + "\n")
            if self.n > 1:
                self.voice.note(f"--- {-text.log_prob / math.log(2):.1f} bits ---")
            self.row, self.letters = self.row + 1, -1


def _stream(voice: Voice, text: str) -> None:
    """Adds to standard output at once; what a terminal would act on is escaped."""
    if not voice.as_json and first_rank():
        sys.stdout.write("\n".join(map(printable_line, text.split("\n"))))
        sys.stdout.flush()


def printable_line(text: str) -> str:
    """A line of which nothing is hidden or acted on."""
    return "".join(c if c.isprintable() or c == "\t" else printable(c) for c in text)


def heat(voice: Voice, path: str, source: str) -> dict[str, Any]:
    """Every token of every text, coloured by how much it surprises, with bits a byte; as JSON each token's nats."""
    model = Model.load(path)
    told: list[dict[str, Any]] = []
    for records, tokens in weighed(model, source):
        for row, weights in enumerate(tokens):
            nats, size = sum(cost for _, cost in weights), sum(len(piece) for piece, _ in weights)
            voice.note(f"--- {printable(records.where(row))}: {nats / math.log(2) / max(size, 1):.3f} bits a byte ---")
            line, letters = Line(), codecs.getincrementaldecoder("utf-8")("replace")
            for place, (piece, cost) in enumerate(weights, start=1):  # a character is coloured by its last byte
                bits, said = cost / math.log(2), letters.decode(piece, place == len(weights))
                line.append("\n".join(map(printable_line, said.split("\n"))), COLOURS[sum(bits > limit for limit in BITS)])
            voice.out.print(line, soft_wrap=True)
            told.append({"record": records.where(row), "nats": nats, "bytes": size,
                         "tokens": [{"token": piece.decode(errors="replace"), "nats": cost} for piece, cost in weights]})
    if not told:
        raise BadData("DATA_EMPTY", "No text of the source can be scored.",
                      model.problems[0].message if model.problems else "")
    voice.problems(model.problems)
    return {"records": told}


def chat(voice: Voice, path: str, system: str | None, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Answers what is written line by line until the end of the input. What no longer fits in the context is forgotten, the
    oldest first."""
    model = Model.load(path)
    build(model.family.Sampling, settings, "chat")
    messages: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
    kept = len(messages)
    room = model.codec.space.shape[0] * 3 // 4
    opening(model, [*messages, {"role": "user", "content": "?"}])  # tells at once where this model learned no chats
    if sys.stdin is not None and sys.stdin.isatty():
        voice.note("Write, and end a line with Enter; Ctrl-D ends the chat.")
    for number, line in enumerate(_lines()):
        if not line.strip():
            continue
        messages.append({"role": "user", "content": line.rstrip("\n")})
        while len(opening(model, messages)) > room and len(messages) > kept + 1:
            del messages[kept]
        texts: list[Written] = []
        for texts in model.write(1, messages, seed=seed, first=number, **settings):
            _stream(voice, texts[0].new)
        _stream(voice, "\n")
        messages.append({"role": "assistant", "content": texts[0].text if texts else ""})
    return {"messages": messages}


def _lines() -> Iterator[str]:
    """Those of standard input. Raises BadData TEXT_ENCODING where they are not what the terminal says that they are."""
    try:
        yield from sys.stdin or ()  # none where it was closed
    except UnicodeDecodeError as error:
        raise BadData("TEXT_ENCODING", f"What was written is not {error.encoding}: the byte 0x{error.object[error.start]:02x}.",
                      "Write UTF-8, or set the terminal's encoding.") from error


def translate(voice: Voice, path: str, text: str, beam: int, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """The target of a condition: the best that a search with `beam` hypotheses finds, or with settings of sampling a drawn
    one."""
    model = Model.load(path)
    if not text.strip():
        raise BadData("TEXT_EMPTY", "There is nothing to translate.", "Give a text.")
    knobs: Any = build(model.family.Sampling, settings, "translate")
    if settings.keys() - {"tokens"}:
        *_, texts = model.write(1, condition=text, seed=seed, **settings)
        best = texts[0]
    else:
        best = model.search(condition=text, beam=beam, tokens=knobs.tokens if settings else None)
    _stream(voice, best.text + "\n")
    return {"text": best.text, "log_prob": best.log_prob, "ended": best.ended}


def take_in(voice: Voice, source: str, output: str) -> dict[str, Any]:
    """A model of another program, saved as ours."""
    model = imported(source)
    model.save(output)
    shape: Any = model.family.shape
    voice.say(f"{shape.blocks} blocks of {shape.width}, {shape.vocabulary:,} tokens: saved: {printable(output)}")
    return {"model": output, **model.describe()}


def give_out(voice: Voice, path: str, output: str, format: str | None, base: str | None = None) -> dict[str, Any]:
    """A model of ours as others read it; where nothing is said, as the output's name does. base: what its adapters rest on,
    where that is not where it was."""
    format = format or ("gguf" if output.lower().endswith(".gguf") else "hf")
    export(Model.load(path, base=base, apart=format == "peft"), output, format)
    voice.say(f"written: {printable(output)}")
    return {"output": output, "format": format}
