"""Randomness that belongs to the sample, not to the batch: one stream of numbers per sample.

Sample 7 is sample 7 in any batch, on any number of ranks, because its stream depends on (seed, 7) alone. The streams are
SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): the state of a sample is
hashed from (seed, index), its n-th draw is mix(state + n * gamma). Integer arithmetic only, so the bits are the same on
every machine. Normals are made by the Box-Muller transform in the dtype asked for.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from .errors import BadConfig

__all__ = ["GAMMA", "Noise", "check_seed", "mixed", "reseed", "untouched"]

GAMMA = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio
MIX_1, MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
WORD = (1 << 64) - 1
CHUNK = 1 << 15  # 64-bit words hashed at a time: 256 KiB, which stays in the second-level cache


def check_seed(seed: int) -> int:
    """The seed, if it is a whole number in [0, 2^63). Raises BadConfig SEED_RANGE."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 63:
        raise BadConfig("SEED_RANGE", f"The seed is {seed!r}.", "It should be a whole number from 0 to 2^63 - 1.")
    return seed


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """Within, PyTorch's global generators may be used; after, they are as they were."""
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        yield


def reseed(seed: int, rank: int, samples: int) -> None:
    """Sets PyTorch's global generators from (seed, rank, samples seen), so that a resumed run needs no saved state."""
    number = _mixed_number(_mixed_number(_mixed_number(seed) + rank) + samples) & ((1 << 63) - 1)
    torch.default_generator.manual_seed(number)  # torch.manual_seed would note a stack trace for every device that is not here
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)


class Noise:
    """Random draws for samples number `first` to `first + count - 1` of a seed.

    Each call moves every stream on by the draws it makes, so two runs that make the same calls draw the same numbers.
    """

    def __init__(self, seed: int, count: int, first: int = 0):
        self.seed, self.count, self.first, self.drawn = check_seed(seed), count, first, 0
        self.device: str | torch.device = "cpu"

    def __len__(self) -> int:
        return self.count

    @functools.cached_property
    def state(self) -> np.ndarray:
        """The state of each stream, (B,) uint64; made when the first number is drawn."""
        index = np.arange(self.first, self.first + self.count, dtype=np.uint64)
        return mixed(np.uint64(_mixed_number(self.seed)) + index * np.uint64(GAMMA))

    def part(self, first: int, last: int) -> "Noise":
        """The streams of the samples from `first` to before `last`, from where they stand."""
        return self._with(self.state[first:last], self.device)

    def rows(self, order: Tensor) -> "Noise":
        """The streams of the samples numbered `order` (int64), in that order, from where they stand."""
        return self._with(self.state[order.cpu().numpy()], self.device)

    def to(self, device: str | torch.device) -> "Noise":
        """The same streams, whose draws come on a device."""
        return self._with(self.state, device)

    def _with(self, state: np.ndarray, device: str | torch.device) -> "Noise":
        piece = object.__new__(Noise)
        piece.state, piece.count, piece.drawn, piece.device = state, len(state), self.drawn, device
        return piece

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Uniform on the open interval (0, 1), (B, *shape): 24 random bits in float32, 53 in float64."""
        out = torch.empty(len(self), math.prod(shape), dtype=dtype, device=self.device)
        self._fill(out, out.shape[1], _unit)
        return out.view(len(self), *shape)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal, (B, *shape)."""
        each = math.prod(shape)
        pairs = -(-each // 2)
        out = torch.empty(len(self), 2 * pairs, dtype=dtype, device=self.device)
        self._fill(out, pairs, _box_muller)
        return out[:, :each].reshape(len(self), *shape)

    def _fill(self, out: Tensor, words: int, fill: Callable[[np.ndarray, Tensor], None]) -> None:
        """Fills `out` (B, n) from `words` 64-bit words a row, a cacheful of rows at a time."""
        steps = np.arange(self.drawn + 1, self.drawn + words + 1, dtype=np.uint64) * np.uint64(GAMMA)
        self.drawn += words
        rows = max(1, CHUNK // max(words, 1))
        for row in range(0, len(self), rows):
            fill(mixed(self.state[row:row + rows, None] + steps), out[row:row + rows])


def mixed(z: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: a bijection of uint64 that scatters neighbouring values."""
    z = z ^ (z >> np.uint64(30))
    z *= np.uint64(MIX_1)
    z ^= z >> np.uint64(27)
    z *= np.uint64(MIX_2)
    z ^= z >> np.uint64(31)
    return z


def _mixed_number(z: int) -> int:
    """The same of one number, as an unsigned 64-bit integer."""
    z &= WORD
    z = (z ^ z >> 30) * MIX_1 & WORD
    z = (z ^ z >> 27) * MIX_2 & WORD
    return z ^ z >> 31


def _whole(words: np.ndarray) -> Tensor:
    """Numbers below 2^63 as a tensor."""
    return torch.from_numpy(words.view(np.int64))


def _unit(words: np.ndarray, out: Tensor) -> None:
    bits = 24 if out.dtype == torch.float32 else 53
    out.copy_(_whole(words >> np.uint64(64 - bits))).add_(0.5).mul_(2.0 ** -bits).clamp_(max=1 - 2.0 ** -bits)


def _box_muller(words: np.ndarray, out: Tensor) -> None:
    """Two normals a word: radius from the high 32 bits, angle from the low 32."""
    pairs = words.shape[1]
    radius, angle = out[:, :pairs], out[:, pairs:]
    radius.copy_(_whole(words >> np.uint64(32))).add_(0.5).mul_(2.0 ** -32).log_().mul_(-2).clamp_(min=0).sqrt_()
    angle.copy_(_whole(words & np.uint64((1 << 32) - 1))).mul_(2 * math.pi * 2.0 ** -32)
    cosine = angle.cos()
    angle.sin_().mul_(radius)
    radius.mul_(cosine)
