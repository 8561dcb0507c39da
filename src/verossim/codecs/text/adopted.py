"""The tokens of a model that came from elsewhere, by its own tokenizer.json, whatever that does.

Its special tokens have names here where they begin or end a text, or are called as ours are. What a text says is never one.
"""

import json
import re
from collections.abc import Iterable, Mapping

import numpy as np

from ...errors import CorruptStore, Incompatible, printable
from .vocabulary import BYTES, SPECIALS, Vocabulary

__all__ = ["Adopted"]


class Adopted(Vocabulary):
    """special : numbers of tokens by their names here; size : of all tokens. The pieces of special ones are empty."""

    def __init__(self, pairs: str, special: Mapping[str, int], size: int):
        from tokenizers import Tokenizer
        super().__init__()
        try:
            self.pairs, self.tokenizer = pairs, Tokenizer.from_str(pairs)
        except Exception as error:  # tokenizers raises nothing more special
            raise CorruptStore("CKPT_FORMAT", f"tokenizer.json is damaged: {printable(str(error), 100)}.",
                               "Save the model with its tokenizer again.") from error
        bytewise = "ByteLevel" in json.dumps([json.loads(pairs).get(part) for part in ("pre_tokenizer", "decoder")])
        self.tokenizer.no_truncation()  # both may have been left as the last call before saving had them
        self.tokenizer.no_padding()
        self.tokenizer.encode_special_tokens = True
        added = self.tokenizer.get_added_tokens_decoder()
        ours = {name: self.tokenizer.token_to_id(f"<|{name}|>") for name in SPECIALS}
        self.special = {name: number for name, number in ours.items() if number is not None and number < size} | dict(special)
        self.pieces = [b""] * size
        for token, number in self.tokenizer.get_vocab(with_added_tokens=True).items():
            if number < size and number not in self.special.values() and not (number in added and added[number].special):
                self.pieces[number] = token.encode() if number in added else _said(token, bytewise)

    def encode(self, texts: list[bytes]) -> list[np.ndarray]:
        """The tokens (N,) int32 of each text; bytes that are not UTF-8 are replaced."""
        said = [text.decode(errors="replace") for text in texts]
        return [np.array(one.ids, np.int32) for one in self.tokenizer.encode_batch_fast(said, add_special_tokens=False)]

    def speaking(self) -> "Adopted":
        """The same with a token for each of SPECIALS that has none here, save the last, after all that there are. Raises
        Incompatible TEXT_SPECIAL where the tokenizer has no room for them."""
        from tokenizers import AddedToken, Tokenizer
        own = self.special or {}
        tokenizer, lacking = Tokenizer.from_str(self.pairs), [name for name in SPECIALS[:-1] if name not in own]
        before = {*tokenizer.get_vocab(with_added_tokens=True).values()}
        tokenizer.add_special_tokens([AddedToken(f"<|{name}|>", special=True, normalized=False) for name in lacking])
        numbers = tokenizer.get_vocab(with_added_tokens=True)
        added = {name: numbers[f"<|{name}|>"] for name in lacking}
        if before & {*added.values()}:
            raise Incompatible("TEXT_SPECIAL", "The tokenizer gives new tokens the numbers of others.", "Fit a model anew.")
        return Adopted(tokenizer.to_str(), {**own, **added}, max(len(self), *(n + 1 for n in added.values())))

    @property
    def used(self) -> int:
        """How many numbers the tokenizer gives away: a network may have rows beyond, which nothing was learned by."""
        return 1 + max(self.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    def written(self, specials: Iterable[str]) -> str:
        """The tokenizer.json that came with the model."""
        return self.pairs


def _said(token: str, bytewise: bool) -> bytes:
    """The bytes of a token: of letters that stand for bytes; or as SentencePiece has it, a bar for a space, <0x0A> for a
    byte."""
    if bytewise and all(letter in BYTES for letter in token):
        return bytes(map(BYTES.__getitem__, token))
    if re.fullmatch("<0x[0-9A-F]{2}>", token):
        return bytes([int(token[3:5], 16)])
    return token.replace("\u2581", " ").encode()
