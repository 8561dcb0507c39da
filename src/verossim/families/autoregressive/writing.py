"""Writing token by token: what may come next, and which of it does.

    l_v <- l_v / r or l_v r            v stands there already: whichever makes it less likely (Keskar et al., arXiv:1909.05858)
    p = softmax(l / temperature), then only the likeliest: top-k (Fan, Lewis and Dauphin, arXiv:1805.04833), top-p (Holtzman et
    al., arXiv:1904.09751), min-p (Nguyen et al., arXiv:2407.01082), and p over its sum
    x_i = the first v with p_1 + ... + p_v > u        u uniform on (0, 1), the next number of the sample's own stream

Where nothing is changed (temperature 1, nothing left out), p is the model's own, and the sum of its logarithms is log_prob.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ...errors import BadData
from ...nn.decoding import decoder
from ...seeds import Noise
from ...spaces import Discrete

__all__ = ["Writing", "allowed", "begun", "drawn"]

COLD = 1e-30  # a temperature below which float32 has no numbers for what comes of it
AHEAD = 256  # random numbers of each sample that are drawn at a time


class Writing(Iterator[Tensor]):
    """Samples while they are written. Each step gives all that stands so far, (B, N): what was given as ~t, and padding after
    the end.

    ends : tokens at which a sample ends. rule : what may come next, by `allowed(rows)` and `take(row, token)`, or None.
    log_p (B,) float64 : nats of what was written, under what was allowed. done (B,) : which have ended.
    """

    def __init__(self, family: Any, noise: Noise, given: Tensor, beside: Tensor | None, sampling: Any,
                 ends: tuple[int, ...], rule: Any = None):
        self.rule = rule
        self.family, self.noise, self.sampling, self.beside = family, noise, sampling, beside
        B, M = given.shape
        self.pad, self.ends = family.pad, ends
        there = given != self.pad
        self.lengths = there.sum(dim=1)  # entries that stand, the family's own first token not counted
        if B and int(self.lengths.min()) + family.begin < 1:
            raise BadData("TEXT_EMPTY", "There is nothing for the first token to follow.",
                          "Begin with the space's own first token.")
        dims, limit = family.space.dims, sampling.tokens
        if limit is None and dims <= M:
            limit = max(1, dims // 2)  # what is given fills the context already
        most = dims if limit is None else max(dims, M + limit)
        self.last = torch.full_like(self.lengths, most) if limit is None else self.lengths + limit
        self.first = torch.zeros_like(self.lengths)  # the token that each sample's context begins with
        self.x = torch.full((B, most), self.pad, dtype=torch.int64, device=given.device)
        self.x[:, :M] = torch.where(there & (given >= 0), ~given, given)
        self.log_p = torch.zeros(B, dtype=torch.float64, device=given.device)
        self.done = self.lengths >= self.last
        self.present = torch.zeros(B, family.vocabulary + family.begin, dtype=torch.bool, device=given.device)
        tokens = family.plain(given)
        for row, count in enumerate((self.lengths + family.begin).tolist()):
            self.present[row, tokens[row, :count]] = True
        self.drawn, self.u = AHEAD, given.new_zeros(0)
        self.decoder: Any = None
        self.logits = given.new_zeros(0)  # of what comes next, (B, V)
        self._feed(tokens)

    def __next__(self) -> Tensor:
        if bool(self.done.all()):
            raise StopIteration
        V = self.family.vocabulary
        log_p = allowed(self._ruled(self.logits[:, :V].float()), self.sampling, self.present[:, :V])
        token = self._drawn(log_p)
        rows = torch.nonzero(~self.done)[:, 0]
        entry = self.family.entries(token)
        self.x[rows, self.lengths[rows]] = entry[rows]
        self.log_p[rows] += log_p[rows, token[rows]].double()
        self.present[rows, token[rows]] = True
        self.lengths[rows] += 1
        for row in rows.tolist() if self.rule is not None else ():
            self.rule.take(row, int(entry[row]))
        self.done |= self.lengths >= self.last
        for end in self.ends:
            self.done[rows] |= entry[rows] == end
        going = ~self.done
        if bool(going.any()):
            if int(self.decoder.lengths[going].max()) >= self.decoder.length:
                self._feed(self.family.plain(self.x))
            else:
                self.logits = self.decoder.step(token, going)
        return self.x

    def finish(self, rows: Tensor) -> None:
        """Samples (B,) bool that shall not go on."""
        self.done |= rows.to(self.done.device)

    def _ruled(self, logits: Tensor) -> Tensor:
        """The logits, -inf for tokens that a rule forbids; all of those that have ended."""
        if self.rule is None:
            return logits
        rows = torch.nonzero(~self.done)[:, 0]
        known = self.family.entries(torch.arange(logits.shape[1]))
        may = self.rule.allowed(rows.tolist())[:, known].to(logits.device)
        return logits.index_put((rows,), logits[rows].masked_fill(~may, -torch.inf))

    def _feed(self, tokens: Tensor) -> None:
        """Reads what stands so far; of a sample that fills the context its last half, whatever the others do."""
        length, total = self.family.shape.length, self.lengths + self.family.begin
        full = total - self.first >= length
        self.first = torch.where(full, total - max(1, length // 2), self.first)
        counts = total - self.first
        at = self.first[:, None] + torch.arange(int(counts.max()), device=tokens.device)
        room = min(length, int((counts + self.last - self.lengths).max()))
        self.decoder = decoder(self.family.net, len(tokens), room, self.beside)
        self.logits = self.decoder.feed(tokens.gather(1, at.clamp(max=tokens.shape[1] - 1)), counts)

    def _drawn(self, log_p: Tensor) -> Tensor:
        """A token for each sample (B,), by the next number of its stream; the likeliest where temperature is 0."""
        if self.sampling.temperature == 0:
            return log_p.argmax(dim=1)
        if self.drawn == AHEAD:
            self.u, self.drawn = self.noise.uniform(AHEAD).to(log_p), 0
        u = self.u[:, self.drawn, None]
        self.drawn += 1
        return drawn(u, log_p)


def drawn(u: Tensor, log_p: Tensor) -> Tensor:
    """The first token (B,) whose probability together with those before it exceeds u (B, 1)."""
    below = log_p.exp().cumsum(dim=1)
    return (below <= u * below[:, -1:]).sum(dim=1).clamp(max=log_p.shape[1] - 1)


def begun(given: Tensor | None, count: int, space: Discrete) -> Tensor:
    """What `count` samples begin with, (B, M): `given` (B, M) or (M,), or the space's first token, or nothing."""
    if given is None:
        given = torch.zeros(0, dtype=torch.int64) if space.start is None else torch.tensor([~space.start])
    return (given.expand(count, -1) if given.ndim == 1 else given).to(torch.int64)


def allowed(logits: Tensor, sampling: Any, present: Tensor) -> Tensor:
    """log p of each token (B, V) after all that `sampling` asks for; -inf for those that are left out. present (B, V): tokens
    that stand there already."""
    l = logits
    if sampling.repetition != 1:
        l = torch.where(present, torch.where(l > 0, l / sampling.repetition, l * sampling.repetition), l)
    if sampling.temperature not in (0, 1):
        l = (l - l.amax(dim=1, keepdim=True)) / max(sampling.temperature, COLD)
    if 0 < sampling.top_k < l.shape[1]:
        l = l.masked_fill(l < l.topk(sampling.top_k, dim=1).values[:, -1:], -torch.inf)
    if sampling.top_p < 1:
        p, order = l.softmax(dim=1).sort(dim=1, descending=True, stable=True)
        out = torch.zeros_like(p, dtype=torch.bool).scatter_(1, order, p.cumsum(dim=1) - p >= sampling.top_p)
        l = l.masked_fill(out, -torch.inf)
    if sampling.min_p:
        p = l.softmax(dim=1)
        l = l.masked_fill(p < sampling.min_p * p.amax(dim=1, keepdim=True), -torch.inf)
    return l.log_softmax(dim=1)
