"""A language model's weights as the compiled decoder reads them: packed into panels, one after another in one array.

Import this module only where numba is there.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from .jit import serial
from .language import LanguageModel
from .panels import LINE, PANEL, Array, in_panels, put

__all__ = ["GELU", "NOTHING", "RELU2", "SWIGLU", "Sizes", "Weights", "pack", "plain", "unpacked"]

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
    """A model's weights: matrices (L P, in, PANEL), their biases (L P, PANEL). What a model does not have is empty."""

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
    up: Array  # for swiglu, panels of gates before as many of what they let through
    up_bias: Array
    down: Array
    down_bias: Array
    last: Array  # (P, width, PANEL)


def pack(model: LanguageModel) -> tuple[Array, Array, Array]:
    """The model's sizes, its weights as they are now, one after another, and where each begins with its shape, filled up with
    ones. A call of a compiled function with these three costs a microsecond or two less than with sixteen arrays."""
    parts = _parts(model)
    shapes = [in_panels(part) if isinstance(part, list) else part.shape for part in parts]
    counts = [math.prod(its) for its in shapes]
    begins = np.cumsum([0] + [count + -count % LINE for count in counts])
    numbers = np.empty(begins[-1] + LINE, np.float32)
    numbers = numbers[-numbers.ctypes.data % (4 * LINE) // 4:]  # a register's worth of numbers lies in one line of the cache
    for part, its, count, begin in zip(parts, shapes, counts, begins[:-1], strict=True):
        to = numbers[begin:begin + count].reshape(its)
        if isinstance(part, list):
            put(part, to)
        else:
            to[...] = part
    filled = [(begin, *its, *[1] * (3 - len(its))) for its, begin in zip(shapes, begins[:-1], strict=True)]
    shape = model.shape
    sizes = Sizes(shape.width, shape.heads, shape.groups, shape.head, shape.vocabulary, ACTIVATIONS[shape.activation],
                  shape.norm == "layer", shape.eps, shape.cap)
    return np.array(sizes, np.float64), numbers, np.array(filled)


@serial
def unpacked(sizes: Array, x: Array, s: Array) -> tuple[Sizes, Weights]:
    """Sizes, and views of the weights."""
    z = Sizes(int(sizes[0]), int(sizes[1]), int(sizes[2]), int(sizes[3]), int(sizes[4]), int(sizes[5]), sizes[6] > 0, sizes[7],
              sizes[8])
    return z, Weights(
        _two(x, s[0]), _two(x, s[1]), _two(x, s[2]), _two(x, s[3]), _three(x, s[4]), _three(x, s[5]), _three(x, s[6]),
        _three(x, s[7]), _two(x, s[8]), _three(x, s[9]), _two(x, s[10]), _three(x, s[11]), _two(x, s[12]), _three(x, s[13]),
        _two(x, s[14]), _three(x, s[15]))


@serial
def _two(x: Array, s: Array) -> Array:
    return x[s[0]:s[0] + s[1] * s[2]].reshape(s[1], s[2])


@serial
def _three(x: Array, s: Array) -> Array:
    return x[s[0]:s[0] + s[1] * s[2] * s[3]].reshape(s[1], s[2], s[3])


def _parts(model: LanguageModel) -> list[Array | list[Array]]:
    """What Weights has, matrices (out, in) in lists."""
    shape, blocks = model.shape, list[Any](model.blocks)
    norms = [norm for block in blocks for norm in (block.norm_1, block.norm_2)] + [model.norm]
    none = np.zeros(shape.width, np.float32)
    pairs = [(plain(norm.weight), none if norm.bias is None else plain(norm.bias)) for norm in norms]
    heads = [(plain(block.attention.q_norm.weight), plain(block.attention.k_norm.weight)) for block in blocks
             if shape.normed_heads]
    values = [block.attention.values.weight for block in blocks if block.attention.values is not None]
    rotary = shape.positions == "rotary"
    qkv, out = [block.attention.qkv for block in blocks], [block.attention.out for block in blocks]
    up, down = [block.mlp.inner for block in blocks], [block.mlp.out for block in blocks]
    halves = 2 if shape.activation == "swiglu" else 1
    last = model.first if model.last is None else model.last
    return [
        plain(model.first.weight), NOTHING if model.places is None else plain(model.places.weight),
        plain(model.cosines) if rotary else NOTHING, plain(model.sines) if rotary else NOTHING,
        np.array(pairs), np.array(heads) if heads else NOTHING[None],
        np.stack([plain(value) for value in values]) if values else NOTHING[None],
        _matrices(qkv), _biases(qkv), _matrices(out), _biases(out), _matrices(up, halves), _biases(up, halves),
        _matrices(down), _biases(down), [plain(last.weight)]]


def plain(x: Tensor) -> Array:
    """Its numbers in float32, without a copy where they are."""
    return x.detach().float().contiguous().numpy()


def _matrices(linears: list[Any], parts: int = 1) -> list[Array]:
    return [part for linear in linears for part in np.split(plain(linear.weight), parts)]


def _biases(linears: list[Any], parts: int = 1) -> Array:
    N = linears[0].out_features // parts
    b = np.zeros((len(linears), parts, N + -N % PANEL), np.float32)
    for linear, to in zip(linears, b, strict=True):
        if linear.bias is not None:
            to[:, :N] = plain(linear.bias).reshape(parts, N)
    return b.reshape(-1, PANEL)
