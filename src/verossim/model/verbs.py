"""What people hold: a codec and a family under one set of verbs. Glue only; every verb is a walk through the rooms.

    files -> data -> codec -> family            fit, log_prob, predict_proba, complete
    files <- people's types <- codec <- family  sample, complete
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import __version__, data, store
from ..codecs import Codec
from ..codecs.label import Label
from ..codecs.text import Text
from ..config import build, plain
from ..errors import BadConfig, BadData, CorruptStore, Incompatible, NoLikelihood
from ..families import Family
from ..seeds import Noise, check_seed
from ..spaces import Kind, Likelihood, Problem, Records, space_plain
from .storing import codec_from, codec_plain, codec_tensors, family_plain, stored_family
from .texts import Written, search, write

if TYPE_CHECKING:
    from ..metrics import Report
    from ..safety.audit import AuditReport

__all__ = ["Model", "Scored", "features"]

PROBLEMS = 1000  # remembered of one source
FARTHEST = 1000  # deviations that styles may be moved by


@dataclass(frozen=True)
class Scored:
    """A block of records and what the model says of them."""

    records: Records
    likelihood: Likelihood


class Model:
    """A fitted generative model of somebody's records: makes new ones, and says how probable given ones are."""

    def __init__(self, codec: Codec, family: Family, label: Label | None = None, card: Mapping[str, Any] | None = None):
        if not isinstance(codec.space, family.accepts):
            wanted = " or ".join(kind.__name__ for kind in family.accepts)
            raise Incompatible("SPACE", f"This family learns {wanted} spaces; the codec gives {type(codec.space).__name__}.")
        self.codec, self.family, self.label, self.card = codec, family, label, dict(card or {})
        self.problems: list[Problem] = []
        self.sha256: str | None = None  # of the saved model, once there is one
        self.base: str | None = None  # that of the model that adapters rest on, which are saved apart from it
        self.others: dict[str, Family] = {}  # of other saved models that sampling asked for, by folder

    def draw(self, n: int, condition: Any = None, seed: int = 0, first: int = 0, **settings: Any) -> Records:
        """n new records, samples number `first` to `first + n - 1` of a seed, with their labels where the model has them.

        Without a condition a conditional model draws the label too: the records are samples of P(X, Y). settings: those of
        the family's sampling, such as steps=18. Raises BadConfig CONFIG_KEY for others.
        """
        if not isinstance(n, int) or n < 1:
            raise BadConfig("SETTING_RANGE", f"'n' is {n!r}; it should be a whole number from 1.")
        knobs = dict(vars(build(self.family.Sampling, settings, f"sampling by {type(self.family).__name__}")))
        knobs |= {name: self._other(knobs[name]) for name in self.family.beside if knobs[name] is not None}
        noise = Noise(check_seed(seed), n, first)
        y = self._condition(condition, noise)
        with torch.inference_mode():
            x = self.family.sample(noise, y, **knobs)
        records = self.codec.decode(x, first)
        if self.label is None or y is None:
            return records
        return replace(records, columns={**records.columns, **self.label.decode(y).columns})

    def write(self, n: int = 1, prompt: Any = None, condition: Any = None, seed: int = 0, first: int = 0,
              stop: str | Sequence[str] = (), **settings: Any) -> Iterator[list[Written]]:
        """n texts that go on from a prompt, a token longer each time: see `texts.write`, also for after, regex, schema and what
        the condition may be. They are the same objects each time, as far as they are written."""
        return write(self, n, prompt, condition, seed, first, stop, **settings)

    def search(self, prompt: Any = None, condition: Any = None, beam: int = 4, tokens: int | None = None) -> Written:
        """The best text by beams that goes on from a prompt, or is the target of a condition: see `texts.search`."""
        return search(self, prompt, condition, beam, tokens)

    def sample(self, n: int, condition: Any = None, seed: int = 0, first: int = 0, **settings: Any) -> Any:
        """The same as people hold them: a list of PIL images or of texts, or a table of the frame library that the data came in
        with. Texts may have a `prompt` to go on from, and `stop` strings."""
        if isinstance(self.codec, Text):
            *_, texts = self.write(n, condition=condition, seed=seed, first=first, **settings)
            return [text.text for text in texts]
        return data.to_people(self.draw(n, condition, seed, first, **settings), self.card.get("frame", "arrow"))

    def score(self, source: Any, condition: Any = None, method: str | None = None) -> Iterator[Scored]:
        """log p(x), or log p(x | condition), block by block, in the raw units of the records; memory is bounded. method: one
        of the family's `methods`, the first where None. Raises BadConfig SETTING_RANGE for others, and NoLikelihood
        LATENT_DENSITY from a model over an autoencoder."""
        if self.codec.lossy:
            raise NoLikelihood("LATENT_DENSITY", "How probable latents are does not say how probable records are: many records "
                               "share the same latents.", "Ask the model that it was fitted over, or fit one without.")
        if method is not None:
            self.family.way(method)
        for records, x, of in self.judged(source):
            y = None if condition is None else self._condition(condition, Noise(0, len(x)))
            noise = Noise(0, len(x), records.first)
            with torch.inference_mode():
                likelihood = self.family.log_prob(x.to(self.family.device), y, noise, method)
            log_p, stderr = likelihood.log_prob.cpu(), None if likelihood.stderr is None else likelihood.stderr.cpu()
            likelihood = replace(likelihood, log_prob=log_p + self.codec.log_volume(x), stderr=stderr)
            yield Scored(records, likelihood if of is None else _together(likelihood, of, self.codec.sizes(x), len(records)))

    def log_prob(self, source: Any, condition: Any = None, method: str | None = None) -> Likelihood:
        """Nats per record, (B,): log mass where values are whole or 8-bit, log density in raw units elsewhere."""
        parts = [scored.likelihood for scored in self.score(source, condition, method)]
        if not parts:
            raise BadData("DATA_EMPTY", "No record of the source can be scored.", _first(self.problems))
        stderr = torch.cat([p.stderr for p in parts if p.stderr is not None]) if parts[0].stderr is not None else None
        sizes = torch.cat([torch.as_tensor(p.coordinates).expand(len(p.log_prob)) for p in parts])
        return replace(parts[0], log_prob=torch.cat([p.log_prob for p in parts]), stderr=stderr,
                       coordinates=sizes if any(isinstance(p.coordinates, Tensor) for p in parts) else parts[0].coordinates)

    def sandwich(self, n: int = 8, seed: int = 0) -> dict[str, float]:
        """How far an estimate is to be trusted: means over n records that the model makes itself, in nats of the codec's units:
        "lower", what the estimate says, "upper", a bound from above, and "gap". Raises NoLikelihood from families without."""
        return self.family.sandwich(_number(n, "how many", 1), Noise(check_seed(seed), n))

    @property
    def classes(self) -> list[Any]:
        """The labels that the model was fitted with, in the order of `predict_proba`'s columns."""
        return list(self._labels("it has no classes", "Fit again with a label column: --label COLUMN.").classes)

    def classify(self, source: Any) -> Iterator[tuple[Records, Tensor, Tensor]]:
        """Blocks of (records, P(Y | X) (B, C), true label (B,) or -1): Bayes' rule, p(y | x) = p(x | y) p(y) / p(x)."""
        for block, parsed in self._parsed(source):
            x, of = self.codec.cut(parsed, learning=False)
            with torch.inference_mode():
                p = self.posterior(x, torch.from_numpy(of) if self.codec.windowed else None)
            yield parsed, p, self._truth(block, parsed)

    def posterior(self, x: Tensor, of: Tensor | None = None) -> Tensor:
        """P(Y | X), (B, C), of points x (B, *event) of the codec's space; or of the records that they are parts `of`, (B,)."""
        label = self._labels("it has no classes", "Fit again with a label column: --label COLUMN.")
        x = x.to(self.family.device)
        each = [self.family.log_prob(x, torch.full((len(x),), c), Noise(0, len(x))).log_prob.cpu()
                for c in range(len(label.classes))]
        log_p = torch.stack(each, dim=1)
        if of is not None:
            log_p = log_p.new_zeros(int(of[-1]) + 1, log_p.shape[1]).index_add_(0, of, log_p)
        return (log_p + self.prior(label).log()).softmax(dim=1)

    def prior(self, label: Label) -> Tensor:
        """P(Y), (C,) float64: the family's own, or the shares of the records that it learned from."""
        return label.prior if self.family.prior is None else self.family.prior

    def predict_proba(self, source: Any) -> Tensor:
        """P(Y | X), (B, C), by Bayes' rule from the model's own P(X | Y) and P(Y)."""
        parts = [probabilities for _, probabilities, _ in self.classify(source)]
        if not parts:
            raise BadData("DATA_EMPTY", "No record of the source can be classified.", _first(self.problems))
        return torch.cat(parts)

    def fill(self, source: Any, seed: int | None = None) -> Iterator[tuple[Records, Records]]:
        """Blocks of (records as given, the same with what was missing filled in): draws of the model, or its conditional
        means where `seed` is None. A label in the source is used as the condition."""
        for records, x, y in self._points(source, unknown=True):
            noise = None if seed is None else Noise(check_seed(seed), len(x), records.first)
            with torch.inference_mode():
                filled = self.family.complete(x.to(self.family.device), y if self.label is not None else None, noise)
            yield records, self.codec.decode(filled, records.first, known=records)

    def complete(self, source: Any, seed: int | None = None) -> Any:
        """The records with their missing cells or masked pixels filled in, as people hold them; see `fill`."""
        blocks = [filled for _, filled in self.fill(source, seed)]
        if not blocks:
            raise BadData("DATA_EMPTY", "No record of the source can be completed.", _first(self.problems))
        return data.to_people(data.joined(blocks), self.card.get("frame", "arrow"))

    def encode(self, source: Any) -> Tensor:
        """Latents (B, *latent) of the records, about standard normal; their labels, where there are any, are the condition.
        Raises NotInvertible from families without latents."""
        with torch.inference_mode():
            parts = [self.family.encode(x.to(self.family.device), y if self.label is not None else None).cpu()
                     for _, x, y in self._points(source)]
        if not parts:
            raise BadData("DATA_EMPTY", "No record of the source can be encoded.", _first(self.problems))
        return torch.cat(parts)

    def decoded(self, z: Tensor, condition: Any = None) -> Records:
        """The records of latents (B, *latent). Raises NotInvertible from families without latents, BadData LATENT_SHAPE."""
        with torch.inference_mode():
            x = self.family.decode(z, self._given(condition, len(z)))
        return self.codec.decode(x)

    def decode(self, z: Tensor, condition: Any = None) -> Any:
        """The same as people hold them."""
        return data.to_people(self.decoded(z, condition), self.card.get("frame", "arrow"))

    def between(self, source: Any, n: int = 8, condition: Any = None) -> Records:
        """n records on the way from the first record of the source to the second, ends included: decoded from points on the
        great circle between their latents, which keeps the length that a normal latent has (Shoemake, SIGGRAPH 1985)."""
        if n < 2:
            raise BadConfig("SETTING_RANGE", f"'n' is {n}; it should be at least 2, for both ends.")
        z = self.encode(source)
        if len(z) < 2:
            raise BadData("DATA_EMPTY", "There are fewer than two records to go between.", "Give two.")
        a, b = z[0].flatten().double(), z[1].flatten().double()
        angle = torch.arccos((a @ b / (a.norm() * b.norm()).clamp(min=1e-12)).clamp(-1 + 1e-9, 1 - 1e-9))
        s = torch.linspace(0, 1, n, dtype=torch.float64)[:, None]
        path = (((1 - s) * angle).sin() * a + (s * angle).sin() * b) / angle.sin()
        return self.decoded(path.to(z.dtype).view(n, *z.shape[1:]), condition)

    def interpolate(self, source: Any, n: int = 8, condition: Any = None) -> Any:
        """The same as people hold them."""
        return data.to_people(self.between(source, n, condition), self.card.get("frame", "arrow"))

    def crossed(self, coarse: int, fine: int, layer: int | None = None, condition: Any = None, seed: int = 0) -> Records:
        """The layout of sample number `coarse` of a seed with the styles of sample number `fine` from a layer on; without a
        layer, a record for each. All are of the class of sample `coarse`, or of the condition.
        Raises NotInvertible from families without styles."""
        streams = [Noise(check_seed(seed), 1, _number(first, "the number of a sample")) for first in (coarse, fine)]
        y, _ = (self._condition(condition, noise) for noise in streams)
        a, b = (self.family.latents(noise) for noise in streams)
        with torch.inference_mode():
            layers = range(self.family.layers, -1, -1) if layer is None else [layer]
            z = torch.cat([self.family.mixed(a, b, at) for at in layers])
            return self.codec.decode(self.family.decode(z, None if y is None else y.expand(len(z))))

    def mix(self, coarse: int, fine: int, layer: int | None = None, condition: Any = None, seed: int = 0) -> Any:
        """The same as people hold them."""
        return data.to_people(self.crossed(coarse, fine, layer, condition, seed), self.card.get("frame", "arrow"))

    def moved(self, direction: int, strengths: Sequence[float], source: Any = None, n: int = 4, condition: Any = None,
              seed: int = 0) -> Records:
        """n samples of a seed, or the records of a source, each moved along a direction of styles by every strength, in
        deviations of styles along it: the records of one after those of another."""
        for strength in strengths:
            if not abs(strength) <= FARTHEST:
                raise BadConfig("SETTING_RANGE", f"'strength' is {strength:g}; it should be from -{FARTHEST} to {FARTHEST}.",
                                "Records of a few deviations are still like those learned from.")
        if source is None:
            noise = Noise(check_seed(seed), _number(n, "how many", 1))
            y = self._condition(condition, noise)
            z = self.family.latents(noise)
        else:
            z, y = self._inverted(source, condition)
        with torch.inference_mode():
            x = self.family.edited(z, direction, torch.tensor(list(strengths), dtype=torch.float32), y)
        return self.codec.decode(x.flatten(0, 1))

    def _inverted(self, source: Any, condition: Any) -> tuple[Tensor, Tensor | None]:
        """Latents of the records of a source, and what they were found under: the condition, else their labels."""
        latents, labels = [], []
        with torch.inference_mode():
            for _, x, y in self._points(source):
                labels.append(y if condition is None else self._given(condition, len(x)))
                latents.append(self.family.encode(x.to(self.family.device), None if self.label is None else labels[-1]))
        if not latents:
            raise BadData("DATA_EMPTY", "No record of the source can be encoded.", _first(self.problems))
        return torch.cat(latents), None if self.label is None else torch.cat([y for y in labels if y is not None])

    def edit(self, direction: int, strengths: Sequence[float] = (-3, -2, -1, 0, 1, 2, 3), source: Any = None, n: int = 4,
             condition: Any = None, seed: int = 0) -> Any:
        """The same as people hold them."""
        return data.to_people(self.moved(direction, strengths, source, n, condition, seed), self.card.get("frame", "arrow"))

    @property
    def likelihood_kind(self) -> Kind:
        """ "exact", "bound" or "estimate": what log_prob gives where no method is asked for."""
        kind = self.family.likelihood
        return "estimate" if kind == "none" else kind

    def evaluate(self, source: Any, metrics: Sequence[str] | None = None, features: str = "auto", n: int | None = None,
                 seed: int = 0, **sampling: Any) -> "Report":
        """What the model makes, held against records that it has not seen, by every measure that fits, each with its interval;
        and how probable these records are. See `reference.Reference`, whose arguments these are."""
        from .reference import Reference  # measures are heavy, and loaded where one is asked for
        reference = Reference(source, metrics=metrics, features=features, n=n, seed=seed, codec=self.codec, labels=self.label,
                              read=self.card.get("read"))
        return reference.judge(self, seed=seed, **sampling).report

    def audit(self, train: Any, held_out: Any = None, n: int | None = None, seed: int = 0, **settings: Any) -> "AuditReport":
        """Whether the model copies: what it makes against what it learned from (train) and what it has not seen (held_out, or
        the part of `train` that it held out itself), and whether its scores tell the two apart. n : records to make.
        settings : those of `safety.audit`. Raises BadData AUDIT_HELD_OUT, and what the audit raises."""
        from .auditing import audited
        return audited(self, train, held_out, n=n, seed=seed, **settings).report

    def describe(self) -> dict[str, Any]:
        """Family, space, settings, what the codec inferred, and the card: data manifest and training history."""
        return {
            "family": self.card.get("family", type(self.family).__name__), "likelihood": self.family.likelihood,
            "settings": plain(self.family.config), "space": space_plain(self.codec.space),
            "classes": None if self.label is None else self.classes, "columns": self.codec.describe(), **self.card,
        }

    def save(self, path: str | Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Writes model.json, weights.safetensors and card.json; the folder holds the old model or the new, never half.
        state : tensors to write in place of the family's own."""
        model = {"verossim": __version__, **family_plain(self.family, self.card.get("family")),
                 "codec": codec_plain(self.codec), "label": self.label and codec_plain(self.label)}
        model |= {"base": self.base} if self.base else {}
        tensors = {**(state or self.family.state_dict()), **codec_tensors(self.codec)}
        self.sha256 = store.save(path, model, tensors, self.card)

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu", base: str | Path | None = None, apart: bool = False) -> "Model":
        """A saved model, or that of a run's folder. Low-rank adapters are merged into the model that they rest on, which is at
        `base`, or where it was, or beside them; or, with `apart`, stay as they are. Raises CorruptStore where a file is
        damaged, from a newer version, or not ours, CKPT_BASE where adapters lack their model."""
        stored = store.load(path)
        model = stored.model
        try:
            family = stored_family(stored, path, base, apart)
            codec = codec_from(model["codec"], stored.tensors, path, device)
            label: Label | None = model["label"] and codec_from(model["label"], {}, path)
        except (KeyError, TypeError) as error:
            raise CorruptStore("CKPT_FORMAT", f"{path}: model.json lacks or misuses {error}.") from error
        loaded = cls(codec, family.to(device), label, stored.card)
        loaded.sha256, loaded.base = stored.sha256, model.get("base") if apart else None
        return loaded

    def _other(self, folder: str) -> Family:
        """The family of another saved model, read once, where this one's is."""
        if folder not in self.others:
            self.others[folder] = Model.load(folder, str(self.family.device)).family
        return self.others[folder]

    def _labels(self, lacking: str, hint: str) -> Label:
        """The label codec. Raises Incompatible NOT_CONDITIONAL where there is none."""
        if self.label is None:
            raise Incompatible("NOT_CONDITIONAL", f"This model was fitted without labels, so {lacking}.", hint)
        return self.label

    def _condition(self, condition: Any, noise: Noise) -> Tensor | None:
        """Labels as tokens (B,): the one that was asked for, or drawn from the class prior."""
        if self.label is None or condition is not None:
            return self._given(condition, len(noise))
        label = self.label
        edges = self.prior(label).cumsum(0)[:-1]
        return torch.bucketize(noise.uniform(dtype=torch.float64), edges, right=True)

    def _given(self, condition: Any, count: int) -> Tensor | None:
        """One label `count` times as tokens (B,), or None for none."""
        if condition is None:
            return None
        label = self._labels("it takes no condition", "Leave the condition out, or fit again with a label column.")
        value = next(iter(condition.values())) if isinstance(condition, Mapping) else condition
        return torch.full((count,), label.index(value))

    def _points(self, source: Any, unknown: bool = False) -> Iterator[tuple[Records, Tensor, Tensor]]:
        """Blocks of (parsed records, x (B, *event), label (B,) or -1) of anything that `open_source` opens."""
        for block, parsed in self._parsed(source, unknown):
            yield parsed, self.codec.encode(parsed, unknown), self._truth(block, parsed)

    def _truth(self, block: Records, parsed: Records) -> Tensor:
        """The labels (B,) of what was parsed of a block; -1 where there is none."""
        y = torch.full((len(block),), -1) if self.label is None else self.label.encode(block)
        return y[data.rows_of(block, parsed)]

    def judged(self, source: Any) -> Iterator[tuple[Records, Tensor, Tensor | None]]:
        """Blocks of (parsed records, points x (W, *event), which record (W,) each is of); None where each is of its own."""
        for _, parsed in self._parsed(source):
            x, of = self.codec.cut(parsed, learning=False)
            yield parsed, x, torch.from_numpy(of) if self.codec.windowed else None

    def _parsed(self, source: Any, unknown: bool = False) -> Iterator[tuple[Records, Records]]:
        """Blocks as they are read, and parsed; of these none is empty."""
        column = None if self.label is None else self.label.config.column
        opened = data.open_source(source, modality=self.codec.modality, beside=column, **self.card.get("read", {}))
        found: list[Problem] = []
        for block in data.whole(opened.blocks()):
            parsed = self.codec.parse(features(block, opened.label, column, self.card.get("weight")), found, unknown)
            if len(parsed):
                yield block, parsed
            del found[PROBLEMS:]
        self.problems = [*opened.problems, *found]


def _together(likelihood: Likelihood, of: Tensor, sizes: Tensor, count: int) -> Likelihood:
    """The likelihood of `count` records from that of the points they were cut into, which record (W,) each is of."""
    log_p = likelihood.log_prob.new_zeros(count, dtype=torch.float64).index_add_(0, of, likelihood.log_prob.double())
    each = torch.zeros(count, dtype=torch.int64).index_add_(0, of, sizes).clamp(min=1)
    return replace(likelihood, log_prob=log_p, coordinates=each)


def features(block: Records, *aside: str | None) -> Records:
    """A block less its label and weight, where it has any."""
    return block.without(*(name for name in aside if name is not None))


def _number(value: int, what: str, least: int = 0) -> int:
    """The value, if it is at least so much. Raises BadConfig SETTING_RANGE."""
    if value < least:
        raise BadConfig("SETTING_RANGE", f"{value} was given as {what}; it should be at least {least}.")
    return value


def _first(problems: list[Problem]) -> str:
    return f"The first problem: {problems[0].message} {problems[0].hint}".rstrip() if problems else ""
