"""The peers of benchmarks/gan.py: a DCGAN and a WGAN-GP, each as its paper has it, for pictures of 16 or 28 pixels.

DCGAN: Radford, Metz and Chintala, arXiv:1511.06434: strided convolutions, batch normalisation in both networks, Adam at 2e-4
and 0.5, batches of 128. WGAN-GP: Gulrajani et al., arXiv:1704.00028, algorithm 1: the same generator, a critic without batch
normalisation, gradient penalty of 10, five steps of the critic for one of the generator, Adam at 1e-4 and (0, 0.9), batches
of 64.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["dcgan", "drawn", "wgan_gp"]

NOISE = 100
GP, CRITIC = 10.0, 5


def generator(channels: int, size: int, width: int) -> nn.Module:
    """z (B, 100) to pictures (B, channels, size, size), in three layers."""
    first = size // 4
    return nn.Sequential(
        nn.Linear(NOISE, 2 * width * first * first, bias=False), nn.Unflatten(1, (2 * width, first, first)),
        nn.BatchNorm2d(2 * width), nn.ReLU(), nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width), nn.ReLU(), nn.ConvTranspose2d(width, channels, 4, 2, 1), nn.Tanh())


def critic(channels: int, size: int, width: int, normalised: bool) -> nn.Module:
    """How real pictures look, (B, 1)."""
    middle = nn.BatchNorm2d(2 * width) if normalised else nn.Identity()
    return nn.Sequential(
        nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 2 * width, 4, 2, 1, bias=not normalised),
        middle, nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(2 * width * (size // 4) ** 2, 1))


def _begun(network: nn.Module, device: str) -> nn.Module:
    """Weights of N(0, 0.02^2), of normalisations N(1, 0.02^2)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
    return network.to(device)


def _pair(x: Tensor, width: int, seed: int, normalised: bool, rate: float, moments: tuple[float, float]) -> tuple[Any, ...]:
    """Generator and critic of pictures like x, and an optimizer for each."""
    torch.manual_seed(seed)
    G, D = generator(x.shape[1], x.shape[2], width), critic(x.shape[1], x.shape[2], width, normalised)
    nets = [_begun(net, str(x.device)) for net in (G, D)]
    return *nets, *(torch.optim.Adam(net.parameters(), rate, moments) for net in nets)


def dcgan(x: Tensor, seconds: float, width: int, seed: int, clock: Callable[[], float] = time.monotonic) -> nn.Module:
    """The generator after so many seconds by a clock, with its `seen` records and `parameters` of both networks."""
    G, D, of_G, of_D = _pair(x, width, seed, True, 2e-4, (0.5, 0.999))
    began, seen, batch = clock(), 0, 128
    while clock() - began < seconds:
        real = x[torch.randint(len(x), (batch,), device=x.device)]
        made = G(torch.randn(batch, NOISE, device=x.device))
        of_D.zero_grad()
        (F.softplus(-D(real)).mean() + F.softplus(D(made.detach())).mean()).backward()
        of_D.step()
        of_G.zero_grad()
        F.softplus(-D(made)).mean().backward()
        of_G.step()
        seen += batch
    return _told(G, D, seen)


def wgan_gp(x: Tensor, seconds: float, width: int, seed: int, clock: Callable[[], float] = time.monotonic) -> nn.Module:
    """The same by the Wasserstein loss with a gradient penalty; seen counts records of the critic."""
    G, D, of_G, of_D = _pair(x, width, seed, False, 1e-4, (0.0, 0.9))
    began, seen, batch = clock(), 0, 64
    while clock() - began < seconds:
        for _ in range(CRITIC):
            real = x[torch.randint(len(x), (batch,), device=x.device)]
            with torch.no_grad():
                made = G(torch.randn(batch, NOISE, device=x.device))
            between = torch.lerp(real, made, torch.rand(batch, 1, 1, 1, device=x.device)).requires_grad_()
            slopes = torch.autograd.grad(D(between).sum(), between, create_graph=True)[0].flatten(1).norm(dim=1)
            of_D.zero_grad()
            (D(made).mean() - D(real).mean() + GP * (slopes - 1).square().mean()).backward()
            of_D.step()
            seen += batch
        of_G.zero_grad()
        (-D(G(torch.randn(batch, NOISE, device=x.device))).mean()).backward()
        of_G.step()
    return _told(G, D, seen)


def _told(G: nn.Module, D: nn.Module, seen: int) -> nn.Module:
    G.seen, G.parameters_of_both = seen, sum(p.numel() for net in (G, D) for p in net.parameters())
    return G


@torch.no_grad()
def drawn(G: nn.Module, count: int, device: str) -> Tensor:
    """Pictures (count, channels, size, size) uint8. Statistics of normalisation are those of the batch, as while learning,
    which for DCGANs draws better than running means do."""
    torch.manual_seed(7)
    made = [G(torch.randn(500, NOISE, device=device)).cpu() for _ in range(-(-count // 500))]
    return ((torch.cat(made)[:count].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
