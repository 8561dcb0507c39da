"""Text: documents, pairs of texts and chats become tokens, and come back byte for byte.

    a document   ~start, its tokens, stop             a stretch of a long one has ~start or stop only where it begins or ends
    a pair       ~start ~condition ~then, target, stop
    a chat       ~start, and for each message its ~role, its tokens, end: given, save what the assistant says
    a gap        ~start ~before, tokens, ~after, tokens, ~middle, the tokens between, stop (Bavarian et al., arXiv:2207.14255)

~t is the token t as a condition: given, never predicted. Windows of `context` + 1 entries are what is learned and scored.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...config import knob
from ...errors import BadConfig, BadData, Incompatible, printable
from ...spaces import SIDE, Discrete, Problem, Records
from .. import Codec
from .adopted import Adopted
from .vocabulary import SPECIALS, Vocabulary, trained
from .windows import learned, padded, scored

__all__ = ["MEMBER", "SPECIALS", "Text", "TextConfig"]

PAIRS = 4096  # ordinary tokens of a BPE where nothing is said
SMALL_BYTES, MIDDLE_BYTES = 4 << 20, 16 << 20  # below the first auto means bytes, below the second windows that overlap
SAMPLE_BYTES = 4096, 128 << 20  # a BPE is trained on so many bytes for each of its tokens, and at most on so many

Part = tuple[str, bytes, bool]  # a special token's name or "", the text where it is none, whether it is learned


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Settings of the text codec."""

    tokens: str = knob("auto", "what tokens are: bytes, bpe:4096 (or so many), or auto: bytes below 4 MB of text")
    context: int = knob(256, "tokens that a window holds before its last one", low=2, high=65_536)
    stride: int | str = knob("auto", "tokens from one window to the next in learning; auto: a quarter of the context below 16 "
                             "MB of text, else the context", low=1, high=65_536, choices=("auto",))
    gaps: float = knob(0.0, "share of the windows of documents that are learned with their middle last", low=0, high=1)


class Text(Codec):
    """Records of documents, pairs or chats <-> x (B, context + 1) int32. `vocabulary` are the ordinary tokens, `special` the
    numbers of the others by name; `notes` holds words of warning from `fit`, each with a stable code."""

    Config = TextConfig
    modality = "text"
    windowed: ClassVar[bool] = True
    space: Discrete

    def __init__(self, config: TextConfig):
        self.config = config
        self.asked = _asked(config.tokens)
        if config.stride != "auto" and int(config.stride) > config.context:
            raise BadConfig("SETTING_RANGE", f"'stride' is {config.stride} and 'context' {config.context}: some tokens would "
                            "be in no window.", "Give a stride of at most the context.")
        self.notes: list[str] = []
        self.bytes = 0

    def fit(self, blocks: Iterable[Records]) -> "Text":
        """One pass, memory bounded: how much text there is, and a sample of it where tokens are to be pairs.

        Raises BadData DATA_EMPTY where there is no text, Incompatible TEXT_COLUMNS for records that are none.
        """
        if self.config.tokens == "imported":
            raise BadConfig("SETTING_RANGE", "'tokens' is 'imported', which is of models that came from elsewhere.",
                            "Say --from MODEL to go on from one.")
        sample = _Sample(self.asked)
        for block in blocks:
            for text in _said(block):
                sample.add(text)
        if not sample.total:
            raise BadData("DATA_EMPTY", "There is no text in the records.", "Give at least one character.")
        size = self.asked if self.asked is not None else 0 if sample.total < SMALL_BYTES else PAIRS
        self._lay_out(trained(sample.texts, size) if size else Vocabulary(), sample.total)
        self.notes = self._warnings(sample)
        return self

    def _lay_out(self, vocabulary: Vocabulary, total: int) -> None:
        self.vocabulary, self.bytes = vocabulary, total
        self.special = {name: len(vocabulary) + number for number, name in enumerate(SPECIALS)}
        if vocabulary.special is not None:
            self.special = {**vocabulary.special, "pad": len(vocabulary)}
        self.lengths = np.zeros(self.special["pad"] + 1, np.int64)
        self.lengths[:len(vocabulary)] = [*map(len, vocabulary.pieces)]
        self.space = Discrete(shape=(self.config.context + 1,), vocabulary=len(self.lengths), pad=self.special["pad"],
                              start=self.special["start"], stop=self.special.get("stop"))

    @classmethod
    def over(cls, config: TextConfig, vocabulary: Vocabulary) -> "Text":
        """A codec over the tokens of a model that came from elsewhere."""
        codec = cls(config)
        codec._lay_out(vocabulary, MIDDLE_BYTES)
        return codec

    def speaking(self) -> "Text":
        """The codec with tokens for who speaks and for what stands between texts: another one where it came from elsewhere."""
        if not isinstance(self.vocabulary, Adopted) or not {*SPECIALS[:-1]} - self.special.keys():
            return self
        codec = Text(self.config)
        codec._lay_out(self.vocabulary.speaking(), self.bytes)
        return codec

    @property
    def stride(self) -> int:
        """Tokens from one window to the next in learning."""
        if self.config.stride != "auto":
            return int(self.config.stride)
        return max(1, self.config.context // 4) if self.bytes < MIDDLE_BYTES else self.config.context

    def _warnings(self, sample: "_Sample") -> list[str]:
        notes = []
        if sample.seen.sum() == 1:
            only = printable(repr(bytes([int(sample.seen.argmax())])))
            notes.append(f"DATA_CONSTANT: the text is the byte {only} again and again, {sample.total:,} times")
        if sample.total <= self.config.context:
            notes.append(f"TEXT_SHORT: all text together is {sample.total:,} bytes, shorter than the context of "
                         f"{self.config.context}")
        return notes

    def parse(self, records: Records, problems: list[Problem], unknown: bool = False) -> Records:
        """Records with the column "parts" (a list of `Part` each) and, for documents, "begins" and "ends". What cannot be
        written is left out and named in `problems`: CHAT_ROLE, TEXT_ENCODING.

        With `unknown` they are to be written on: a document does not end, what a pair or a gap lacks is open, and so is a chat:
        its last message where the assistant says it, else an answer.
        """
        kind = _kind(records)
        rows: list[int] = []
        parts: list[list[Part]] = []
        columns = [records.columns.get(name, [None] * len(records)) for name in _FIELDS[kind]]
        for row, values in enumerate(zip(*columns, strict=True)):
            try:
                parts.append(_PARTS[kind](*values, unknown))
                rows.append(row)
            except _Unfit as unfit:
                where = records.where(row)
                problems.append(Problem(unfit.code, where, f"{printable(where)}: {unfit.message}", unfit.hint))
        kept = records if len(rows) == len(records) else records.take(rows)
        parsed: dict[str, list[Any]] = {"parts": parts}
        if kind == "pairs":  # equal conditions are on one side of the split, whatever their targets
            parsed[SIDE] = [record[1][1] for record in parts]
        if SIDE in kept.columns:  # that of a stretch's document
            parsed[SIDE] = list(kept.columns[SIDE])
        if kind == "plain":
            parsed["begins"] = list(kept.columns.get("begins", [True] * len(kept)))
            parsed["ends"] = [False] * len(kept) if unknown else list(kept.columns.get("ends", [True] * len(kept)))
        return Records(parsed, kept.origin, kept.first, kept.names)

    def tokens(self, records: Records) -> list[np.ndarray]:
        """All tokens (N,) int32 of each parsed record, ~t where they are given."""
        parts = records.columns["parts"]
        encoded = iter(self.vocabulary.encode([text for record in parts for name, text, _ in record if not name]))
        plain, whole = "begins" in records.columns, [True] * len(records)
        edges = (records.columns.get(name, whole) for name in ("begins", "ends"))
        found = []
        for record, begins, ends in zip(parts, *edges, strict=True):
            pieces = [self._one(name) if name else next(encoded) for name, _, _ in record]
            tokens = [piece if is_learned else ~piece for piece, (_, _, is_learned) in zip(pieces, record, strict=True)]
            if plain:
                tokens = [self._one("start", begins, True), *tokens, self._one("stop", ends and "stop" in self.special)]
            entries = np.concatenate(tokens)
            if plain and not begins and len(entries):
                entries[0] = ~entries[0]
            found.append(entries)
        return found

    def _one(self, name: str, there: bool = True, given: bool = False) -> np.ndarray:
        """A special token, or nothing, as a sequence. Raises Incompatible TEXT_SPECIAL where the tokens have none such."""
        if there and name not in self.special:
            raise Incompatible("TEXT_SPECIAL", f"The model's tokens have none for '{name}'.",
                               "Models that were begun here learn chats, pairs and gaps; one from elsewhere learns chats and "
                               "pairs by all its weights: fit --from MODEL, without adapters.")
        token = self.special[name] if there else 0
        return np.array([~token if given else token] if there else [], np.int32)

    def cut(self, records: Records, learning: bool, stride: int | None = None) -> tuple[Tensor, np.ndarray]:
        """Windows x (W, context + 1) int32 of parsed records, and the record (W,) of each.

        Where it is for learning, a record without anything to be learned has none. Else every record has one, and each of its
        tokens is scored once; `stride` tokens at a time are new, by default half the context.
        """
        length, pad = self.space.dims, self.special["pad"]
        step = stride or (self.stride if learning else max(1, self.config.context // 2))
        if not 1 <= step <= self.config.context:
            raise BadConfig("SETTING_RANGE", f"'stride' is {step}.", f"It should be from 1 to {self.config.context}.")
        windows = [(learned if learning else scored)(tokens, length, step, pad) for tokens in self.tokens(records)]
        if learning and self.config.gaps and "begins" in records.columns:
            windows = [np.stack([self._parted(window) for window in x]) if len(x) else x for x in windows]
        rows = np.repeat(np.arange(len(windows)), [len(x) for x in windows])
        return torch.from_numpy(np.concatenate([np.zeros((0, length), np.int32), *windows])), rows

    def _parted(self, window: np.ndarray) -> np.ndarray:
        """The window with its middle last, for the share of windows that the setting says, chosen by what they hold."""
        random = np.random.default_rng(int.from_bytes(hashlib.blake2b(window.tobytes(), digest_size=8).digest()))
        if random.random() >= self.config.gaps:
            return window
        entries = np.where(window < 0, ~window, window)
        length = self.space.dims
        room = max(0, length - 5 - (4 if self.vocabulary.pairs else 0))  # pairs that a cut goes through become more tokens
        text = b"".join(self.vocabulary.pieces[t] for t in entries[entries < len(self.vocabulary)][:room])
        first, last = (_whole(text, at) for at in sorted(random.integers(0, len(text) + 1, 2).tolist()))
        before, middle, after = self.vocabulary.encode([text[:first], text[first:last], text[last:]])
        parts = [self._one("start", given=True), self._one("before", given=True), before, self._one("after", given=True), after,
                 self._one("middle", given=True), middle, self._one("stop")]
        tokens = np.concatenate(parts)
        return padded(tokens, length, self.special["pad"]) if len(tokens) <= length else window

    def encode(self, records: Records, unknown: bool = False) -> Tensor:
        """x (B, context + 1) int32 of parsed records. Raises BadData TEXT_LONG for one that does not fit."""
        length = self.space.dims
        x = np.full((len(records), length), self.special["pad"], np.int32)
        for row, tokens in enumerate(self.tokens(records)):
            if len(tokens) > length:
                raise BadData("TEXT_LONG", f"{printable(records.where(row))} has {len(tokens):,} tokens and {length:,} fit in "
                              "a window.", "Shorten it, or learn with a longer context.")
            x[row, :len(tokens)] = tokens
        return torch.from_numpy(x)

    def raw(self, x: Tensor, given: bool = True) -> list[bytes]:
        """The bytes that each row of x (B, N) says, special tokens left out; without `given`, only of what was not given."""
        pieces, size = self.vocabulary.pieces, len(self.vocabulary)
        found = []
        for row in x.detach().cpu().numpy():
            entries = np.where(row < 0, ~row, row) if given else row[row >= 0]
            found.append(b"".join(pieces[token] for token in entries[entries < size].tolist()))
        return found

    def decode(self, x: Tensor, first: int = 0, known: Records | None = None, given: bool = True) -> Records:
        """The column "text", str, of x (B, N): as `raw`, with U+FFFD for what is not UTF-8. What is known stands in x."""
        return Records({"text": [text.decode(errors="replace") for text in self.raw(x, given)]}, "decoded", first)

    def units(self, x: Tensor) -> Tensor:
        """Tokens of each point that are predicted, (B,) float32."""
        return ((x >= 0) & (x != self.special["pad"])).sum(1).to(torch.float32)

    def sizes(self, x: Tensor) -> Tensor:
        """Bytes of each point that are predicted, (B,) int64."""
        lengths = torch.from_numpy(self.lengths).to(x.device)
        return torch.where(x >= 0, lengths[x.clamp(min=0).long()], 0).sum(1)

    def log_volume(self, x: Tensor) -> Tensor:
        """Zero, (B,) float64: tokens are masses."""
        return torch.zeros(len(x), dtype=torch.float64)

    def tokenizer_json(self) -> str:
        """A Hugging Face tokenizer.json that gives plain text the same numbers, special tokens added as <|start|> and so on."""
        return self.vocabulary.written(SPECIALS[:-1])  # without what stands for nothing, which no network knows of

    def state(self) -> dict[str, Any]:
        """The tokenizer.json of a BPE ("" where tokens are bytes), the bytes of text it was fitted to, and the notes."""
        return {"pairs": self.vocabulary.pairs, "bytes": self.bytes, "notes": self.notes,
                "adopted": self.vocabulary.special and {"special": self.vocabulary.special, "size": len(self.vocabulary)}}

    @classmethod
    def restore(cls, config: TextConfig, state: dict[str, Any]) -> "Text":
        """The codec that `state` was taken from."""
        codec = cls(config)
        adopted = state["adopted"]
        codec._lay_out(Adopted(state["pairs"], **adopted) if adopted else Vocabulary(state["pairs"]), state["bytes"])
        codec.notes = list(state["notes"])
        return codec

    def describe(self) -> list[dict[str, Any]]:
        """One row: what the tokens are, and the windows."""
        kind = f"{len(self.vocabulary):,} pairs of bytes and more" if self.vocabulary.pairs else "256 bytes"
        windows = f"windows of {self.config.context} tokens, {self.stride} apart in learning"
        return [{"column": "text", "type": "text", "missing": 0, "distinct": self.space.vocabulary,
                 "range": f"{kind}, {len(SPECIALS)} special tokens; {windows}", "note": "; ".join(self.notes)}]


class _Unfit(Exception):
    """Why a record cannot be written as tokens."""

    def __init__(self, code: str, message: str, hint: str):
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint


def _text(value: Any) -> bytes:
    """A text in UTF-8; bytes are taken as they are."""
    if not isinstance(value, str | bytes | bytearray):
        raise _Unfit("TEXT_MISSING", f"{printable(repr(value), 40)} is no text.", "Give str or bytes.")
    try:
        return value.encode() if isinstance(value, str) else bytes(value)
    except UnicodeEncodeError as error:
        found = f"U+{ord(error.object[error.start]):04X}"
        raise _Unfit("TEXT_ENCODING", f"it holds the lone surrogate {found} at character {error.start:,}.",
                     "A surrogate stands for half a character; decode the text anew from its bytes.") from error


def _document(text: Any, unknown: bool) -> list[Part]:
    return [("", _text(text), True)]


def _pair(given: Any, text: Any, unknown: bool) -> list[Part]:
    parts: list[Part] = [("start", b"", False), ("", _text(given), False), ("then", b"", False)]
    return parts + _written(text, unknown)


def _gap(before: Any, after: Any, text: Any, unknown: bool) -> list[Part]:
    parts: list[Part] = [("start", b"", False), ("before", b"", False), ("", _text(before), False), ("after", b"", False),
                         ("", _text(after), False), ("middle", b"", False)]
    return parts + _written(text, unknown)


def _written(text: Any, unknown: bool) -> list[Part]:
    """What was written, and its end; open where it is unknown."""
    said: list[Part] = [("", _text(text), True)] if text is not None else []
    return said if unknown else [*said, ("stop", b"", True)]


def _chat(messages: Any, unknown: bool) -> list[Part]:
    parts: list[Part] = [("start", b"", False)]
    for role, content in messages:
        if role not in ("system", "user", "assistant"):
            raise _Unfit("CHAT_ROLE", f"the role {printable(role, 40)!r} is not known.", "Known: system, user, assistant.")
        answer = role == "assistant"
        parts += [(role, b"", False), ("", _text(content), answer), ("end", b"", answer)]
    if not unknown:
        return parts
    return parts[:-1] if messages and messages[-1][0] == "assistant" else [*parts, ("assistant", b"", False)]


_PARTS: dict[str, Any] = {"plain": _document, "pairs": _pair, "gaps": _gap, "chats": _chat}
_FIELDS = {"plain": ("text",), "pairs": ("given", "text"), "gaps": ("before", "after", "text"), "chats": ("messages",)}


def _kind(records: Records) -> str:
    """What the columns of records hold. Raises Incompatible TEXT_COLUMNS."""
    named = {"messages": "chats", "given": "pairs", "before": "gaps", "text": "plain"}
    for column, kind in named.items():
        if column in records.columns:
            return kind
    shown = ", ".join(map(printable, records.columns))
    raise Incompatible("TEXT_COLUMNS", f"{records.origin} has the columns {shown}, none of which is text.",
                       "Give records with 'text', 'given' and 'text', or 'messages'.")


def _said(records: Records) -> Iterator[bytes]:
    """Every text of raw records; what cannot be written is left out."""
    kind = _kind(records)
    for value in zip(*(records.columns[name] for name in _FIELDS[kind] if name in records.columns), strict=True):
        texts = [content for _, content in value[0]] if kind == "chats" else value
        for text in texts:
            yield text.encode(errors="replace") if isinstance(text, str) else bytes(text)


class _Sample:
    """Texts that a BPE of `size` tokens (None: to be settled, 0: none) is trained on: all, or where they are too many every
    second, every fourth ... of them. `seen` says which bytes occurred, (256,) bool."""

    def __init__(self, size: int | None):
        per_token, most = SAMPLE_BYTES
        self.limit = min(per_token * (PAIRS if size is None else size), most)
        self.texts: list[bytes] = []
        self.seen = np.zeros(256, bool)
        self.total = self.count = self.held = 0
        self.every = 1

    def add(self, text: bytes) -> None:
        """Takes note of a text."""
        self.total += len(text)
        self.seen[np.bincount(np.frombuffer(text, np.uint8), minlength=256) > 0] = True
        if self.limit and self.count % self.every == 0:
            self.texts.append(text)
            self.held += len(text)
        while self.held > self.limit and len(self.texts) > 1:
            self.texts, self.every = self.texts[::2], 2 * self.every
            self.held = sum(map(len, self.texts))
        self.count += 1


def _asked(tokens: str) -> int | None:
    """The ordinary tokens of the BPE that is asked for, 0 for bytes, None for auto. Raises BadConfig SETTING_RANGE."""
    if tokens in ("bytes", "auto", "imported"):
        return None if tokens == "auto" else 0
    number = re.fullmatch(r"bpe:(\d{1,7})", tokens)
    if number is None or not 257 <= int(number[1]) <= 1_000_000:
        raise BadConfig("SETTING_RANGE", f"'tokens' is '{printable(tokens)}'.",
                        "It should be bytes, auto, or bpe: and a number from 257 to 1000000.")
    return int(number[1])


def _whole(text: bytes, at: int) -> int:
    """The place nearest before `at` where a character begins, a few bytes back at most."""
    return at - next((back for back in range(min(4, at + 1)) if text[at - back:at - back + 1] < b"\x80"
                      or text[at - back:at - back + 1] >= b"\xc0"), 0)


MEMBER = Text
