"""The decoder in one compiled call (numba): the whole stack of blocks for a few tokens, and the logits after those that ask.

A row is one token: of which sample, and at which place of it. Prompts are rows like all others, so that a sample's numbers have
the same bits however it came about and whatever else is in the batch: products go through `panels`, and all else is done row by
row. Keys lie as panels of places, values as strips of numbers, so that scores and sums over values are such products too:

    s = q K / sqrt(D)      o = exp(s - max s) V / sum exp(s - max s)

With one row a step takes as long as reading the weights. Import this module only where numba is there.
"""

import math
from collections import defaultdict
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from .decoding import Decoder, fits
from .jit import elementwise, summing
from .language import LanguageModel
from .pace import Pace
from .panels import PANEL, STRIP, Array, packed, panel, product, strips

__all__ = ["Compiled"]

ROWS = 64  # of a call: with more, what is between the products leaves the cache
LOG2_E, LEAST, MOST = np.float32(1 / math.log(2)), np.float32(-126), np.float32(126)
MAGIC, PLACE = np.float32(1.5 * 2 ** 23), np.int32(2 ** 23)  # adding it rounds to whole; the lowest bit of the exponent
E1, E2, E3, E4, E5, E6, E7 = (np.float32(math.log(2) ** n / math.factorial(n)) for n in range(1, 8))  # Taylor's
ZERO, HALF, ONE, TWO = (np.float32(x) for x in (0, 0.5, 1, 2))
INNER, CUBIC = np.float32(2 * math.sqrt(2 / math.pi)), np.float32(0.044715)  # of gelu's tanh form
ROOT_HALF = np.float32(math.sqrt(0.5))
#: erf(x) = 1 - (A1 t + ... + A5 t^5) exp(-x^2), t = 1 / (1 + A0 x), to 1.5e-7 (Abramowitz and Stegun, 7.1.26)
A0, A1, A2, A3, A4, A5 = (np.float32(a) for a in (0.3275911, 0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429))
SWIGLU, GELU, GELU_TANH, RELU2 = range(4)
ACTIVATIONS = {"swiglu": SWIGLU, "gelu": GELU, "gelu_tanh": GELU_TANH, "relu2": RELU2}
NOTHING = np.zeros((1, 0), np.float32)


class Sizes(NamedTuple):
    """What the compiled stack knows of a model's shape besides its weights."""

    width: int
    heads: int
    groups: int
    head: int
    vocabulary: int
    activation: int
    layered: bool
    eps: float
    cap: float


class Weights(NamedTuple):
    """A model's weights, packed: matrices (L, P, in, PANEL), their biases (L, P PANEL). What a model does not have is empty."""

    first: Array  # (V, width)
    places: Array  # (length, width)
    cosines: Array  # (length, head // 2), as are the sines
    sines: Array
    norms: Array  # (2 L + 1, 2, width): weights and biases in the order of use
    head_norms: Array  # (L, 2, head), of queries and of keys
    values: Array  # (L // 2, V, groups head)
    qkv: Array
    qkv_bias: Array
    out: Array
    out_bias: Array
    up: Array  # for swiglu, gates before what they let through
    up_bias: Array
    down: Array
    down_bias: Array
    last: Array  # (P, width, PANEL)


def pack(model: LanguageModel) -> Weights:
    """The model's weights as they are now."""
    shape, blocks = model.shape, list[Any](model.blocks)
    norms = [norm for block in blocks for norm in (block.norm_1, block.norm_2)] + [model.norm]
    pairs = [(norm.weight, torch.zeros_like(norm.weight) if norm.bias is None else norm.bias) for norm in norms]
    heads = [(block.attention.q_norm.weight, block.attention.k_norm.weight) for block in blocks if shape.normed_heads]
    values = [block.attention.values.weight for block in blocks if block.attention.values is not None]
    rotary = shape.positions == "rotary"
    qkv, out = [block.attention.qkv for block in blocks], [block.attention.out for block in blocks]
    up, down = [block.mlp.inner for block in blocks], [block.mlp.out for block in blocks]
    last = model.first if model.last is None else model.last
    return Weights(
        _numpy(model.first.weight), NOTHING if model.places is None else _numpy(model.places.weight),
        _numpy(model.cosines) if rotary else NOTHING, _numpy(model.sines) if rotary else NOTHING,
        np.stack([_numpy(torch.stack(pair)) for pair in pairs]),
        np.stack([_numpy(torch.stack(pair)) for pair in heads]) if heads else NOTHING[None],
        np.stack([_numpy(value) for value in values]) if values else NOTHING[None],
        _matrices(qkv), _biases(qkv), _matrices(out), _biases(out), _matrices(up), _biases(up),
        _matrices(down), _biases(down), packed([_numpy(last.weight)])[0])


def _numpy(x: Tensor) -> Array:
    return x.detach().float().contiguous().numpy()


def _matrices(linears: list[Any]) -> Array:
    return packed([_numpy(linear.weight) for linear in linears])


def _biases(linears: list[Any]) -> Array:
    N = linears[0].out_features
    b = np.zeros((len(linears), N + -N % PANEL), np.float32)
    for linear, to in zip(linears, b, strict=True):
        if linear.bias is not None:
            to[:N] = _numpy(linear.bias)
    return b


class Compiled(Decoder):
    """All in one call of a compiled function, for each ROWS tokens."""

    def __init__(self, model: LanguageModel, count: int, length: int, beside: Tensor | None = None):
        threads = torch.get_num_threads()
        numba.get_num_threads()  # sets threads up, which a function that comes from numba's folder does not
        torch.set_num_threads(threads)  # which numba has changed where both share a library of threads
        shape = model.shape
        self.length, L, G, D = min(length, shape.length), shape.blocks, shape.groups, shape.head
        self.sizes = Sizes(shape.width, shape.heads, G, D, shape.vocabulary, ACTIVATIONS[shape.activation],
                           shape.norm == "layer", shape.eps, shape.cap)
        self.weights, self.beside = pack(model), NOTHING if beside is None else _numpy(beside)
        self.count = np.zeros(count, np.int64)  # of tokens, as `lengths`
        self.lengths = torch.from_numpy(self.count)
        self.every, self.yes, self.paces = np.arange(count), np.ones(count, np.bool_), defaultdict[int, Pace](Pace)
        self.keys = np.zeros((L, count, G, -(-self.length // PANEL), D, PANEL), np.float32)
        self.values = np.zeros((L, count, G, -(-D // STRIP), self.length, STRIP), np.float32)

    def feed(self, tokens: Tensor, counts: Tensor) -> Tensor:
        """As Decoder says."""
        more = counts.numpy()
        there = np.arange(tokens.shape[1]) < more[:, None]
        samples, n = there.nonzero()
        return self._write(tokens.long().numpy()[there], samples, self.count[samples] + n, n == more[samples] - 1, more)

    def step(self, tokens: Tensor, active: Tensor | None = None) -> Tensor:
        """As Decoder says."""
        if active is None:
            return self._write(tokens.long().numpy(), self.every, self.count, self.yes, self.yes)
        chosen = active.numpy()
        samples = chosen.nonzero()[0]
        return self._write(tokens.long().numpy()[samples], samples, self.count[samples], self.yes[samples], chosen)

    def keep(self, rows: Tensor) -> None:
        """As Decoder says."""
        of, longest = rows.numpy(), int(self.count[rows.numpy()].max())
        to, panels = (of != np.arange(len(of))).nonzero()[0], -(-longest // PANEL)
        self.keys[:, to, :, :panels] = self.keys[:, of[to], :, :panels]
        self.values[:, to, :, :, :longest] = self.values[:, of[to], :, :, :longest]
        self.count[:] = self.count[of]
        self.beside = self.beside[of] if self.beside.size else self.beside

    def _write(self, tokens: Array, samples: Array, places: Array, last: Array, more: Array) -> Tensor:
        """Rows (R,) in order of sample and place, and whether logits are wanted after each; more (B,) tokens of each sample."""
        if not _below(places, self.length):
            fits(self.count, more, self.length)
        if not _below(tokens, self.sizes.vocabulary):
            raise IndexError(f"tokens from {tokens.min()} to {tokens.max()} are not all below {self.sizes.vocabulary}")
        logits = np.zeros((len(self.count), self.sizes.vocabulary), np.float32)
        for first in range(0, len(tokens), ROWS):
            here = slice(first, first + ROWS)
            with self.paces[min(ROWS, len(tokens) - first)] as several:
                _stack(tokens[here], samples[here], places[here], last[here], self.beside, self.keys, self.values, self.weights,
                       self.sizes, several, logits)
        self.count += more
        return torch.from_numpy(logits)


@elementwise
def _below(numbers: Array, end: int) -> bool:
    """Whether all are 0 or more and below the end."""
    out = 0
    for number in numbers:
        out += number < 0 or number >= end
    return out == 0


@elementwise
def _exponential(x: Array) -> None:
    """exp(x) in place, for x (n,): 2^m 2^rest, m = round(x log2 e), which is added to the exponent's bits."""
    whole = np.empty_like(x)
    x_bits, whole_bits = x.view(np.int32), whole.view(np.int32)
    for i in range(len(x)):
        x[i] *= LOG2_E
        x[i] = LEAST if x[i] < LEAST else x[i]
        x[i] = MOST if x[i] > MOST else x[i]
        whole[i] = x[i] + MAGIC
    for i in range(len(x)):
        r = x[i] - (whole[i] - MAGIC)
        x[i] = ONE + r * (E1 + r * (E2 + r * (E3 + r * (E4 + r * (E5 + r * (E6 + r * E7))))))
    for i in range(len(x)):
        x_bits[i] += whole_bits[i] * PLACE


@summing
def _normed(x: Array, weight: Array, bias: Array, layered: bool, eps: float, out: Array) -> None:
    """out = (x - mean) / deviation weight + bias, or without the mean; all (n,)."""
    n, mean, square = len(x), ZERO, ZERO
    if layered:
        for i in range(n):
            mean += x[i]
        mean = np.float32(mean / n)
    for i in range(n):
        square += (x[i] - mean) * (x[i] - mean)
    scale = np.float32(1 / math.sqrt(square / n + eps))
    for i in range(n):
        out[i] = (x[i] - mean) * scale * weight[i] + bias[i]


@elementwise
def _activated(u: Array, v: Array, kind: int, out: Array) -> None:
    """out = u's activation, times v where that gates; all (n,)."""
    n, e = len(out), np.empty_like(out)
    if kind == RELU2:
        for i in range(n):
            out[i] = u[i] * u[i] if u[i] > ZERO else ZERO
    elif kind == GELU:
        for i in range(n):
            e[i] = -HALF * u[i] * u[i]
        _exponential(e)
        for i in range(n):
            t = ONE / (ONE + A0 * ROOT_HALF * abs(u[i]))
            tail = HALF * t * (A1 + t * (A2 + t * (A3 + t * (A4 + t * A5)))) * e[i]
            out[i] = u[i] * (tail if u[i] < ZERO else ONE - tail)
    else:
        for i in range(n):
            e[i] = -u[i] if kind == SWIGLU else -INNER * (u[i] + CUBIC * u[i] * u[i] * u[i])
        _exponential(e)
        for i in range(n):
            out[i] = u[i] / (ONE + e[i])
        if kind == SWIGLU:
            for i in range(n):
                out[i] *= v[i]


@elementwise
def _added(x: Array, y: Array) -> None:
    """y += x as far as x goes."""
    for i in range(len(x)):
        y[i] += x[i]


@elementwise
def _turned(x: Array, cosines: Array, sines: Array) -> None:
    """Pairs (x_i, x_(i + P)) of x (D,) turned by angles (P,), in place."""
    P = len(cosines)
    for i in range(P):
        a, b = x[i], x[i + P]
        x[i], x[i + P] = a * cosines[i] - b * sines[i], a * sines[i] + b * cosines[i]


@summing
def _shares(s: Array) -> Any:
    """exp(s - max s) in place, for s (T,); returns their sum."""
    top, total = s[0], ZERO
    for t in range(len(s)):
        top = s[t] if s[t] > top else top
    for t in range(len(s)):
        s[t] -= top
    _exponential(s)
    for t in range(len(s)):
        total += s[t]
    return total


@elementwise
def _attended(q: Array, keys: Array, values: Array, T: int, s: Array, o: Array, out: Array) -> None:
    """softmax(q K) V of heads that share keys (P, D, PANEL) and values (P', length, STRIP), of which T places count; q and out
    (H, D). s (H, P PANEL + 1), o (H, P' STRIP): room."""
    (H, D), end = q.shape, s.shape[1] - 1
    for p in range((T - 1) // PANEL + 1):
        for h in range(H):
            for t in range(p * PANEL, (p + 1) * PANEL):
                s[h, t] = ZERO
        panel(q, keys[p], s, p * PANEL)
    for h in range(H):
        s[h, end] = _shares(s[h, :T])
        for d in range(o.shape[1]):
            o[h, d] = ZERO
    strips(s, values, o, T)
    for h in range(H):
        for d in range(D):
            out[h, d] = o[h, d] / s[h, end]


@elementwise
def _begun(row: Array, place: int, heads: int, more: Array, norms: Array, eps: float, cosines: Array, sines: Array, keys: Array,
           values: Array) -> None:
    """Queries, keys and values of a row ((H + 2 G) D, or more) finished in place, and the keys (G, P, D, PANEL) and values
    (G, P', length, STRIP) of its sample written. more (G D,), norms (2, D) and angles (P,) may be empty."""
    (G, _, D, _), H = keys.shape, heads
    root, none, p, at = np.float32(1 / math.sqrt(D)), np.zeros(D, np.float32), place // PANEL, place % PANEL
    _added(more, row[(H + G) * D:])
    for h in range(H + G):
        x = row[h * D:(h + 1) * D]
        if norms.size:
            _normed(x, norms[0 if h < H else 1], none, False, eps, x)
        _turned(x, cosines, sines)
        if h < H:
            for d in range(D):
                x[d] *= root
    for g in range(G):
        for d in range(D):
            keys[g, p, d, at] = row[(H + g) * D + d]
            values[g, d // STRIP, place, d % STRIP] = row[(H + G + g) * D + d]


@elementwise
def _capped(x: Array, cap: float, out: Array) -> None:
    """out (V,) = the first of x, or cap tanh(x / cap) where there is a cap."""
    c = np.float32(cap)
    for n in range(len(out)):
        out[n] = -TWO / c * x[n] if c > ZERO else x[n]
    if c > ZERO:
        _exponential(out)
        for n in range(len(out)):
            out[n] = c * (TWO / (ONE + out[n]) - ONE)


@elementwise
def _stack(tokens: Array, samples: Array, places: Array, last: Array, beside: Array, keys: Array, values: Array,
           w: Weights, z: Sizes, several: bool, logits: Array) -> None:
    """Rows (R,) through all blocks: keys and values (L, B, ...) take them in, and logits (B, V) after those that are `last` are
    written."""
    R, (L, P), H, G, D, I = len(tokens), w.out.shape[:2], z.heads, z.groups, z.head, w.down.shape[2]
    h, a = np.zeros((R, P * PANEL), np.float32), np.empty((R, z.width), np.float32)
    o, g = np.empty((R, H * D), np.float32), np.empty((R, I), np.float32)
    scores = np.empty((H // G, keys.shape[3] * PANEL + 1), np.float32)
    sums = np.empty((H // G, values.shape[3] * STRIP), np.float32)
    for r in range(R):
        _added(w.first[tokens[r]], h[r])
        if w.places.size:
            _added(w.places[places[r]], h[r])
        if beside.size:
            _added(beside[samples[r]], h[r])
    for block in range(L):
        qkv, u = np.zeros((R, w.qkv.shape[1] * PANEL), np.float32), np.zeros((R, w.up.shape[1] * PANEL), np.float32)
        for r in range(R):
            _normed(h[r, :z.width], w.norms[2 * block, 0], w.norms[2 * block, 1], z.layered, z.eps, a[r])
        product(a, w.qkv[block], w.qkv_bias[block], several, qkv)
        for r in range(R):
            more = w.values[block // 2, tokens[r]] if block % 2 and w.values.shape[2] else w.values[0, 0, :0]
            turn = places[r] if len(w.cosines) > 1 else 0
            _begun(qkv[r], places[r], H, more, w.head_norms[block if w.head_norms.size else 0], z.eps, w.cosines[turn],
                   w.sines[turn], keys[block, samples[r]], values[block, samples[r]])
        for r in range(R):
            q, to = qkv[r, :H * D].reshape(G, H // G, D), o[r].reshape(G, H // G, D)
            for i in range(G):
                _attended(q[i], keys[block, samples[r], i], values[block, samples[r], i], places[r] + 1, scores, sums, to[i])
        product(o, w.out[block], w.out_bias[block], several, h)
        for r in range(R):
            _normed(h[r, :z.width], w.norms[2 * block + 1, 0], w.norms[2 * block + 1, 1], z.layered, z.eps, a[r])
        product(a, w.up[block], w.up_bias[block], several, u)
        for r in range(R):
            _activated(u[r, :I], u[r, I:2 * I], z.activation, g[r])
        product(g, w.down[block], w.down_bias[block], several, h)
    wanted = np.nonzero(last)[0]
    ends, found = np.empty((len(wanted), z.width), np.float32), np.zeros((len(wanted), len(w.last) * PANEL), np.float32)
    for i in range(len(wanted)):
        _normed(h[wanted[i], :z.width], w.norms[2 * L, 0], w.norms[2 * L, 1], z.layered, z.eps, ends[i])
    product(ends, w.last, np.zeros(found.shape[1], np.float32), several, found)
    for i in range(len(wanted)):
        _capped(found[i], z.cap, logits[samples[wanted[i]]])
