"""The causal Transformer over tokens: a language model, and a shape that most published ones are points of.

    h_0 = E x (+ P at their positions)
    h <- h + attention(norm(h))        h <- h + mlp(norm(h))
    logits = norm(h) W'                W = E where tied

What stands by default is that of Qwen3 (Yang et al., arXiv:2505.09388): rotary positions (arXiv:2104.09864), keys and queries
of unit mean square (arXiv:2010.04245), RMS norms with weights (arXiv:1910.07467), SwiGLU (arXiv:2002.05202), no biases. GPT-2
(Radford et al., 2019) and Llama (arXiv:2307.09288) are other settings of the same module.

While text is written, keys and values of what stands already are kept in a `Cache`: one allocation, and a length for each
sample, so that prompts of different lengths are one batch.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import turned, turns

__all__ = ["Cache", "LanguageModel", "Shape"]

ACTIVATIONS = ("swiglu", "gelu", "gelu_tanh", "relu2")
SPREAD = 0.02  # deviation of embeddings at the start


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Everything that the network is made from.

    length : positions, at most. groups : heads that keys and values have; a divisor of `heads`. head : numbers of a head.
    inside : numbers within the MLP. base : the slowest rotation has this wavelength over 2 pi. norm : "rms" or "layer".
    activation : "swiglu"; or "gelu" (by erf), "gelu_tanh" or "relu2" (So et al., arXiv:2109.08668), which have one matrix less.
    biases : "none", "qkv" or "all". cap : logits l become cap tanh(l / cap), 0 for none. values : whether every other block
    adds an embedding of its own to its values (Zhou et al., arXiv:2410.17897, as modded-nanoGPT has it).
    """

    vocabulary: int
    length: int
    width: int
    blocks: int
    heads: int
    groups: int
    head: int
    inside: int
    positions: str = "rotary"
    base: float = 10_000.0
    norm: str = "rms"
    eps: float = 1e-6
    normed_heads: bool = True
    activation: str = "swiglu"
    biases: str = "none"
    tied: bool = True
    cap: float = 0.0
    values: bool = False


class Cache:
    """Keys and values of the tokens so far: (blocks, 2, B, groups, length, head), and how many tokens each sample has, (B,)."""

    def __init__(self, shape: Shape, count: int, length: int, like: Tensor):
        self.tensor = like.new_zeros(shape.blocks, 2, count, shape.groups, length, shape.head)
        self.lengths = torch.zeros(count, dtype=torch.int64, device=like.device)

    def extended(self, block: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, G, T, D) of a block with N new ones (B, G, N, D) after those of each sample; T is what the
        longest has."""
        keys, values = self.tensor[block, 0], self.tensor[block, 1]
        B, _, N, _ = k.shape
        at = self.lengths[:, None] + torch.arange(N, device=k.device)
        rows = torch.arange(B, device=k.device)[:, None]
        keys[rows, :, at], values[rows, :, at] = k.transpose(1, 2), v.transpose(1, 2)
        longest = int(self.lengths.max()) + N
        return keys[:, :, :longest], values[:, :, :longest]


class Norm(nn.Module):
    """x (..., width) over the root of its mean square, times weights; or less its mean, over its deviation, with biases too."""

    def __init__(self, width: int, kind: str, eps: float):
        super().__init__()
        self.eps, self.weight = eps, nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if kind == "layer" else None

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype)
        if self.bias is None:
            return F.rms_norm(x, self.weight.shape, weight, self.eps)
        return F.layer_norm(x, self.weight.shape, weight, self.bias.to(x.dtype), self.eps)


class SelfAttention(nn.Module):
    """Causal attention of features (B, N, width), without the residual."""

    def __init__(self, shape: Shape, valued: bool):
        super().__init__()
        self.shape = shape
        H, G, D = shape.heads, shape.groups, shape.head
        self.qkv = nn.Linear(shape.width, (H + 2 * G) * D, bias=shape.biases != "none")
        self.out = nn.Linear(H * D, shape.width, bias=shape.biases == "all")
        self.q_norm = Norm(D, "rms", shape.eps) if shape.normed_heads else None
        self.k_norm = Norm(D, "rms", shape.eps) if shape.normed_heads else None
        self.values = nn.Embedding(shape.vocabulary, G * D) if valued else None

    def forward(self, h: Tensor, angles: tuple[Tensor, Tensor] | None, tokens: Tensor, cache: Cache | None,
                block: int) -> Tensor:
        B, N, _ = h.shape
        H, G, D = self.shape.heads, self.shape.groups, self.shape.head
        q, k, v = self.qkv(h).unflatten(2, (-1, D)).transpose(1, 2).split((H, G, G), dim=1)
        if self.values is not None:
            v = v + self.values(tokens).view(B, N, G, D).transpose(1, 2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if angles is not None:
            q, k = turned(q, *angles), turned(k, *angles)
        if cache is None:
            o = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=H != G)
        else:
            k, v = cache.extended(block, k, v)
            at = cache.lengths[:, None] + torch.arange(N, device=h.device)
            seen = torch.arange(k.shape[2], device=h.device) <= at[:, None, :, None]
            o = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=H != G)
        return self.out(o.transpose(1, 2).reshape(B, N, H * D))


class Mlp(nn.Module):
    """(B, N, width) to itself, without the residual."""

    def __init__(self, shape: Shape):
        super().__init__()
        biased, self.activation = shape.biases == "all", shape.activation
        self.inner = nn.Linear(shape.width, shape.inside * (2 if shape.activation == "swiglu" else 1), bias=biased)
        self.out = nn.Linear(shape.inside, shape.width, bias=biased)

    def forward(self, h: Tensor) -> Tensor:
        u = self.inner(h)
        if self.activation == "swiglu":
            u, v = u.chunk(2, dim=2)
            return self.out(F.silu(u) * v)
        if self.activation == "relu2":
            return self.out(F.relu(u).square())
        return self.out(F.gelu(u, approximate="tanh" if self.activation == "gelu_tanh" else "none"))


class Block(nn.Module):
    """Attention and MLP with their norms and residuals."""

    def __init__(self, shape: Shape, number: int):
        super().__init__()
        self.number = number
        self.norm_1, self.norm_2 = (Norm(shape.width, shape.norm, shape.eps) for _ in range(2))
        self.attention = SelfAttention(shape, shape.values and number % 2 == 1)
        self.mlp = Mlp(shape)

    def forward(self, h: Tensor, angles: tuple[Tensor, Tensor] | None, tokens: Tensor, cache: Cache | None) -> Tensor:
        h = h + self.attention(self.norm_1(h), angles, tokens, cache, self.number)
        return h + self.mlp(self.norm_2(h))


class LanguageModel(nn.Module):
    """Tokens (B, N) in [0, vocabulary) to logits (B, N, vocabulary) of the token after each.

    beside (B, width) : a vector that is added to the embedding of every token, such as that of a condition. cache : what stands
    before these tokens; it takes them in.
    """

    cosines: Tensor
    sines: Tensor

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        self.first = nn.Embedding(shape.vocabulary, shape.width)
        self.places = nn.Embedding(shape.length, shape.width) if shape.positions == "learned" else None
        self.blocks = nn.ModuleList(Block(shape, number) for number in range(shape.blocks))
        self.norm = Norm(shape.width, shape.norm, shape.eps)
        self.last = None if shape.tied else nn.Linear(shape.width, shape.vocabulary, bias=False)
        cosines, sines = turns(torch.arange(float(shape.length))[:, None], shape.head, shape.base)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)
        self._begin()

    def _begin(self) -> None:
        """Matrices with deviation 1 / (2 sqrt(fan in)), those that end a block zero, so that the network begins as the
        identity."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.5 * module.in_features ** -0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=SPREAD)
        blocks: Any = self.blocks
        for block in blocks:
            nn.init.zeros_(block.attention.out.weight)
            nn.init.zeros_(block.mlp.out.weight)

    def forward(self, tokens: Tensor, beside: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        N = tokens.shape[1]
        h = self.first(tokens)
        at = torch.arange(N, device=h.device) if cache is None else cache.lengths[:, None] + torch.arange(N, device=h.device)
        if self.places is not None:
            h = h + self.places(at)
        if beside is not None:
            h = h + beside[:, None]
        angles = None
        if self.shape.positions == "rotary":
            angles = self.cosines[at].to(h.dtype), self.sines[at].to(h.dtype)
            angles = angles if cache is None else (angles[0][:, None], angles[1][:, None])
        for block in self.blocks:
            h = block(h, angles, tokens, cache)
        if cache is not None:
            cache.lengths += N
        logits = F.linear(self.norm(h), self.first.weight if self.last is None else self.last.weight)
        return self.shape.cap * torch.tanh(logits / self.shape.cap) if self.shape.cap else logits
