"""The tokenizer of a GGUF file: a tokenizer.json of byte-level BPE (Sennrich et al., arXiv:1508.07909) taken apart, and put
together again.

llama.cpp knows how text is cut before the merges by a name alone, so only tokenizers that cut as one of CUTS can go there.
"""

import json
from collections.abc import Mapping
from typing import Any

from ..errors import Incompatible, printable

__all__ = ["metadata_from", "tokenizer_from"]

NORMAL, CONTROL, USER, UNUSED = 1, 3, 4, 5  # kinds of tokens in GGUF
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"

#: How text is cut: name in GGUF -> the steps, and whether a piece that is a token needs no merges.
CUTS: dict[str, tuple[tuple[tuple[str, Any], ...], bool]] = {
    "gpt-2": ((("ByteLevel", True),), False),
    "smollm": ((("Digits", True), ("ByteLevel", True)), False),
    "qwen2": ((("Split", ENDINGS + WORDS + r"|\p{N}" + REST), ("ByteLevel", False)), False),
    "llama-bpe": ((("Split", ENDINGS + WORDS + r"|\p{N}{1,3}" + REST), ("ByteLevel", False)), True),
}
NO_MERGE = "(none) (none)"  # llama.cpp asks for merges; this one never applies, since no symbol has several letters


def metadata_from(tokenizer: str, vocabulary: int, start: int | None) -> dict[str, Any]:
    """Names after "tokenizer.ggml." and values, for a network of `vocabulary` tokens. Raises Incompatible EXPORT_TOKENIZER for
    a tokenizer that GGUF has no words for."""
    plain = json.loads(tokenizer)
    try:
        begins = start is not None and start in _before(plain.get("post_processor"))
        return _metadata(plain, vocabulary) | {"add_bos_token": begins}
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise _refused(f"its tokenizer.json is damaged at {printable(error)}") from error


def _metadata(plain: dict[str, Any], vocabulary: int) -> dict[str, Any]:
    model, added = plain["model"], plain.get("added_tokens") or []
    if model["type"] != "BPE" or model.get("byte_fallback") or "ByteLevel" not in json.dumps(plain.get("decoder")):
        raise _refused(f"it is no byte-level BPE but {printable(model['type'])}")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    known = _steps(plain.get("pre_tokenizer")), bool(model.get("ignore_merges"))
    cut = next((name for name, cuts in CUTS.items() if cuts == known), None if merges else "gpt-2")
    if cut is None:
        raise _refused("it cuts text in a way that llama.cpp has no name for")
    tokens = {number: (token, NORMAL) for token, number in model["vocab"].items()}
    tokens |= {t["id"]: (t["content"], CONTROL if t.get("special") else USER) for t in added}
    if max(tokens, default=-1) >= vocabulary:
        raise _refused(f"it has token {max(tokens)} and the network {vocabulary:,} tokens")
    every = [tokens.get(number, (f"[PAD{number}]", UNUSED)) for number in range(vocabulary)]
    return {"model": "gpt2", "pre": cut, "tokens": [token for token, _ in every], "token_type": [kind for _, kind in every],
            "merges": merges or [NO_MERGE]}


def tokenizer_from(metadata: Mapping[str, Any]) -> str | None:
    """The text of a tokenizer.json, from names after "tokenizer.ggml." and values; None where it is no byte-level BPE, or cuts
    text in a way that is not known here."""
    cut, tokens = CUTS.get(str(metadata.get("pre"))), metadata.get("tokens")
    if metadata.get("model") != "gpt2" or cut is None or not isinstance(tokens, list):
        return None
    kinds = metadata.get("token_type")
    if not isinstance(kinds, list) or len(kinds) != len(tokens):
        kinds = [NORMAL] * len(tokens)
    steps, whole = cut
    ordinary = {token: number for number, token in enumerate(tokens) if kinds[number] == NORMAL}
    added = [{"id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": kinds[number] == CONTROL} for number, token in enumerate(tokens) if kinds[number] in (CONTROL, USER)]
    merges = [merge.split(" ") for merge in metadata.get("merges") or [] if merge != NO_MERGE]
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [_step(*step) for step in steps]},
        "post_processor": _first(metadata, tokens), "decoder": _step("ByteLevel", True),
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": whole,
                  "vocab": ordinary, "merges": merges},
    }, ensure_ascii=False)


def _refused(why: str) -> Incompatible:
    return Incompatible("EXPORT_TOKENIZER", f"The tokenizer cannot go into a GGUF file: {why}.",
                        "Export the model as a Hugging Face folder.")


def _steps(plain: Any) -> tuple[tuple[str, Any], ...] | None:
    """The steps of a pre-tokenizer as CUTS has them, None for others."""
    if not isinstance(plain, dict):
        return None
    kind = plain.get("type")
    if kind == "Sequence":
        inner = [_steps(step) for step in plain["pretokenizers"]]
        return None if None in inner else tuple(step for steps in inner if steps is not None for step in steps)
    if kind == "ByteLevel" and not plain.get("add_prefix_space", True):
        return (("ByteLevel", plain.get("use_regex", True)),)
    if kind == "Digits":
        return (("Digits", plain.get("individual_digits", False)),)
    if kind == "Split" and plain.get("behavior") == "Isolated" and not plain.get("invert"):
        return (("Split", plain["pattern"].get("Regex")),)
    return None


def _step(kind: str, value: Any) -> dict[str, Any]:
    """A step as tokenizer.json has it."""
    if kind == "ByteLevel":
        return {"type": kind, "add_prefix_space": False, "trim_offsets": True, "use_regex": value}
    if kind == "Digits":
        return {"type": kind, "individual_digits": value}
    return {"type": kind, "pattern": {"Regex": value}, "behavior": "Isolated", "invert": False}


def _before(plain: Any) -> list[int]:
    """The tokens that a post-processor puts before every text."""
    if not isinstance(plain, dict):
        return []
    if plain.get("type") == "Sequence":
        return [token for step in plain["processors"] for token in _before(step)]
    first = plain["single"][0].get("SpecialToken") if plain.get("type") == "TemplateProcessing" else None
    return list(plain["special_tokens"][first["id"]]["ids"]) if first else []


def _first(metadata: Mapping[str, Any], tokens: list[str]) -> dict[str, Any] | None:
    """What puts the first token before every text, where the file says so."""
    number = metadata.get("bos_token_id")
    if not metadata.get("add_bos_token") or not isinstance(number, int) or not 0 <= number < len(tokens):
        return None
    token, text = {"SpecialToken": {"id": tokens[number], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    pair = {"Sequence": {"id": "B", "type_id": 0}}
    known = {tokens[number]: {"id": tokens[number], "ids": [number], "tokens": [tokens[number]]}}
    return {"type": "TemplateProcessing", "single": [token, text], "pair": [token, text, pair], "special_tokens": known}
