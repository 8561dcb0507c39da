"""What an honest table needs beside models: real records, copies of what was learned from, and noise.

Real records show the floor of every measure, copies what a measure cannot tell from learning, noise its ceiling.
"""

import numpy as np
import torch

from ...codecs import Codec
from ...spaces import Problem, Records

__all__ = ["copies", "noise"]


def copies(learned: Records, n: int, seed: int) -> Records:
    """n of the training records, drawn with replacement."""
    return learned.take(np.random.default_rng(seed).integers(0, len(learned), n).tolist())


def noise(learned: Records, codec: Codec, n: int, seed: int) -> Records:
    """n records whose entries are drawn apart from one another: of texts each character from those that occur, of others each
    number uniformly between the least and the greatest that occur in its place."""
    rng = np.random.default_rng(seed)
    if codec.windowed:
        texts = [bytes(text).decode("utf-8", "replace") for text in learned.columns["text"]]
        known = sorted(set("".join(texts)))
        return Records({"text": ["".join(rng.choice(known, 400)) for _ in range(n)]}, "noise")
    problems: list[Problem] = []
    x = codec.encode(codec.parse(learned, problems)).double().flatten(1)
    low, high = (torch.from_numpy(edge(x.numpy(), axis=0)) for edge in (np.nanmin, np.nanmax))
    drawn = low + (high - low) * torch.from_numpy(rng.random((n, x.shape[1])))
    return codec.decode(drawn.view(n, *codec.space.shape).float())
