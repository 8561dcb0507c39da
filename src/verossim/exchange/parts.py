"""How the tensors of a language model are called, cut and turned in other layouts.

Here queries, keys and values are the rows of one matrix, and so are gate and up of a gated MLP; elsewhere they may be matrices
of their own. GPT-2's are transposed. llama.cpp turns neighbours (x_2i, x_2i+1) of Llama's queries and keys, not halves
(x_i, x_i+P), so their rows lie in another order there.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import Incompatible
from ..nn.language import Shape
from .imported import sizes

__all__ = ["GPT2", "GPT2_GGUF", "ROTARY", "ROTARY_GGUF", "Layout", "Part", "gathered", "parts", "scattered", "stored_sizes"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Names of modules: ours to theirs, one or more of which ours is made; those within block i begin with `block` of i.

    transposed : whether matrices of blocks are (in, out). prefix : what all names but that of the head begin with, in files
    that hold the head too. spare : ends of names of what is no weight, and stands in some files.
    """

    top: Mapping[str, str]
    block: str
    inner: Mapping[str, tuple[str, ...]]
    transposed: bool = False
    prefix: str = ""
    spare: tuple[str, ...] = ()


ROTARY = Layout(
    top={"first": "model.embed_tokens", "norm": "model.norm", "last": "lm_head"},
    block="model.layers.{}.",
    inner={
        "norm_1": ("input_layernorm",), "norm_2": ("post_attention_layernorm",),
        "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "attention.out": ("self_attn.o_proj",),
        "attention.q_norm": ("self_attn.q_norm",), "attention.k_norm": ("self_attn.k_norm",),
        "mlp.inner": ("mlp.gate_proj", "mlp.up_proj"), "mlp.out": ("mlp.down_proj",),
    },
    prefix="model.", spare=(".rotary_emb.inv_freq",),
)
GPT2 = Layout(
    top={"first": "transformer.wte", "places": "transformer.wpe", "norm": "transformer.ln_f", "last": "lm_head"},
    block="transformer.h.{}.",
    inner={
        "norm_1": ("ln_1",), "norm_2": ("ln_2",), "attention.qkv": ("attn.c_attn",), "attention.out": ("attn.c_proj",),
        "mlp.inner": ("mlp.c_fc",), "mlp.out": ("mlp.c_proj",),
    },
    transposed=True, prefix="transformer.", spare=(".attn.bias", ".attn.masked_bias"),
)
ROTARY_GGUF = Layout(
    top={"first": "token_embd", "norm": "output_norm", "last": "output"},
    block="blk.{}.",
    inner={
        "norm_1": ("attn_norm",), "norm_2": ("ffn_norm",), "attention.qkv": ("attn_q", "attn_k", "attn_v"),
        "attention.out": ("attn_output",), "attention.q_norm": ("attn_q_norm",), "attention.k_norm": ("attn_k_norm",),
        "mlp.inner": ("ffn_gate", "ffn_up"), "mlp.out": ("ffn_down",),
    },
)
GPT2_GGUF = Layout(
    top={"first": "token_embd", "places": "position_embd", "norm": "output_norm", "last": "output"},
    block="blk.{}.",
    inner={**ROTARY_GGUF.inner, "attention.qkv": ("attn_qkv",), "mlp.inner": ("ffn_up",)},
)


@dataclass(frozen=True)
class Source:
    """One tensor of a file: its name, its rows as ours, whether it is transposed there, and in how many heads its rows lie as
    neighbours (0: as they are)."""

    name: str
    rows: int
    transposed: bool
    heads: int


@dataclass(frozen=True)
class Part:
    """One tensor of ours, its size, and those of a file that it is made of; none where the file has none and it is zero."""

    name: str
    size: tuple[int, ...]
    sources: tuple[Source, ...]


def parts(shape: Shape, layout: Layout, absent: frozenset[str] = frozenset(), neighbours: bool = False) -> list[Part]:
    """All tensors of LanguageModel(shape) as `layout` has them. absent : modules without biases there, though with ours;
    neighbours : whether rows of queries and keys lie as pairs of neighbours."""
    H, G, D = shape.heads, shape.groups, shape.head

    def sources(kind: str, start: str, names: tuple[str, ...], size: tuple[int, ...]) -> tuple[Source, ...]:
        cuts = (H * D, G * D, G * D) if len(names) == 3 else (size[0] // len(names),) * len(names)
        heads = (H, G, 0) if neighbours and len(names) == 3 else (0,) * len(names)
        turned = layout.transposed and start != "" and len(size) == 2
        return tuple(Source(f"{start}{name}.{kind}", rows, turned, pairs) for name, rows, pairs in
                     zip(names, cuts, heads, strict=True))

    found = []
    for name, size in sizes(shape).items():
        module, kind = name.rsplit(".", 1)
        within = module.startswith("blocks.")
        _, number, module = module.split(".", 2) if within else ("", "", module)
        start, names = (layout.block.format(number), layout.inner[module]) if within else ("", (layout.top[module],))
        gone = kind == "bias" and module in absent
        found.append(Part(name, size, () if gone else sources(kind, start, names, size)))
    return found


def stored_sizes(pieces: list[Part]) -> dict[str, tuple[int, ...]]:
    """The sizes that the tensors of a file have, by their names there."""
    found = {}
    for part in pieces:
        for source in part.sources:
            size = (source.rows, *part.size[1:])
            found[source.name] = size[::-1] if source.transposed else size
    return found


def gathered(pieces: list[Part], opened: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Our tensors, float32, from those of a file, which `opened` gives by name."""
    def ours(source: Source) -> Tensor:
        tensor = opened(source.name).to(torch.float32)
        tensor = tensor.T if source.transposed else tensor
        return tensor.unflatten(0, (source.heads, -1, 2)).transpose(1, 2).flatten(0, 2) if source.heads else tensor

    return {part.name: torch.cat([ours(source) for source in part.sources]) if part.sources else torch.zeros(part.size)
            for part in pieces}


def scattered(pieces: list[Part], tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a file, float32 and contiguous, with their names there, one after the other.

    Raises Incompatible EXPORT_SHAPE for a bias that the file has no place for and that is not zero.
    """
    for part in pieces:
        tensor = tensors[part.name].detach().to("cpu", torch.float32)
        if not part.sources and tensor.any():
            raise Incompatible("EXPORT_SHAPE", f"'biases' is 'all', and '{part.name}' is not zero: the architecture has no "
                               "such bias.", "Train with biases 'none' or without 'normed_heads' to export the model.")
        first = 0
        for source in part.sources:
            rows = tensor[first:first + source.rows]
            first += source.rows
            if source.heads:
                rows = rows.unflatten(0, (source.heads, 2, -1)).transpose(1, 2).flatten(0, 2)
            yield source.name, (rows.T if source.transposed else rows).contiguous()
