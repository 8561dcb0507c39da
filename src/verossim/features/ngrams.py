"""Texts as vectors without any weights: what n-grams of characters and what words they are made of.

    c    counts of n-grams of 1 to 4 characters, and of 1 to 3 words and signs in a row, which tell who did what, each hashed to
         a place (Weinberger et al., "Feature hashing for large scale multitask learning", arXiv:0902.2206)
    f    log(1 + c) idf, of each kind with length 1; idf = log((1 + N) / (1 + documents with it)) + 1 over the reference
    x    R f, with R random signs (Achlioptas, "Database-friendly random projections", JCSS 2003), and log(1 + characters) / 10

R follows from the name of these features alone and is the same on every machine. Vectors are close where spelling and
words are alike, whatever the meaning.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.feature_extraction import FeatureHasher

from ..config import knob
from ..seeds import mixed
from ..spaces import Records
from . import Features, blocks, hash_of, modality_of, texts_of

__all__ = ["MEMBER", "Ngrams", "NgramsConfig"]

LONGEST, WORDS = 4, 3  # characters, and words, of an n-gram
PLACES = 1 << 14  # of each kind
WORD = re.compile(r"\w+|[^\w\s]")
BLOCK = 256  # texts at a time


@dataclass(frozen=True, kw_only=True)
class NgramsConfig:
    """Settings of n-grams."""

    dims: int = knob(256, "numbers that the counts are projected to", low=8, high=1024)


class Ngrams(Features):
    """Texts -> (N, dims + 1) float64."""

    Config = NgramsConfig
    modalities = ("text",)

    def fit(self, records: Records, labels: np.ndarray | None = None, seed: int = 0) -> "Ngrams":
        """Counts in how many texts each n-gram and word is. Raises Incompatible FEATURES_MODALITY, BadData DATA_EMPTY."""
        modality_of(records, self.modalities, "ngrams")
        found = np.zeros(2 * PLACES)
        for block in blocks(records, BLOCK):
            found += np.concatenate([np.bincount(counts.indices, minlength=PLACES) for counts in _counts(texts_of(block))])
        self.idf = np.log((1 + len(records)) / (1 + found)) + 1
        return self

    def __call__(self, records: Records) -> np.ndarray:
        """(N, dims + 1) float64."""
        modality_of(records, self.modalities, "ngrams")
        return np.concatenate([self._vectors(texts_of(block)) for block in blocks(records, BLOCK)])

    def _vectors(self, texts: list[str]) -> np.ndarray:
        kinds = []
        for counts, idf in zip(_counts(texts), np.split(self.idf, 2), strict=True):
            f = scipy.sparse.csr_array(counts.log1p().multiply(idf))
            lengths = np.sqrt(np.asarray(f.multiply(f).sum(axis=1)).ravel())
            kinds.append(scipy.sparse.diags_array(1 / np.where(lengths > 0, lengths, 1)) @ f)
        x = scipy.sparse.hstack(kinds, format="csr") @ self.R
        return np.column_stack([x, np.log1p([len(text) for text in texts]) / 10])

    @cached_property
    def R(self) -> np.ndarray:
        """Random signs over the root of dims, (places, dims): E |R f|^2 = |f|^2."""
        dims, entries = self.config.dims, 2 * PLACES * self.config.dims
        start = int.from_bytes(hashlib.sha256(b"ngrams").digest()[:8], "little")
        words = mixed(np.uint64(start) + np.arange(-(-entries // 64), dtype=np.uint64))
        bits = np.unpackbits(words.astype("<u8").view(np.uint8))[:entries].reshape(2 * PLACES, dims)
        return (2 * bits.astype(np.float64) - 1) / dims ** 0.5

    @property
    def hash(self) -> str:
        """Of the number of dimensions and the frequencies of the reference."""
        return hash_of("ngrams", self.config.dims, self.idf)


def _counts(texts: list[str]) -> tuple[Any, Any]:
    """Counts (N, places) of n-grams and of words, sparse."""
    hasher = FeatureHasher(PLACES, input_type="string", alternate_sign=False)
    return tuple(hasher.transform(_grams(parts(text), longest) for text in texts)
                 for parts, longest in ((str, LONGEST), (WORD.findall, WORDS)))


def _grams(parts: str | list[str], longest: int) -> Iterator[str]:
    """Runs of up to so many characters, or words."""
    return (" ".join(parts[i:i + n]) for n in range(1, longest + 1) for i in range(len(parts) - n + 1))


MEMBER = Ngrams
