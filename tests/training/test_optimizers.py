"""The rate over a run, and which optimizer moves what."""

import pytest
import torch
from torch import nn

from verossim.families import Turn
from verossim.families.diffusion import Diffusion
from verossim.families.vae import VAE
from verossim.spaces import Continuous, Discrete
from verossim.training.muon import Muon, orthogonal
from verossim.training.optimizers import MUON, Optimizers, rate

GREY = Continuous(shape=(1, 16, 16), axes=("channel", "height", "width"), levels=256)
VECTOR = Continuous(shape=(4,), axes=("number",))
CLASSES = Discrete(shape=(), vocabulary=3, pad=-1)


@pytest.mark.parametrize("T", [32_000, 3_200_000])
def test_the_rate_rises_stays_and_falls(T):
    b = 32
    warm = min(0.02 * T, 500 * b)
    assert rate(0, T, b) == pytest.approx(b / warm)
    assert rate(T // 2, T, b) == 1.0
    assert rate(T - b, T, b) == pytest.approx(b / (0.3 * T))
    rates = [rate(n, T, b) for n in range(0, T, b)]
    top = rates.index(1.0)
    assert rates[:top + 1] == sorted(rates[:top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates) > 0 and rates.count(1.0) == pytest.approx((0.7 * T - warm) / b, abs=2)


def test_a_run_of_one_step_takes_it():
    assert rate(0, 32, 32) == 1.0


def by(optimizer: type, made: Optimizers) -> set[str]:
    """Names of the parameters that an optimizer of a kind moves."""
    groups = [group for each in made.each() if type(each) is optimizer for group in each.param_groups]
    return {made.names[p] for group in groups for p in group["params"]}


@pytest.mark.parametrize(("kind", "space"), [(VAE, VECTOR), (VAE, GREY), (Diffusion, VECTOR), (Diffusion, GREY)])
def test_muon_takes_the_matrices_inside_and_adamw_the_rest(kind, space):
    family = kind(kind.Config(width=16), space, CLASSES)
    parameters = dict(family.networks.named_parameters())
    made = Optimizers(family.turns, parameters, "muon", 1e-3, 0.01, family.moments)
    inside, outside = by(Muon, made), by(torch.optim.AdamW, made)
    assert inside | outside == parameters.keys() and not inside & outside
    assert inside and all(parameters[name].ndim == 2 for name in inside)
    network = next(iter(family.networks))
    embeddings = {f"{network}.embedding.condition.classes.weight",
                  *([f"{network}.embedding.time.1.weight"] if kind is Diffusion else [])}
    assert {f"{network}.first.weight", f"{network}.last.weight", *embeddings} <= outside
    assert {name for name, p in parameters.items() if p.ndim == 2} - inside <= {f"{network}.first.weight",
                                                                                f"{network}.last.weight", *embeddings}
    assert by(torch.optim.AdamW, Optimizers(family.turns, parameters, "adamw", 1e-3, 0.01, family.moments)) == parameters.keys()


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_decay_is_the_same_by_either(kind):
    """Without a gradient a step is decay alone: rate times decay."""
    weight = nn.Parameter(torch.ones(4, 4))
    made = Optimizers([Turn()], {"net.inner.weight": weight}, kind, 1e-2, 0.5, (0.9, 0.99))
    made.set_rate(0.5)
    weight.grad = torch.zeros(4, 4)
    for optimizer in made.each():
        optimizer.step()
    assert by(Muon, made) == ({"net.inner.weight"} if kind == "muon" else set())
    assert torch.allclose(weight, torch.full((4, 4), 1 - 0.5e-2 * 0.5)) and MUON > 1


def test_each_turn_moves_its_own_networks():
    parameters = {"a.inner.weight": nn.Parameter(torch.ones(3, 3)), "b.inner.weight": nn.Parameter(torch.ones(3, 3))}
    made = Optimizers([Turn("one", ("a",)), Turn("two", ("b",))], parameters, "muon", 1e-3, 0.0, (0.9, 0.99))
    assert {turn: [made.names[p] for p in held] for turn, held in made.parameters.items()} == {
        "one": ["a.inner.weight"], "two": ["b.inner.weight"]}


@pytest.mark.parametrize("size", [(6, 6), (4, 9), (12, 5)])
def test_muon_is_pytorch_s_own_but_for_the_rounding_of_its_products(size):
    torch.manual_seed(0)
    start = torch.randn(size)
    mine, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    ours = Muon([{"params": [mine]}], 0.1, 0.05)
    peer = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.05)
    for _ in range(5):
        mine.grad = torch.randn(size)
        theirs.grad = mine.grad.clone()
        ours.step()
        peer.step()
    moved, apart = (mine - start).norm(), (mine - theirs).norm()
    assert apart < 0.02 * moved  # bfloat16 has three digits


def test_the_step_of_muon_has_singular_values_near_one_and_the_vectors_of_the_gradient():
    G = torch.randn(8, 20, generator=torch.Generator().manual_seed(1))
    U, _, V = torch.linalg.svd(G, full_matrices=False)
    turned = U.T @ orthogonal(G) @ V.T
    assert ((turned.diagonal() > 0.6) & (turned.diagonal() < 1.3)).all()
    assert (turned - turned.diagonal().diag()).abs().max() < 1e-4
