"""Diversity of texts: do made texts repeat each other, repeat themselves, or use fewer words than real ones?

Sources: Zhu et al., "Texygen" (SIGIR 2018) for self-BLEU; Papineni et al., "BLEU" (ACL 2002), smoothed as Chen and Cherry
(WMT 2014), method 3; Li et al., "A diversity-promoting objective" (NAACL 2016) for distinct-n; Efron and Stein, "The jackknife
estimate of variance" (1981); Good (Biometrika 1953) for how fast new n-grams come.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..config import knob
from ..errors import BadData
from ..intervals import LEVEL, Interval, bootstrap, of_mean, p_value
from ..spaces import Records
from . import Metric, Quantity, Sample

__all__ = ["MEMBER", "Diversity", "DiversityConfig", "bleu", "distinct", "matched", "self_bleu"]

ORDERS = (1, 2, 3, 4)
TOKEN = {"word": re.compile(r"\w+|[^\w\s]"), "character": re.compile(r"\S")}
GROUPS, ROUNDS = 20, 400


@dataclass(frozen=True, kw_only=True)
class DiversityConfig:
    """Settings of the diversity of texts."""

    unit: str = knob("word", "what n-grams are made of: words with marks apart, or characters, for scripts without spaces",
                     choices=("word", "character"))
    texts: int = knob(200, "most texts a side that self-BLEU draws, each against all the others", low=2, high=5000)
    tokens: int = knob(200_000, "most tokens a side that distinct-n counts", low=100, high=100_000_000)


class Diversity(Metric):
    """Self-BLEU and distinct-n of both sides, n-grams repeated within a text, and length."""

    Config = DiversityConfig
    sees = "text"
    gives = (
        Quantity("self_bleu", "lower", "how much made texts resemble each other: the mean BLEU of each against the others; 1 "
                 "where all are one text", "Texts of random words have it low; what matters is how near it comes to "
                 "self_bleu_real. It grows with the number of texts, so both sides have as many."),
        Quantity("self_bleu_real", "neither", "the same of as many real texts: the level to come near",
                 "It says nothing of what was made."),
        *(Quantity(f"distinct_{n}", "higher", f"distinct {n}-grams of all made texts over their tokens",
                   "It falls as texts grow longer or more, whatever their quality; compare distinct_"
                   f"{n}_ratio where numbers of tokens differ.") for n in ORDERS[:3]),
        *(Quantity(f"distinct_{n}_ratio", "neither", f"distinct {n}-grams of made texts over those of real ones, both cut to "
                   "the same number of tokens; 1 is as rich as real", "Above 1 may be noise: misspelt words count as new ones.")
          for n in ORDERS[:3]),
        Quantity("repetition", "lower", "mean share of 4-grams of a made text that it had already said",
                 "Repetition across texts (see self_bleu), and of meaning in other words."),
        Quantity("repetition_real", "neither", "the same of real texts; the p-value of repetition compares the two",
                 "It says nothing of what was made."),
        Quantity("length_ratio", "neither", "mean tokens of a made text over those of a real one; 1 is as long as real",
                 "The spread of lengths."),
    )

    def compare(self, real: Sample, made: Sample, rng: np.random.Generator) -> dict[str, Interval]:
        """Raises BadData METRIC_VALUE for what is no text, METRIC_EMPTY where a side has no token."""
        x, y = (tokens_of(side, self.config.unit, what) for side, what in ((real, "real"), (made, "made")))
        k = min(self.config.texts, len(x), len(y))
        pools = [[side[row] for row in rng.choice(len(side), k, replace=False)] for side in (x, y)]
        orders = [[side[row] for row in rng.permutation(len(side))] for side in (x, y)]
        most = min(self.config.tokens, *(sum(map(len, side)) for side in (x, y)))
        cut = [_first(side, most) for side in orders]
        whole = _first(orders[1], self.config.tokens)
        out = {"self_bleu_real": _grouped(pools[0], rng), "self_bleu": _grouped(pools[1], rng)}
        for n in ORDERS[:3]:
            out[f"distinct_{n}"] = _distinct_interval(whole, n)
            out[f"distinct_{n}_ratio"] = _ratio(_distinct_interval(cut[1], n), _distinct_interval(cut[0], n))
        repeated = [np.array([_repeated(text) for text in side]) for side in (x, y)]
        out["repetition_real"], again = of_mean(repeated[0]), of_mean(repeated[1])
        out["repetition"] = Interval(again.value, again.low, again.high, _permuted(repeated[0], repeated[1], rng))
        lengths = [np.array([len(text) for text in side], dtype=np.float64) for side in (x, y)]
        found = bootstrap(lambda i, j: float(lengths[1][j].mean() / max(lengths[0][i].mean(), 1e-12)),
                          (len(x), len(y)), rng, ROUNDS)
        out["length_ratio"] = Interval(found.value, found.low, found.high, _permuted(lengths[0], lengths[1], rng))
        return out

    def notes(self, real: Sample, made: Sample) -> Sequence[str]:
        """Texts without a token, and how BLEU was smoothed."""
        told = ["BLEU of up to 4-grams, smoothed exponentially (Chen and Cherry 2014, method 3), over orders that a text has"]
        for side, what in ((real, "real"), (made, "made")):
            empty = sum(not text for text in tokens_of(side, self.config.unit, what))
            if empty:
                told.append(f"{empty:,} of {len(side):,} {what} texts are empty")
        return told


def tokens_of(side: Sample, unit: str, what: str) -> list[list[str]]:
    """The tokens of each text. Raises BadData METRIC_VALUE or METRIC_EMPTY."""
    texts = side.records.columns["text"] if side.records is not None else ()
    out = []
    for row, text in enumerate(texts):
        if isinstance(text, bytes):
            text = text.decode("utf-8", errors="replace")
        if not isinstance(text, str):
            raise BadData("METRIC_VALUE", f"The {what} record {row + 1} is no text but of type {type(text).__name__}.",
                          "Give str, or bytes in UTF-8.")
        out.append(TOKEN[unit].findall(text))
    if not any(out):
        raise BadData("METRIC_EMPTY", f"All {len(out):,} {what} texts are empty.", "Give texts with at least one word.")
    return out


def matched(real: Records, made: Records, unit: str = "word") -> tuple[Records, Records]:
    """Both sides with texts cut so that their lengths are distributed alike: the text at each rank of length is cut to the
    shorter of what the two sides have there. What compares texts by features should see these."""
    sides = [list(side.columns["text"]) for side in (real, made)]
    places = [[[found.end() for found in TOKEN[unit].finditer(text)] for text in side] for side in sides]
    lengths = [np.array([len(ends) for ends in side]) for side in places]
    out: list[list[str]] = []
    for side, own, length, other in zip(sides, places, lengths, lengths[::-1], strict=True):
        rank = np.empty(len(length))
        rank[np.argsort(length, kind="stable")] = (np.arange(len(length)) + 0.5) / len(length)
        most = np.minimum(length, np.quantile(other, rank, method="inverted_cdf").astype(int))
        out.append([text[:ends[limit - 1]] if limit else "" for text, ends, limit in zip(side, own, most, strict=True)])
    return real.with_columns(text=out[0]), made.with_columns(text=out[1])


def bleu(text: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Sentence BLEU in [0, 1] of tokens against several references: BP (prod_n p_n)^(1/N), N at most 4 and at most its length.

    p_n = n-grams found, each at most as often as one reference has it, over all; the i-th order of which none is found has
    2^-i / all. BP = exp(1 - r / c) where the text's c tokens are fewer than those of the nearest reference, r. Equal to
    sacrebleu's sentence score of the same tokens (smooth_method "exp", effective_order).
    """
    found, whole = [], []
    for n in ORDERS:
        most: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            most |= _grams(reference, n)
        own = _grams(text, n)
        found.append(sum((own & most).values()))
        whole.append(sum(own.values()))
    r = min((len(reference) for reference in references), key=lambda length: (abs(length - len(text)), length))
    return float(_score(np.array([found]), np.array([whole]), np.array([len(text)]), np.array([r]))[0])


def self_bleu(texts: Sequence[Sequence[str]]) -> float:
    """The mean BLEU of each text, as tokens, against all the others."""
    return _Pool(texts).value(np.ones(len(texts), dtype=bool))


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Distinct n-grams of texts, as tokens, over all their tokens (Li et al. 2016, section 5)."""
    return _distinct_interval(texts, n).value


class _Pool:
    """Texts with their n-grams counted once, so that self-BLEU of any part of them is quick.

    Rows (gram, text, count) lie by gram, the highest count first: the most that another text has of a gram is then the first
    row of that gram, or for the text of that row the second.
    """

    def __init__(self, texts: Sequence[Sequence[str]]):
        self.lengths = np.array([len(text) for text in texts])
        self.tables = [_table(texts, n) for n in ORDERS]

    def value(self, kept: np.ndarray) -> float:
        """Self-BLEU of the texts in the mask `kept` (K,)."""
        K = len(kept)
        found = np.zeros((K, len(ORDERS)))
        for n, (gram, text, count) in zip(ORDERS, self.tables, strict=True):
            here = kept[text]
            gram, text, count = gram[here], text[here], count[here]
            first = np.ones(len(gram), dtype=bool)
            first[1:] = gram[1:] != gram[:-1]
            start = np.flatnonzero(first)
            second = np.zeros(len(gram), dtype=count.dtype)
            second[:-1] = np.where(first[1:], 0, count[1:])
            others = np.where(first, second, count[start][np.cumsum(first) - 1])
            found[:, n - 1] = np.bincount(text, np.minimum(count, others), K)
        whole = np.maximum(self.lengths[:, None] - np.array(ORDERS) + 1, 0)
        c = self.lengths[kept]
        return float(_score(found[kept], whole[kept], c, _nearest(c)).mean())


def _table(texts: Sequence[Sequence[str]], n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(gram, text, count), an entry a distinct n-gram of a text, by gram, the highest count first."""
    gram, text = _numbered(texts, n)
    pairs, count = np.unique(gram * max(len(texts), 1) + text, return_counts=True)
    gram, text = np.divmod(pairs, max(len(texts), 1))
    order = np.lexsort((-count, gram))
    return gram[order], text[order], count[order]


def _numbered(texts: Sequence[Sequence[str]], n: int) -> tuple[np.ndarray, np.ndarray]:
    """The n-grams of all texts as numbers from 0, and the text that each stands in; none goes over the end of a text."""
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    number: dict[str, int] = {}
    token = np.array([number.setdefault(t, len(number)) for text in texts for t in text], dtype=np.int64)
    left = (np.cumsum(lengths).repeat(lengths) - np.arange(len(token)))    # tokens from here to the end of the text
    gram = token
    for k in range(1, n):
        gram = np.unique(gram * len(number) + np.roll(token, -k), return_inverse=True)[1]
    fits = left >= n
    return gram[fits], np.arange(len(texts)).repeat(lengths)[fits]


def _score(found: np.ndarray, whole: np.ndarray, c: np.ndarray, r: np.ndarray) -> np.ndarray:
    """BLEU (K,) from n-grams found and all (K, 4), lengths (K,) and those of the nearest reference (K,)."""
    there = whole > 0
    missed = there & (found == 0)
    p = np.where(missed, 0.5 ** np.cumsum(missed, axis=1), found) / np.maximum(whole, 1)
    logs = np.log(p, out=np.zeros(p.shape), where=there).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    brevity = np.minimum(0.0, 1 - r / np.maximum(c, 1))
    return np.where(found.any(axis=1), np.exp(logs + brevity), 0.0)


def _nearest(lengths: np.ndarray) -> np.ndarray:
    """For each length the nearest of the others, the shorter of two."""
    apart = np.abs(lengths[:, None] - lengths[None]) * 2 + (lengths[None] > lengths[:, None])
    np.fill_diagonal(apart, np.iinfo(apart.dtype).max)
    return lengths[apart.argmin(axis=1)]


def _grams(text: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(text[k:k + n]) for k in range(len(text) - n + 1))


def _grouped(texts: Sequence[Sequence[str]], rng: np.random.Generator) -> Interval:
    """Self-BLEU with its interval by the jackknife over GROUPS groups of texts, each left out as texts and as references."""
    from scipy.stats import t
    K, pool = len(texts), _Pool(texts)
    value = pool.value(np.ones(K, dtype=bool))
    if K < 4:
        return Interval(value)
    groups = np.array_split(rng.permutation(K), min(GROUPS, K))
    left = np.array([pool.value(~np.isin(np.arange(K), group)) for group in groups])
    G = len(groups)
    reach = t.ppf((1 + LEVEL) / 2, G - 1) * ((G - 1) / G * np.square(left - left.mean()).sum()) ** 0.5
    return Interval(value, float(max(value - reach, 0)), float(min(value + reach, 1)))


def _first(texts: Sequence[Sequence[str]], most: int) -> list[Sequence[str]]:
    """The first `most` tokens, as whole texts and one that is cut."""
    out: list[Sequence[str]] = []
    for text in texts:
        if most <= 0:
            break
        out.append(text[:most])
        most -= len(text)
    return out


def _distinct_interval(texts: Sequence[Sequence[str]], n: int) -> Interval:
    """D / T, D distinct n-grams of T tokens. Resampling texts would repeat their n-grams and make D too small, so the variance
    is the jackknife's: D falls by u_i, the n-grams that no other text has, when text i of t_i tokens goes. At a fixed T that
    counts only as it differs from t_i dD/dT, with dD/dT = sum u / T (Good 1953). The jackknife never makes it too small on
    average (Efron and Stein 1981): the interval is rather wide."""
    from scipy.stats import t
    gram, text = _numbered(texts, n)
    lengths = np.array([len(tokens) for tokens in texts], dtype=np.float64)
    N, T = len(texts), max(lengths.sum(), 1.0)
    pairs = np.unique(gram * N + text)
    kinds, first, count = np.unique(pairs // N, return_index=True, return_counts=True)
    u = np.bincount(pairs[first[count == 1]] % N, minlength=N)
    value = float(len(kinds) / T)
    if N < 2:
        return Interval(value)
    spread = (N / (N - 1) * np.square(u - lengths * u.sum() / T).sum()) ** 0.5 / T
    reach = t.ppf((1 + LEVEL) / 2, N - 1) * spread
    return Interval(value, float(max(value - reach, 0)), float(min(value + reach, 1)))


def _ratio(made: Interval, real: Interval) -> Interval:
    """made / real of independent numbers: the variances of their logarithms add up."""
    if not real.value or not made.value:
        return Interval(made.value / real.value if real.value else 1.0)
    value = float(made.value / real.value)
    if None in (made.high, real.high):
        return Interval(value)
    a, b = (max(side.high - side.value, side.value - side.low) / side.value  # type: ignore[operator]
            for side in (made, real))    # the end that is not cut at 0 or 1
    reach = float(np.hypot(a, b))
    return Interval(value, value * float(np.exp(-reach)), value * float(np.exp(reach)))


def _repeated(text: Sequence[str]) -> float:
    """The share of its 4-grams that a text had already said; 0 where it has none."""
    grams = _grams(text, 4)
    return 1 - len(grams) / grams.total() if grams else 0.0


def _permuted(real: np.ndarray, made: np.ndarray, rng: np.random.Generator) -> float:
    """The p-value of the difference of two means."""
    pool, n = np.concatenate([real, made]), len(real)

    def apart(values: Any) -> float:
        return abs(values[:n].mean() - values[n:].mean())
    return p_value(apart(pool) * (1 - 1e-12), np.array([apart(rng.permutation(pool)) for _ in range(ROUNDS)]))


MEMBER = Diversity
