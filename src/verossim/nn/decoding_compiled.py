"""The decoder in one compiled call (numba): the whole stack of blocks for a few tokens, and the logits after those that ask.

A row is one token: of which sample, and at which place of it. Prompts are rows like all others, so that a sample's numbers have
the same bits however it came about and whatever else is in the batch: products go through `panels`, and all else is done row by
row. Keys lie as panels of places, values as strips of numbers, so that scores and sums over values are such products too:

    s = q K / sqrt(D)      o = exp(s - max s) V / sum exp(s - max s)

With one row a step takes as long as reading the weights. Import this module only where numba is there.
"""

import math
from typing import Any

import numba
import numpy as np
import torch
from numba import prange
from torch import Tensor

from .decoding import Decoder, fits
from .jit import elementwise, summing, together
from .language import LanguageModel
from .pace import pace
from .packing import GELU, NOTHING, RELU2, SWIGLU, pack, plain, unpacked
from .panels import PANEL, STRIP, Array, panel, product, strips
from .team import PATIENCE, joined, met, part, team

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


class Compiled(Decoder):
    """All in one call of a compiled function, for each ROWS tokens."""

    def __init__(self, model: LanguageModel, count: int, length: int, beside: Tensor | None = None):
        threads = torch.get_num_threads()
        numba.get_num_threads()  # sets threads up, which a function that comes from numba's folder does not
        torch.set_num_threads(threads)  # which numba has changed where both share a library of threads
        shape = model.shape
        self.length, L, G, D = min(length, shape.length), shape.blocks, shape.groups, shape.head
        self.packed, self.beside = pack(model), NOTHING if beside is None else plain(beside)
        self.kind, self.vocabulary = str(shape), shape.vocabulary
        self.count = np.zeros(count, np.int64)  # of tokens, as `lengths`
        self.lengths = torch.from_numpy(self.count)
        self.every, self.yes, self.one = np.arange(count), np.ones(count, np.bool_), np.ones(count, np.int64)
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
            return self._write(tokens.long().numpy(), self.every, self.count, self.yes, self.one)
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
        tokens, samples = np.ascontiguousarray(tokens), np.ascontiguousarray(samples)  # or all is compiled for these anew
        logits = np.zeros((len(self.count), self.vocabulary), np.float32)
        for first in range(0, len(tokens), ROWS):
            count = min(ROWS, len(tokens) - first)
            with pace((self.kind, count.bit_length())) as threads:
                done = _written(tokens, samples, places, last, first, count, self.length, self.beside, self.keys, self.values,
                                *self.packed, threads, logits)
            if not done:
                fits(self.count, more, self.length)
                raise IndexError(f"tokens from {tokens.min()} to {tokens.max()} are not all below {self.vocabulary}")
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
def _attended(q: Array, keys: Array, values: Array, which: int, T: int, s: Array, o: Array, out: Array) -> None:
    """softmax(q K) V of heads that share keys (..., P, D, PANEL) and values (..., P', length, STRIP), those of which there are
    `which` before; T places count. q and out (H, D). s (H, P PANEL + 1), o (H, P' STRIP): room."""
    (H, D), P, end = q.shape, keys.shape[-3], s.shape[1] - 1
    for p in range((T - 1) // PANEL + 1):
        for h in range(H):
            for t in range(p * PANEL, (p + 1) * PANEL):
                s[h, t] = ZERO
        panel(q, keys, which * P + p, s, p * PANEL)
    for h in range(H):
        s[h, end] = _shares(s[h, :T])
        for d in range(o.shape[1]):
            o[h, d] = ZERO
    strips(s, values, which * values.shape[-3], o, T)
    for h in range(H):
        for d in range(D):
            out[h, d] = o[h, d] / s[h, end]


@elementwise
def _begun(q: Array, k: Array, v: Array, place: int, more: Array, norms: Array, none: Array, eps: float, cosines: Array,
           sines: Array, keys: Array, values: Array) -> None:
    """Queries (H, D) of a token finished in place, and what they share, key and value (D,), written at its place into keys
    (P, D, PANEL) and values (P', length, STRIP). more (D,), norms (2, D) and angles (P,) may be empty; none (D,) zeros."""
    (H, D), p, at = q.shape, place // PANEL, place % PANEL
    root = np.float32(1 / math.sqrt(D))
    for h in range(H + 1):
        x = q[h] if h < H else k
        if norms.size:
            _normed(x, norms[0 if h < H else 1], none, False, eps, x)
        _turned(x, cosines, sines)
        if h < H:
            for d in range(D):
                x[d] *= root
    _added(more, v)
    for d in range(D):
        keys[p, d, at] = k[d]
        values[d // STRIP, place, d % STRIP] = v[d]


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
def _written(every: Array, of: Array, at: Array, ends: Array, first: int, count: int, length: int, beside: Array, keys: Array,
             values: Array, sizes: Array, numbers: Array, shapes: Array, threads: int, logits: Array) -> bool:
    """So many rows of (R,) from the first one on through all blocks: keys and values (L, B, ...) take them in, and logits
    (B, V) after those that are ends are written. False, and nothing done, if any token or place is out of range."""
    z, w = unpacked(sizes, numbers, shapes)
    if first == 0 and not (_below(every, z.vocabulary) and _below(at, length)):
        return False
    here, R, L = slice(first, first + count), count, len(keys)
    tokens, samples, places, last = every[here], of[here], at[here], ends[here]
    h, qkv, u = (np.zeros((R, len(w.out) // L * PANEL), np.float32), np.empty((R, len(w.qkv) // L * PANEL), np.float32),
                 np.empty((R, len(w.up) // L * PANEL), np.float32))
    o, g = np.empty((R, z.heads * z.head), np.float32), np.empty((R, u.shape[1] // (1 + (z.activation == SWIGLU))), np.float32)
    for r in range(R):
        _added(w.first[tokens[r]], h[r])
        if w.places.size:
            _added(w.places[places[r]], h[r])
        if beside.size:
            _added(beside[samples[r]], h[r])
    if threads > 1:
        _shared(team(), threads, tokens, samples, places, last, keys, values, sizes, numbers, shapes, h, qkv, o, u, g, logits)
    else:
        _stack(team(), 1, 0, tokens, samples, places, last, keys, values, sizes, numbers, shapes, h, qkv, o, u, g, logits)
    return True


@together
def _shared(us: Array, threads: int, tokens: Array, samples: Array, places: Array, last: Array, keys: Array, values: Array,
            sizes: Array, numbers: Array, shapes: Array, h: Array, qkv: Array, o: Array, u: Array, g: Array,
            logits: Array) -> None:
    for _ in prange(threads):  # numba takes the arrays for such as do not overlap, and so they are
        _stack(us, threads, PATIENCE, tokens, samples, places, last, keys, values, sizes, numbers, shapes, h, qkv, o, u, g,
               logits)


@elementwise
def _stack(us: Array, threads: int, patience: int, tokens: Array, samples: Array, places: Array, last: Array, keys: Array,
           values: Array, sizes: Array, numbers: Array, shapes: Array, h: Array, qkv: Array, o: Array, u: Array, g: Array,
           logits: Array) -> None:
    """One thread's part of the blocks and the head: of each product some panels, of attention some heads of some rows."""
    z, w = unpacked(sizes, numbers, shapes)
    (L, B, G, _, D, _), R, H, per, times = keys.shape, len(tokens), z.heads, z.heads // z.groups, 0
    firsts, outs, ups, gates = len(w.qkv) // L, len(w.out) // L, len(w.up) // L, g.shape[1] // PANEL
    wanted, gated = np.nonzero(last)[0], (ups - gates) * PANEL  # where in u what the gates let through begins
    a, none = np.empty((R, z.width), np.float32), np.zeros(D, np.float32)
    scores = np.empty((per, keys.shape[3] * PANEL + 1), np.float32)
    sums, ends = np.empty((per, values.shape[3] * STRIP), np.float32), np.empty((len(wanted), z.width), np.float32)
    found = np.empty((len(wanted), PANEL), np.float32)
    me, size = joined(us, threads, patience)
    if size == 0:
        return
    (first_q, end_q), (first_h, end_h) = part(firsts, me, size), part(outs, me, size)
    (first_u, end_u), (first_i, end_i) = part(gates, me, size), part(R * G, me, size)
    mine = slice(first_u * PANEL, end_u * PANEL)
    for block in range(L):
        for r in range(R):
            _normed(h[r, :z.width], w.norms[2 * block, 0], w.norms[2 * block, 1], z.layered, z.eps, a[r])
        product(a, w.qkv, w.qkv_bias, block * firsts, first_q, end_q, qkv, True)
        met(us, size, times + 1)
        for item in range(first_i, end_i):
            r, i = item // G, item % G
            more = w.values[block // 2, tokens[r], i * D:(i + 1) * D] if block % 2 and w.values.shape[2] else w.values[0, 0, :0]
            turn = places[r] if len(w.cosines) > 1 else 0
            _begun(qkv[r, i * per * D:(i + 1) * per * D].reshape(per, D), qkv[r, (H + i) * D:(H + i + 1) * D],
                   qkv[r, (H + G + i) * D:(H + G + i + 1) * D], places[r], more,
                   w.head_norms[block if w.head_norms.size else 0], none, z.eps, w.cosines[turn], w.sines[turn],
                   keys[block, samples[r], i], values[block, samples[r], i])
        met(us, size, times + 2)  # rows of one sample see each other
        for item in range(first_i, end_i):
            r, i = item // G, item % G
            heads = slice(i * per * D, (i + 1) * per * D)
            _attended(qkv[r, heads].reshape(per, D), keys, values, (block * B + samples[r]) * G + i, places[r] + 1, scores,
                      sums, o[r, heads].reshape(per, D))
        met(us, size, times + 3)
        product(o, w.out, w.out_bias, block * outs, first_h, end_h, h, False)
        met(us, size, times + 4)
        for r in range(R):
            _normed(h[r, :z.width], w.norms[2 * block + 1, 0], w.norms[2 * block + 1, 1], z.layered, z.eps, a[r])
        product(a, w.up, w.up_bias, block * ups, first_u, end_u, u, True)
        if gated:
            product(a, w.up, w.up_bias, block * ups, gates + first_u, gates + end_u, u, True)
        for r in range(R):
            _activated(u[r, mine], u[r, gated:][mine], z.activation, g[r, mine])
        met(us, size, times + 5)
        product(g, w.down, w.down_bias, block * outs, first_h, end_h, h, False)
        met(us, size, times + 6)
        times += 6
    for i in range(len(wanted)):
        _normed(h[wanted[i], :z.width], w.norms[2 * L, 0], w.norms[2 * L, 1], z.layered, z.eps, ends[i])
    for p in range(me, len(w.last), size):
        for i in range(len(wanted)):
            found[i, :] = ZERO
        panel(ends, w.last, p, found, 0)
        for i in range(len(wanted)):
            _capped(found[i], z.cap, logits[samples[wanted[i]], p * PANEL:(p + 1) * PANEL])
