"""The continuation of the best score, as far as a beam sees: the best few hypotheses are kept, a token longer each time.

    score = log p / n^alpha        n: tokens written (Wu et al., arXiv:1609.08144, without its constant)

Hypotheses that have ended are set aside; the search ends where none that goes on can come to a better score, or at the limit.
"""

from typing import Any

import torch
from torch import Tensor

from ...nn.decoding import decoder

__all__ = ["searched"]

ALPHA = 0.6


def searched(family: Any, given: Tensor, beside: Tensor | None, width: int, tokens: int,
             ends: tuple[int, ...]) -> tuple[Tensor, float]:
    """Entries (N,) that begin with `given` (M,), all known, and log p of what was added, of the best hypothesis. beside
    (1, width of the network) : the condition's vector, or None."""
    plain = family.plain(given[None])
    most = min(tokens, family.shape.length - plain.shape[1] + 1)
    if most < 1:
        return given, 0.0
    reader = decoder(family.net, width, plain.shape[1] + most - 1, None if beside is None else beside.expand(width, -1))
    counts = torch.zeros(width, dtype=torch.int64)
    counts[0] = plain.shape[1]
    logits = reader.feed(plain.expand(width, -1).contiguous(), counts)
    reader.keep(torch.zeros(width, dtype=torch.int64))
    x = torch.empty(width, 0, dtype=torch.int64)
    total = torch.full((width,), -torch.inf, dtype=torch.float64)
    total[0] = 0.0
    ended: list[tuple[float, Tensor, float]] = []
    for n in range(1, most + 1):
        log_p = logits[:, :family.vocabulary].cpu().double().log_softmax(dim=1) + total[:, None]
        best, which = log_p.flatten().topk(min(2 * width, log_p.numel()))
        rows, entries = which // log_p.shape[1], family.entries(which % log_p.shape[1])
        going: list[int] = []
        for place, (row, entry, found) in enumerate(zip(rows.tolist(), entries.tolist(), best.tolist(), strict=True)):
            if found == -torch.inf:
                continue
            if entry in ends or n == most:
                ended.append((found / n ** ALPHA, torch.cat([x[row], entries[place:place + 1]]), found))
            elif len(going) < width:
                going.append(place)
        ended = sorted(ended, key=lambda one: -one[0])[:width]
        if not going or (ended and float(best[going[0]]) / most ** ALPHA < ended[0][0]):
            break
        keep = torch.tensor(going + going[:1] * (width - len(going)))
        x, total = torch.cat([x[rows[keep]], entries[keep, None]], dim=1), best[keep].clone()
        total[len(going):] = -torch.inf
        reader.keep(rows[keep])
        logits = reader.step((which[keep] % log_p.shape[1]).to(plain.device))
    _, added, log_p_added = ended[0]
    return torch.cat([given, added]), log_p_added
