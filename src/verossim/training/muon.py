"""Muon: steps of unit spectral norm for matrices (Jordan et al., "Muon: an optimizer for hidden layers in neural networks",
2024).

    M <- M + (1 - mu) (G - M)        U = G + mu (M - G)
    W <- (1 - rate decay) W - rate max(1, rows / columns)^(1/2) orthogonal(U)

orthogonal(U) has about the singular vectors of U and singular values near 1: five steps of an odd polynomial from U over its
norm. PyTorch's own takes them in bfloat16, which a CPU without units for it does three times slower than float32, and whose
rounding parts ranks that should be equal. Here they are in float32; on a GPU in bfloat16.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Muon", "orthogonal"]

MOMENTUM, STEPS = 0.95, 5
A, B, C = 3.4445, -4.7750, 2.0315  # of the polynomial a x + b x^3 + c x^5


class Muon(torch.optim.Optimizer):
    """Moves matrices (rows, columns); state by parameter: "momentum_buffer"."""

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, decay: float):
        super().__init__(groups, {"lr": lr, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of every matrix that has a gradient."""
        for group in self.param_groups:
            rate, decay = group["lr"], group["decay"]
            for W in group["params"]:
                if W.grad is None:
                    continue
                state = self.state[W]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(W)
                G, M = W.grad, state["momentum_buffer"].lerp_(W.grad, 1 - MOMENTUM)
                rows, columns = W.shape
                W.mul_(1 - rate * decay)
                W.add_(orthogonal(G.lerp(M, MOMENTUM)).to(W.dtype), alpha=-rate * max(1.0, rows / columns) ** 0.5)


def orthogonal(U: Tensor) -> Tensor:
    """(rows, columns) with about the singular vectors of U and singular values from 0.7 to 1.2; bfloat16 on a GPU."""
    X = U.to(torch.bfloat16 if U.is_cuda else torch.float32)
    wide = X.shape[0] <= X.shape[1]
    X = X if wide else X.T
    X = X / X.norm().clamp(min=1e-7)
    for _ in range(STEPS):
        S = X @ X.T
        X = torch.addmm(X, torch.addmm(S, S, S, beta=B, alpha=C), X, beta=A)
    return X if wide else X.T
