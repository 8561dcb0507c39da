"""What people do with a model of texts: have it go on from a prompt, answer, translate; and see how probable each token is.

    prompt or messages -> codec -> what is given ~t -> family, token by token -> codec -> text, as it is written
"""

import codecs
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .. import data
from ..codecs.text import Text
from ..codecs.text.ruled import Ruled
from ..config import build
from ..errors import BadConfig, BadData, Incompatible, near, printable
from ..families.autoregressive import Autoregressive
from ..seeds import Noise, check_seed
from ..spaces import Problem, Records

__all__ = ["Written", "opening", "search", "weighed", "write"]

BEAMS = 256  # hypotheses, at most


@dataclass
class Written:
    """One text while it is written. text: all of it so far; new: what the last step added; log_prob: nats of what was written,
    under what was allowed; ended: "" while it goes on, then "stop" by itself, "string" at a stop string, "length" at its
    limit; label: its class, where the model has classes."""

    stops: Sequence[str] = ()
    text: str = ""
    new: str = ""
    log_prob: float = 0.0
    ended: str = ""
    label: Any = None
    _bytes: Any = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))
    _held: str = ""

    def take(self, piece: bytes, last: bool) -> bool:
        """Adds bytes, of which what may begin a stop string is held back. Returns whether a stop string was met."""
        self._held += self._bytes.decode(piece, last)
        at = min((found for stop in self.stops if (found := self._held.find(stop)) >= 0), default=-1)
        if at < 0 and not last:
            keep = max((n for stop in self.stops for n in range(1, len(stop)) if self._held.endswith(stop[:n])), default=0)
            at = len(self._held) - keep
            met = False
        else:
            met = at >= 0
            at = at if met else len(self._held)
        self.new, self._held = self._held[:at], "" if met else self._held[at:]
        self.text += self.new
        return met


def opening(model: Any, prompt: Any = None, condition: Any = None, after: Any = None) -> Tensor:
    """What a text begins with, (M,), all of it given: a prompt, str or bytes; messages as a chat has them; the condition of
    a pair, then what its target begins with; or what stands before a gap and `after` it. Raises Incompatible NOT_TEXT, BadData
    as the codec does."""
    codec, read = _codec(model), model.card.get("read", {})
    if after is not None and not codec.config.gaps:
        raise Incompatible("NOT_CONDITIONAL", "This model learned no gaps, so it fills none.", "Fit one: --gaps 0.5.")
    if condition is not None and "condition" not in read:
        raise Incompatible("NOT_CONDITIONAL", "This model learned no pairs of texts, so it takes no condition.",
                           "Fit one: --condition COLUMN --target COLUMN.")
    if after is not None:
        columns: dict[str, Any] = {"before": [prompt or b""], "after": [after]}
    elif isinstance(prompt, Sequence) and not isinstance(prompt, str | bytes):
        if "imported" not in model.card and "messages" not in model.card["manifest"]["columns"]:
            raise Incompatible("NOT_CONDITIONAL", "This model learned no chats, so it does not answer.",
                               "Fit one on JSON lines with messages; --from MODEL goes on from this one.")
        columns = {"messages": [[_message(message) for message in prompt]]}
    elif condition is not None:
        columns = {"given": [condition], "text": [prompt]}
    else:
        columns = {"text": [b"" if prompt is None else prompt]}
    problems: list[Problem] = []
    parsed = codec.parse(Records(columns, "the prompt"), problems, unknown=True)
    if problems:
        raise BadData(problems[0].code, problems[0].message, problems[0].hint)
    x = torch.from_numpy(codec.tokens(parsed)[0]).long()
    return torch.where(x < 0, x, ~x)


def _message(message: Any) -> tuple[str, Any]:
    """(role, content) of a message. Raises BadData CHAT_ROLE."""
    if isinstance(message, Mapping) and {"role", "content"} <= message.keys():
        return str(message["role"]), message["content"]
    if isinstance(message, tuple) and len(message) == 2:
        return str(message[0]), message[1]
    raise BadData("CHAT_ROLE", f"A message is {message!r}.", "Give {'role': 'user', 'content': '...'}.")


def write(model: Any, n: int, prompt: Any = None, condition: Any = None, seed: int = 0, first: int = 0,
          stop: str | Sequence[str] = (), after: Any = None, regex: str | None = None, schema: str | None = None,
          **settings: Any) -> Iterator[list[Written]]:
    """n texts, samples number `first` to `first + n - 1` of a seed, a token longer each time; the same objects each time.

    condition : of a model of pairs the text that these are the target of; of one with a label the class, drawn for each text
        where nothing is said; of one with both the text, or both by the names of their columns.
    after : what stands after a gap that is to be filled, by a model that learned with `gaps`. regex, schema : what all that is
    written matches, a regular expression or a JSON schema; log_prob is then of what that allows.
    stop : strings at which a text ends, themselves left out. settings : those of the family's sampling, such as
    temperature=0.8.
    """
    codec = _codec(model)
    if not isinstance(n, int) or n < 1:
        raise BadConfig("SETTING_RANGE", f"'n' is {n!r}; it should be a whole number from 1.")
    stops = [stop] if isinstance(stop, str) else list(stop)
    if "" in (regex, schema):
        raise BadConfig("RULE", "A rule is empty.", "Leave it out to write freely.")
    if regex is not None and schema is not None:
        raise BadConfig("RULE", "A regular expression and a JSON schema were given.", "Give one of them.")
    if not all(stops):
        raise BadConfig("SETTING_RANGE", "A stop string is empty.", "Give at least one character.")
    knobs = vars(build(model.family.Sampling, settings, f"sampling by {type(model.family).__name__}"))
    noise = Noise(check_seed(seed), n, first)
    condition, y = told(model, condition, noise)
    classes = [None] * n if y is None else [model.classes[c] if c >= 0 else None for c in y.tolist()]
    texts = [Written(stops, label=label) for label in classes]
    pieces, ordinary = codec.vocabulary.pieces, len(codec.vocabulary)
    ends = tuple(codec.special[name] for name in ("stop", "end") if name in codec.special)  # "end" of what a chat says
    given, rule = opening(model, prompt, condition, after), None
    if regex is not None or schema is not None:
        if not ends:
            raise Incompatible("TEXT_SPECIAL", "The model's tokens have none that ends a text, which a rule needs.",
                               "Write without a rule, or import a model that has one.")
        rule = Ruled(pieces + [b""] * (codec.space.vocabulary - ordinary), ends[0], n, regex, schema)
    with torch.inference_mode():
        writing = model.family.writing(noise, y, given, ends, rule, **knobs)
    before = writing.lengths.tolist()
    while True:
        with torch.inference_mode():  # not over the yield: the mode is that of the thread
            x = next(writing, None)
        if x is None:
            break
        lengths, done = writing.lengths.tolist(), writing.done.tolist()
        finished = torch.zeros(n, dtype=torch.bool)
        for row, text in enumerate(texts):
            text.new = ""
            if text.ended or lengths[row] == before[row]:
                continue
            token = int(x[row, lengths[row] - 1])
            if text.take(pieces[token] if token < ordinary else b"", done[row]):
                text.ended, finished[row] = "string", True
            elif done[row]:
                text.ended = "stop" if token in ends else "length"
            text.log_prob = float(writing.log_p[row])
        before = lengths
        with torch.inference_mode():
            writing.finish(finished)
        yield texts
    for text in texts:
        text.new, text.ended = "", text.ended or "length"


def search(model: Any, prompt: Any = None, condition: Any = None, beam: int = 4, tokens: int | None = None) -> Written:
    """The best text, by its log-probability over a power of its length, that a search with `beam` hypotheses finds: see
    `families.autoregressive.beam`."""
    codec = _codec(model)
    condition, y = told(model, condition)
    if not 1 <= beam <= BEAMS:
        raise BadConfig("SETTING_RANGE", f"'beam' is {beam}.", f"It should be from 1 to {BEAMS}.")
    given = opening(model, prompt, condition)
    room = codec.space.dims - len(given)
    if room < 1:
        raise BadData("TEXT_LONG", f"What is given has {len(given):,} tokens, and the context holds {codec.space.dims - 1:,}.",
                      "Shorten it, or learn with a longer context.")
    ends = tuple(codec.special[name] for name in ("stop", "end") if name in codec.special)
    x, log_p = model.family.search(given, y, beam=beam, tokens=min(tokens or room, room), ends=ends)
    said = codec.raw(x[None, len(given):])[0].decode(errors="replace")
    return Written(text=said, log_prob=log_p, ended="stop" if int(x[-1]) in ends else "length",
                   label=None if y is None else model.classes[int(y)])


def told(model: Any, condition: Any, noise: Noise | None = None) -> tuple[Any, Tensor | None]:
    """What a condition says: the text of a pair, or the record that stands for it as text, or None; and the class of each text
    (B,), or None. Where it says no class and the model has some, they are drawn from their shares by `noise`, or there is none.
    Raises BadConfig USAGE, LABEL_UNKNOWN."""
    pair, column = model.card.get("read", {}).get("condition"), None if model.label is None else model.label.config.column
    if pair is None and column is None:
        return condition, None
    given, known = data.given_columns(pair), {pair, column} - {None}
    if not isinstance(condition, Mapping):
        condition = {} if condition is None else {column if pair is None else pair: condition}
    if len(given) > 1:
        record, known = {name: condition[name] for name in given if name in condition}, known | {*given}
        condition = {name: value for name, value in condition.items() if name not in given}
        condition |= {pair: data.record_text(record)} if record else {}
    for name in condition.keys() - known:
        raise BadConfig("USAGE", f"The condition names '{printable(name)}', which this model does not know.",
                        near(str(name), sorted(known)))
    text, label = condition.get(pair), condition.get(column)
    if model.label is None:
        return text, None
    if noise is None:
        return text, None if label is None else torch.tensor([model.label.index(label)])
    return text, model._condition(label, noise)


def weighed(model: Any, source: Any) -> Iterator[tuple[Records, list[list[tuple[bytes, float]]]]]:
    """Blocks of records, and for each its tokens as bytes (none, of special ones) with their nats, -log p(token | those
    before); of a record they add up to -log_prob."""
    codec, family = _codec(model), model.family
    for records, x, of in model.judged(source):
        with torch.inference_mode():
            nats = -family.each(x.to(family.device)).cpu()
        told: list[list[tuple[bytes, float]]] = [[] for _ in range(len(records))]
        for row, record in enumerate(of.tolist()):
            for token, cost in zip(x[row].tolist(), nats[row].tolist(), strict=True):
                if token >= 0 and token != codec.space.pad:
                    told[record].append((codec.vocabulary.pieces[token] if token < len(codec.vocabulary) else b"", cost))
        yield records, told


def _codec(model: Any) -> Text:
    """The codec of a model that writes texts. Raises Incompatible NOT_TEXT."""
    if not isinstance(model.codec, Text) or not isinstance(model.family, Autoregressive):
        raise Incompatible("NOT_TEXT", f"This is a model of family '{model.card.get('family')}' over '{model.codec.modality}', "
                           "which writes no text.", "Fit one: verossim fit book.txt --family autoregressive.")
    return model.codec
