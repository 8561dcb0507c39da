"""The autoregressive family: a sequence is as probable as each of its tokens after those before it.

    log p(x) = sum_i log p(x_i | x_1 ... x_(i-1))

The network is a causal Transformer (`nn.language`) that gives all of these at once, so that log p is exact. A sequence is
written token by token, each drawn from its own stream of random numbers. Entries that are given (~t for token t) are
conditions: a prompt, the question of an answer, the text to translate. A class or a record as condition is a vector that is
added to every embedding. With `adapter_rank` all weights stand still and adapters learn (`nn.low_rank`).

Everything follows from the width W, or from the depth, which is `blocks` (the scaling of one dial is that of nanochat:
Karpathy, 2025):

    blocks = max(4, W / 64)      heads of 64 numbers, of 32 below a width of 256      inside the MLP 8/3 W, in steps of 16
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...config import knob
from ...errors import BadConfig, Incompatible
from ...nn.conditioning import Condition, dropped
from ...nn.language import ACTIVATIONS, LanguageModel, Shape
from ...nn.low_rank import adapt, stand_still, still
from ...seeds import Noise
from ...spaces import Batch, Discrete, Likelihood, Space
from .. import LearnsByGradient, Losses, Turn
from .beam import searched
from .completing import completed
from .writing import Writing, begun

__all__ = ["MEMBER", "Autoregressive", "shape_of"]

WIDTH = 128  # where nothing is said
PER_BLOCK, FEWEST = 64, 4  # width for each block, and blocks at least
HEADS = 64, 32  # numbers of a head from WIDE on, and below it
WIDE = 256
WIDENED = 8 / 3  # numbers inside SwiGLU over the width; 4 for the others, which have a matrix less
NUMBERS = 1 << 22  # logits at a time
FILLED = 128  # tokens of filling that take about as long as another call
PER_PARAMETER = 4  # tokens that a run with a budget should see at least


class Autoregressive(LearnsByGradient):
    """P(X) or P(X | Y) of token sequences: the mean over tokens of -log p(x_i | x_1 ... x_(i-1))."""

    accepts = (Discrete,)
    likelihood: Literal["exact", "bound", "estimate", "none"] = "exact"
    optimizer = "muon"
    moments = (0.9, 0.95)
    peak = 2e-3
    a_step = (2048, 1 << 15)  # tokens: what is learned from is not records
    anew = ("adapter_rank", "adapter_alpha")
    space: Discrete

    @dataclass(frozen=True, kw_only=True)
    class Config:
        width: int | None = knob(None, "numbers of an embedding; where nothing is said 64 for each block, or 128", low=4,
                                 high=65_536)
        blocks: int | None = knob(None, "blocks, the depth; where nothing is said one for each 64 of the width, at least 4",
                                  low=1, high=1024)
        heads: int | None = knob(None, "heads of attention; where nothing is said of 64 numbers each, or 32 where narrow",
                                 low=1, high=1024)
        groups: int | None = knob(None, "heads of keys and values; where nothing is said as many as heads", low=1, high=1024)
        head: int | None = knob(None, "numbers of a head; where nothing is said width / heads", low=2, high=1024)
        inside: int | None = knob(None, "numbers inside the MLP; where nothing is said 8/3 of the width, or 4 times it", low=1,
                                  high=1 << 20)
        positions: str = knob("rotary", "how places are told", choices=("rotary", "learned"))
        base: float = knob(10_000.0, "the slowest rotation's wavelength over 2 pi", low=1.0, high=1e12)
        norm: str = knob("rms", "how features are normalised", choices=("rms", "layer"))
        eps: float = knob(1e-6, "added to the mean square before its root", low=0.0, high=1.0)
        normed_heads: bool = knob(True, "keys and queries of unit mean square")
        activation: str = knob("swiglu", "inside the MLP", choices=ACTIVATIONS)
        biases: str = knob("none", "which layers have biases", choices=("none", "qkv", "all"))
        tied: bool = knob(True, "one matrix for the embedding and for the logits")
        cap: float = knob(0.0, "logits are bent to lie within; 0 for any", low=0.0, high=1e6)
        values: bool = knob(False, "every other block has an embedding of its own in its values")
        drop: float = knob(0.1, "share of records whose condition is hidden from the network", low=0.0, high=1.0)
        adapter_rank: int = knob(0, "rank of low-rank adapters, which then learn alone, on a model gone on from; 0 for none",
                                 low=0, high=65_536)
        adapter_alpha: float | None = knob(None, "adapters count alpha / rank; where nothing is said alpha is twice the rank",
                                           low=1e-6, high=1e6)

    @dataclass(frozen=True, kw_only=True)
    class Sampling:
        temperature: float = knob(1.0, "logits are divided by it; 0 takes the likeliest token", low=0.0, high=100.0)
        top_k: int = knob(0, "only so many of the likeliest tokens; 0 for all", low=0, high=1 << 24)
        top_p: float = knob(1.0, "only the likeliest tokens that together are so probable", low=1e-9, high=1.0)
        min_p: float = knob(0.0, "only tokens at least so probable as this share of the likeliest", low=0.0, high=1.0)
        repetition: float = knob(1.0, "logits of tokens that stand there already are divided by it", low=0.01, high=100.0)
        tokens: int | None = knob(None, "tokens to write at most; where nothing is said what the context holds", low=1,
                                  high=1 << 24)

    def __init__(self, config: Any, space: Space, condition: Space | None = None):
        if not isinstance(space, Discrete) or not space.shape:
            raise Incompatible("SPACE", f"An autoregressive family learns sequences of tokens, not {type(space).__name__}.",
                               "Use family diffusion, vae or gan, or read the data as text: modality='text'.")
        self.begin = space.start is None  # whether a token of its own, the last, stands before the first
        self.pad = space.vocabulary if space.pad is None else space.pad  # which the network does not know of
        self.vocabulary = space.vocabulary - (0 <= self.pad < space.vocabulary)
        super().__init__(_resolved(config), space, condition)
        self.shape = shape_of(self.config, self.vocabulary + self.begin, space.dims + self.begin - 1)
        self.networks, self.held = nn.ModuleDict({"net": LanguageModel(self.shape)}), nn.ModuleDict()
        told = None if condition is None else Condition(condition, self.shape.width)
        if self.config.adapter_rank:
            adapt(self.net, self.config.adapter_rank, self.config.adapter_alpha / self.config.adapter_rank)
        if told is not None and self.config.adapter_rank:
            stand_still(told)
            self.held["told"] = told  # apart from the networks, all of which learn
        elif told is not None:
            self.networks["told"] = told

    @property
    def net(self) -> Any:
        """The network, wrapped where it learns on several ranks."""
        return self.networks["net"]

    def size(self, x: Tensor) -> float:
        """Tokens that are there, those that are given too: they take as much time."""
        return max(1.0, float((x != self.pad).sum()) / len(x))

    def enough(self, size: float) -> int:
        """Records with PER_PARAMETER tokens for each number that is learned."""
        return 1 + int(PER_PARAMETER * sum(p.numel() for p in self.networks.parameters()) / size)

    def go_on(self, tensors: Mapping[str, Tensor]) -> None:
        """As LearnsByGradient says; with adapters these are what stands still."""
        if not self.config.adapter_rank:
            self.load_state_dict(dict(tensors))
            return
        mine = {name.replace("held.told.", "networks.told."): buffer for name, buffer in still(self).items()}
        for name, value in tensors.items():
            mine[name].copy_(value)

    def merged(self) -> "Autoregressive":
        """Itself; with adapters a family without, whose matrices are W + (alpha / r) B A."""
        if not self.config.adapter_rank:
            return self
        whole = Autoregressive(replace(self.config, adapter_rank=0, adapter_alpha=None), self.space, self.condition_space)

        def tensor(name: str) -> Tensor:
            module, _, kind = name.replace("networks.told.", "held.told.").rpartition(".")
            return getattr(self.get_submodule(module), kind).detach()
        whole.load_state_dict({name: tensor(name) for name in whole.state_dict()})
        return whole.to(self.device).train(self.training)

    def loss(self, batch: Batch, turn: Turn) -> Losses:
        """Mean nats of a record's own tokens; "nats" is that of as many as the space has."""
        y = batch.condition
        if y is not None and self.training:
            assert batch.noise is not None
            y = dropped(y, batch.noise.uniform().to(self.device), self.config.drop)
        log_p, own = self._each(batch.x, y)
        mean = -log_p.sum(dim=1) / own.sum(dim=1).clamp(min=1)
        return Losses(mean, {"nats": mean.detach() * self.space.coordinates})

    def log_prob(self, x: Tensor, condition: Tensor | None = None, noise: Noise | None = None,
                 method: str | None = None) -> Likelihood:
        """log p(x) or log p(x | y), (B,): the sum over entries that are neither given nor padding; exact."""
        if method is not None:
            self.way(method)
        return Likelihood(self.each(x, condition).sum(dim=1), "exact", self.space.coordinates)

    def each(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """log p(x_i | those before), (B, N) float64; 0 where an entry is given or is not there."""
        rows = max(1, NUMBERS // (x.shape[1] * self.vocabulary))
        found = x.new_zeros(x.shape, dtype=torch.float64)
        with torch.no_grad():
            for first in range(0, len(x), rows):
                y = None if condition is None else condition[first:first + rows]
                log_p, _ = self._each(x[first:first + rows], y)
                found[first:first + rows, :log_p.shape[1]] = log_p
        return found

    def unfold(self, noise: Noise, condition: Tensor | None = None, given: Tensor | None = None,
               **knobs: Any) -> Iterator[Tensor]:
        """Samples (B, N) with one token more each time, of which N grows where `tokens` asks for more than the space holds.
        given (B, M) or (M,): what they begin with; padding at the end of a row is not there."""
        yield from self.writing(noise, condition, given, **knobs)

    def writing(self, noise: Noise, condition: Tensor | None = None, given: Tensor | None = None,
                ends: tuple[int, ...] | None = None, rule: Any = None, **knobs: Any) -> Writing:
        """Samples while they are written, with their log-probabilities. ends: tokens at which one ends, where it is not the
        space's own; rule: what may come next (see `writing`)."""
        sampling = self.Sampling(**knobs)
        opening = begun(given, len(noise), self.space).to(self.device)
        ends = self.ends if ends is None else ends
        return Writing(self, noise, opening, self._beside(condition, len(noise)), sampling, ends, rule)

    def search(self, given: Tensor, condition: Tensor | None = None, beam: int = 4, tokens: int | None = None,
               ends: tuple[int, ...] | None = None) -> tuple[Tensor, float]:
        """The entries (N,) that go on from `given` (M,), and their log p, which a beam of so many hypotheses finds to be best:
        see `beam`. ends: as of `writing`."""
        ends = self.ends if ends is None else ends
        with torch.inference_mode():
            return searched(self, given, self._beside(condition, 1), beam, tokens or self.space.dims, ends)

    @property
    def ends(self) -> tuple[int, ...]:
        """The space's own token at which a sample ends, if there is one."""
        return () if self.space.stop is None else (self.space.stop,)

    def complete(self, x: Tensor, condition: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        """x (B, N) with what is not there filled in given all that is: see `completing`. Without `noise`, the likeliest token
        each time."""
        return completed(self, x.to(self.device), self._beside(condition, len(x)), noise)

    def plain(self, x: Tensor) -> Tensor:
        """Tokens (B, N) of entries as the network numbers them, those that are given too; the family's own first token before
        them where it has one. What is not there becomes some token."""
        tokens = torch.where(x < 0, ~x, x).to(self.device)
        tokens = (tokens - (tokens > self.pad).long()).clamp(max=self.vocabulary - 1)
        return F.pad(tokens, (1, 0), value=self.vocabulary) if self.begin else tokens

    def entries(self, tokens: Tensor) -> Tensor:
        """Entries of tokens as the network numbers them."""
        return tokens + (tokens >= self.pad).long()

    def _each(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """log p of each entry (B, M), 0 where it is not the record's own, and whether it is; M is what the longest has."""
        there = x != self.pad
        lengths = (there * torch.arange(1, x.shape[1] + 1, device=x.device)).amax(dim=1).clamp(min=1)
        longest = int(lengths.max()) if len(x) else 1
        # Apart only in one process on a CPU: a GPU fills up for less, and ranks have to call a wrapped network equally often.
        groups = alike(lengths) if self.device.type == "cpu" and type(self.net) is LanguageModel else []
        if len(groups) > 1:
            found = [self._each(x[rows], None if y is None else y[rows.to(y.device)]) for rows in groups]
            back = torch.cat(groups).argsort()
            log_p, own = (torch.cat([F.pad(each, (0, longest - each.shape[1])) for each in side])[back]
                          for side in zip(*found, strict=True))
            return log_p, own
        x, there = x[:, :longest], there[:, :longest].to(self.device)
        own, tokens = (x >= 0).to(self.device) & there, self.plain(x)
        if not self.begin:
            own = F.pad(own[:, 1:], (1, 0))  # what nothing stands before cannot be told
        logits = self.net(tokens[:, :-1], self._beside(y, len(x))).float()[..., :self.vocabulary]
        log_p = -F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view(logits.shape[:2])
        log_p = log_p if self.begin else F.pad(log_p, (1, 0))
        return torch.where(own, log_p, 0.0), own

    def _beside(self, y: Tensor | None, count: int) -> Tensor | None:
        networks = self.held if self.config.adapter_rank else self.networks
        return networks["told"](None if y is None else y.to(self.device), count) if "told" in networks else None


def alike(lengths: Tensor) -> list[Tensor]:
    """The rows (n,) of sequences of lengths (B,) that are to be told together, the longest first: as many as can be filled up
    to the first of them with at most FILLED tokens in all."""
    order = lengths.argsort(descending=True, stable=True)
    firsts, longest, filled = [0], 0, 0
    for place, length in enumerate(lengths[order].tolist()):
        longest = max(longest, length)
        if filled + longest - length > FILLED:
            firsts.append(place)
            longest, filled = length, 0
        filled += longest - length
    return [order[first:last] for first, last in pairwise([*firsts, len(order)])]


MEMBER = Autoregressive


def shape_of(config: Any, vocabulary: int, length: int) -> Shape:
    """The network of a config that has nothing left open."""
    own = {name: value for name, value in vars(config).items() if name not in ("drop", "adapter_rank", "adapter_alpha")}
    return Shape(vocabulary=vocabulary, length=length, **own)


def _resolved(config: Any) -> Any:
    """The config with nothing left open. Raises BadConfig SETTING_RANGE where numbers do not go together."""
    width = config.width or (PER_BLOCK * config.blocks if config.blocks else WIDTH)
    blocks = config.blocks or max(FEWEST, width // PER_BLOCK)
    heads = config.heads or max(1, width // (config.head or HEADS[width < WIDE]))
    groups = config.groups or heads
    head = config.head or max(2, width // heads // 2 * 2)
    inside = config.inside or (max(16, int(WIDENED * width / 16) * 16) if config.activation == "swiglu" else 4 * width)
    if heads % groups:
        raise BadConfig("SETTING_RANGE", f"'groups' is {groups}, and {heads} heads cannot be shared out among so many.",
                        "It should divide the number of heads.")
    if head % 2 and config.positions == "rotary":
        raise BadConfig("SETTING_RANGE", f"'head' is {head}, and rotary positions turn pairs of numbers.",
                        "Give an even number.")
    rank, alpha = config.adapter_rank, config.adapter_alpha
    if rank > width or (alpha is not None and not rank):
        found = f"rank' is {rank} and the width {width}" if rank else f"alpha' is {alpha} without 'adapter_rank'"
        raise BadConfig("SETTING_RANGE", f"'adapter_{found}.", "Give a rank from 1 to the width; 8 is usual.")
    alpha = 2.0 * rank if rank and alpha is None else alpha
    return replace(config, width=width, blocks=blocks, heads=heads, groups=groups, head=head, inside=inside,
                   adapter_alpha=alpha)
