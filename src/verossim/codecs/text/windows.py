"""Windows of a sequence of tokens, each as long as the network sees at once.

A window is `length` entries. The first has nothing before it, so it is given, unless it is the first of the sequence. Where
windows overlap,

    learned   an entry is learned in every window that it is in; windows begin `stride` apart
    scored    an entry is scored in the first window that it is in, and given in the next: each once, with at least
              length - stride entries before it once there are so many

The last window ends with the sequence, and so has as much before it as the others.
"""

import numpy as np

__all__ = ["learned", "padded", "scored"]


def learned(tokens: np.ndarray, length: int, stride: int, pad: int) -> np.ndarray:
    """Windows (W, length) of tokens (N,) that hold something to be learned."""
    x, _ = _windows(tokens, length, stride, pad)
    x[1:, 0] = _given(x[1:, 0])
    return x[((x >= 0) & (x != pad)).any(1)]


def scored(tokens: np.ndarray, length: int, stride: int, pad: int) -> np.ndarray:
    """Windows (W, length) of tokens (N,), at least one, in which each is scored once."""
    x, first = _windows(tokens, length, stride, pad)
    known = np.arange(length) < np.append(0, length - np.diff(first))[:, None]
    return np.where(known, _given(x), x)


def padded(tokens: np.ndarray, length: int, pad: int) -> np.ndarray:
    """At most `length` tokens, filled up with `pad`."""
    return np.concatenate([tokens, np.full(length - len(tokens), pad, tokens.dtype)])


def _windows(tokens: np.ndarray, length: int, stride: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows (W, length) as they stand, and where each begins (W,)."""
    N = len(tokens)
    if length >= N:
        return padded(tokens, length, pad)[None], np.zeros(1, np.int64)
    first = np.append(np.arange(0, N - length, stride), N - length)
    return tokens[first[:, None] + np.arange(length)], first


def _given(x: np.ndarray) -> np.ndarray:
    """~t for each token t; what is given stays so."""
    return np.where(x >= 0, ~x, x)
