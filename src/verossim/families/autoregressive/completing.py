"""Filling what is not there, given all that is, what stands after it too.

Left to right, what is known is taken as it is and what is not is drawn, p(x_i | those before). Where something known stands
after a gap, several such draws are weighed by how probable they make it, and one of them is taken (importance resampling:
Rubin, 1988):

    w_k = prod over known i of p(x_i | x_1 ... x_(i-1) of draw k)

A draw may not end before what is known to come; w_k then has the probability that it does not in it. With more draws this
tends to the posterior. A model that learned to write what is between (`gaps`) needs no such thing.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...nn.decoding import decoder
from ...seeds import Noise
from .writing import drawn

__all__ = ["completed"]

DRAWS = 32  # of which one is taken


def completed(family: Any, x: Tensor, beside: Tensor | None, noise: Noise | None) -> Tensor:
    """x (B, N) with its entries that are not there filled in; after an end, nothing is. Without noise the likeliest token is
    taken each time."""
    B, N = x.shape
    known = x != family.pad
    later = F.pad(known[:, 1:].flip(1).cummax(dim=1).values.flip(1), (0, 1))  # whether something known stands after
    inside = bool((~known & later).any())
    K = DRAWS if inside and noise is not None else 1
    rows = torch.arange(B, device=x.device).repeat_interleave(K)
    u = None if noise is None else noise.uniform(N, K).to(x.device).transpose(1, 2).flatten(0, 1)
    pick = torch.zeros(B, device=x.device) if noise is None else noise.uniform().to(x.device)
    tokens, begin = family.plain(x)[rows], int(family.begin)
    made, weights = x[rows].clone(), x.new_zeros(B * K, dtype=torch.float64)
    ended = torch.zeros(B * K, dtype=torch.bool, device=x.device)
    reader = decoder(family.net, B * K, N + begin, None if beside is None else beside[rows])
    given = known[rows] & (made < 0)
    stop = None if family.space.stop is None else int(family.plain(torch.tensor([[family.space.stop]]))[0, -1])
    for i in range(1 - begin, N):
        log_p = reader.step(tokens[:, i - 1 + begin])[:, :family.vocabulary].float().log_softmax(dim=1)
        open_ = ~known[rows, i] & ~ended
        if stop is not None:  # nothing ends before what is known to come
            log_p[:, stop] = log_p[:, stop].masked_fill(open_ & later[rows, i], -torch.inf)
            weights += torch.where(open_, log_p.logsumexp(dim=1).double(), 0.0)
            log_p = log_p.log_softmax(dim=1)
        token = log_p.argmax(dim=1) if u is None else drawn(u[:, i, None], log_p)
        own = tokens[:, i + begin]
        weights += torch.where(known[rows, i] & ~given[:, i], log_p.gather(1, own[:, None])[:, 0].double(), 0.0)
        tokens[:, i + begin] = torch.where(open_, token, own)
        made[:, i] = torch.where(open_, family.entries(token), made[:, i])
        if family.space.stop is not None:
            ended |= made[:, i] == family.space.stop
    share = weights.view(B, K).softmax(dim=1).cumsum(dim=1)
    chosen = (share <= pick[:, None] * share[:, -1:]).sum(dim=1).clamp(max=K - 1)
    return made.view(B, K, N)[torch.arange(B, device=x.device), chosen]

