"""Which tokens may come next, so that what is written matches a regular expression or a JSON schema (by `llguidance`).

After each token, those are allowed with which the text can still become a match; the end only where it is one. The bits of a
token's probability are then those of p over its sum over what is allowed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import BadConfig, MissingExtra, printable

__all__ = ["Ruled"]


class Ruled:
    """What `count` texts may go on with. pieces : the bytes of each token, empty for special ones; stop : the token that ends a
    text. Raises BadConfig RULE where the expression or the schema is none, MissingExtra."""

    def __init__(self, pieces: Sequence[bytes], stop: int, count: int, regex: str | None, schema: str | None):
        try:
            import llguidance
        except ImportError as error:
            raise MissingExtra("EXTRA", "Writing by a rule needs the package llguidance.",
                               "Install it with: pip install 'verossim[rules]'.") from error
        special = [token for token, piece in enumerate(pieces) if not piece]
        wrapped: Any = _Tokens([piece or b"\xff" + f"<{token}>".encode() for token, piece in enumerate(pieces)], stop, special)
        tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(wrapped), slices=[])
        try:
            grammar = llguidance.LLMatcher.grammar_from_regex(regex) if regex is not None else \
                llguidance.LLMatcher.grammar_from_json_schema(schema or "", overrides={"whitespace_pattern": " ?"})
        except ValueError as error:
            raise self._refused(error, schema) from error
        first = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
        if first.is_error():
            raise self._refused(first.get_error(), regex if regex is not None else schema)
        self.matchers = [first.deep_copy() for _ in range(count)]
        self.size = len(pieces)

    @staticmethod
    def _refused(why: Any, rule: str | None) -> BadConfig:
        words = printable(" ".join(str(why).split()), 200)
        return BadConfig("RULE", f"The rule {printable(rule or '', 80)!r} cannot be kept to: {words}.",
                         "Give a regular expression, or a JSON schema as an object.")

    def allowed(self, rows: Sequence[int]) -> Tensor:
        """Which tokens may come next in the texts of these numbers, (len(rows), V) bool."""
        masks = [np.frombuffer(self.matchers[row].compute_logit_bias(), np.uint8) for row in rows]
        return torch.from_numpy(np.stack(masks)[:, :self.size] > 0) if masks else torch.zeros(0, self.size, dtype=torch.bool)

    def take(self, row: int, token: int) -> None:
        """The token that was written in a text."""
        self.matchers[row].consume_token(token)


class _Tokens:
    """Tokens as llguidance asks for them."""

    def __init__(self, tokens: list[bytes], stop: int, special: list[int]):
        self.tokens, self.eos_token_id, self.bos_token_id, self.special_token_ids = tokens, stop, None, special
        self.number = {piece: token for token, piece in enumerate(tokens)}

    def __call__(self, text: bytes) -> list[int]:
        return [self.number[bytes([byte])] for byte in text if bytes([byte]) in self.number]
