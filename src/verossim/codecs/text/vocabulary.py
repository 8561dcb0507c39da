"""Tokens of text: single bytes, or pairs of tokens joined again and again (byte-level BPE), and special tokens beside them.

    bytes   token b is the byte b
    bpe     Sennrich, Haddow and Birch, "Neural machine translation of rare words with subword units", arXiv:1508.07909; over
            bytes as GPT-2 has it (Radford et al., 2019): all 256 are tokens, so that any string of bytes can be written

Special tokens stand after the ordinary ones. No text is encoded to one, whatever it says.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

__all__ = ["BYTES", "SPECIALS", "Vocabulary", "trained"]

#: What begins and ends a document, and stands for nothing; who speaks, and the end of what they say; what stands between a
#: condition and its target; what the three parts of a text with a gap begin with: before it, after it, and what fills it.
SPECIALS = ("start", "stop", "system", "user", "assistant", "end", "then", "before", "after", "middle", "pad")

KNOWN = 8 << 20  # characters of chunks whose tokens are remembered, 64 more counted for each
_VISIBLE = (*range(33, 127), *range(161, 173), *range(174, 256))
#: The letter that stands for each byte in a tokenizer.json: itself where it can be seen, else one from 256 on, in order.
LETTERS = {byte: chr(byte) for byte in _VISIBLE} | {
    byte: chr(256 + number) for number, byte in enumerate(byte for byte in range(256) if byte not in _VISIBLE)}
BYTES = {letter: byte for byte, letter in LETTERS.items()}
_SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
#: Where GPT-2's expression parts words, digits and signs, it parts these first: no token reaches over the edge of one.
_CHUNK = re.compile(f" ?[^{_SPACE}]+|[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+")
_STRAY = re.compile("[\udc80-\udcff]+")


class Vocabulary:
    """Ordinary tokens. `pieces` are the bytes of each; `pairs` is the tokenizer.json of a BPE, "" where tokens are bytes.

    special : numbers of special tokens by name, where these stand among the others (see `adopted`).
    """

    special: dict[str, int] | None = None

    def __init__(self, pairs: str = ""):
        self.pairs = pairs
        self.pieces = [bytes([byte]) for byte in range(256)]
        self.letters = np.arange(256, dtype=np.int32)  # the token of each byte by itself
        if pairs:
            from tokenizers import Tokenizer
            self.tokenizer = Tokenizer.from_str(pairs)
            tokens: dict[str, int] = self.tokenizer.get_vocab(with_added_tokens=False)
            self.pieces = [bytes(map(BYTES.__getitem__, token)) for token in sorted(tokens, key=tokens.__getitem__)]
            self.known: dict[str, bytes] = {}
            self.weight = 0
            self.letters = np.array([tokens[LETTERS[byte]] for byte in range(256)], np.int32)

    def __len__(self) -> int:
        return len(self.pieces)

    def encode(self, texts: list[bytes]) -> list[np.ndarray]:
        """The tokens (N,) int32 of each text."""
        if not self.pairs:
            return [np.frombuffer(text, np.uint8).astype(np.int32) for text in texts]
        return [self._encoded(_CHUNK.findall(text.decode(errors="surrogateescape"))) for text in texts]

    def _encoded(self, chunks: list[str]) -> np.ndarray:
        """The tokens of a text from its chunks, each of which is encoded when it is met for the first time."""
        new = list(set(chunks).difference(self.known))
        self.weight += sum(map(len, new)) + 64 * len(new)
        if self.weight > KNOWN:
            self.known, new = {}, list(set(chunks))
            self.weight = sum(map(len, new)) + 64 * len(new)
        self.known.update(zip(new, self._tokens(new), strict=True))
        return np.frombuffer(b"".join(map(self.known.__getitem__, chunks)), np.int32).copy()

    def _tokens(self, chunks: list[str]) -> Iterator[bytes]:
        """Those of each chunk as int32: in UTF-8 all at once; one that is not, between its stray bytes, each a token."""
        stray = [_STRAY.search(chunk) is not None for chunk in chunks]
        whole = [chunk for chunk, is_stray in zip(chunks, stray, strict=True) if not is_stray]
        encodings = iter(self.tokenizer.encode_batch_fast(whole, add_special_tokens=False))
        for chunk, is_stray in zip(chunks, stray, strict=True):
            tokens = self._mixed(chunk) if is_stray else next(encodings).ids
            yield np.array(tokens, np.int32).tobytes()

    def _mixed(self, chunk: str) -> list[int]:
        runs = [self.tokenizer.encode(run, add_special_tokens=False).ids for run in _STRAY.split(chunk)]
        stray = [self.letters[list(run.encode(errors="surrogateescape"))].tolist() for run in _STRAY.findall(chunk)]
        return [token for pair in zip(runs, [*stray, []], strict=True) for run in pair for token in run]

    def written(self, specials: Iterable[str]) -> str:
        """A tokenizer.json (Hugging Face) with these special tokens added after the ordinary ones, in order, of which the first
        is put before every text."""
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
        if self.pairs:
            tokenizer = Tokenizer.from_str(self.pairs)
        else:
            tokenizer = Tokenizer(models.BPE({LETTERS[byte]: byte for byte in range(256)}, []))
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            tokenizer.decoder = decoders.ByteLevel()
        named = [f"<|{name}|>" for name in specials]
        tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in named])
        tokenizer.post_processor = processors.TemplateProcessing(f"{named[0]} $A", None, [(named[0], len(self))])
        return tokenizer.to_str()


def trained(texts: Iterable[bytes], size: int) -> Vocabulary:
    """A BPE of at most `size` tokens; fewer where no pair occurs twice any more. The same texts give the same tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=2, initial_alphabet=sorted(LETTERS.values()),
                                  special_tokens=[], show_progress=False)
    tokenizer.train_from_iterator((text.decode(errors="replace") for text in texts), trainer)
    return Vocabulary(tokenizer.to_str())
