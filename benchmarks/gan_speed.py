"""Pictures a second of a step of adversarial learning, against torch-mimicry's SNGAN and the StyleGAN2 of stylegan3.

    pip install --no-deps torch-mimicry
    git clone https://github.com/NVlabs/stylegan3 .data-cache/stylegan3 && git -C .data-cache/stylegan3 checkout c233a91
    python benchmarks/gan_speed.py

A step is one turn of the discriminator and one of the generator, optimizers included, on random pictures 32 x 32 x 3. Ours is
the family in the library's whole loop, with the penalties on real and on made records at every step, and a fiftieth of an
exam; for networks equal to the peers' it has blocks at 32 x 32 too, where it would begin at half of that. It is timed without
penalties as well, for peers have none, or one every sixteenth step.

torch-mimicry (batches of 64): its networks (128 channels everywhere) with their own train_step, hinge loss and Adam, with
one turn of each a step. Ours has as many multiplications (72 channels at 32 x 32, twice and four times as many below), as its
formulas are written; what it really does is told too, for it halves lengths early. Its own networks are also taught by our loop
and loss, real and made records in one pass, without penalties, as their own step has none.

StyleGAN2 (batches of 32): widths of 64, 128, 256, 256 on both sides, its own loss with style mixing, R1 every sixteenth step
and path lengths every fourth, in float32 and by plain convolutions in training as its train.py has it. Phases are timed
apart and added by how often they come; averages of its weights and statistics are left out, on its side alone. All in float32.
Results: benchmarks/results/gan_speed.jsonl.
"""

import argparse
import contextlib
import importlib
import importlib.util
import json
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from packaging.version import Version
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from real import CACHE
from timing import host, interleaved, limits, write
from verossim.families import LearnsByGradient, Losses, Turn
from verossim.families.gan import GAN
from verossim.nn import adversary, resampling
from verossim.nn.layers import pooled, unpooled
from verossim.seeds import Noise
from verossim.spaces import Batch, Continuous
from verossim.training import InMemory, Settled
from verossim.training.engine import Engine
from verossim.training.journal import Journal
from verossim.training.loop import _Run

SIDE, LATENT = 32, 128
SPACE = Continuous(shape=(3, SIDE, SIDE), axes=("channel", "height", "width"), levels=256)
SNGAN = {"batch": 64, "channels": 128, "width": 72}
STYLEGAN = {"batch": 32, "width": 64}
LAZY = {"Gmain": 1, "Greg": 4, "Dmain": 1, "Dreg": 16}  # how often StyleGAN2's phases come
PROBE = 256  # records of an exam
ADDED = {"stylegan2": LAZY, "stylegan2, without path lengths": {"Gmain": 1, "Dmain": 1, "Dreg": 16},
         "stylegan2, R1 every step and no path lengths": {"Gmain": 1, "Dmain": 1, "Dreg": 1}}
OURS = {"verossim": 1.0, "verossim, no penalties": 0.0}
GOALS = {"mimicry": 1.4, "stylegan2": 1.2}


@dataclass(frozen=True)
class Net:
    """What is compared of two networks: parameters, and multiply-adds of a picture's forward pass in millions."""

    generator: Any
    discriminator: Any
    made: tuple[Tensor, ...]
    seen: tuple[Any, ...]

    def sizes(self) -> dict[str, float]:
        """Of each network and together."""
        told = {}
        for name, network, given in (("G", self.generator, self.made), ("D", self.discriminator, self.seen)):
            told[f"{name} parameters"] = sum(p.numel() for p in network.parameters())
            with FlopCounterMode(display=False) as counted, torch.no_grad():
                network(*given)
            told[f"{name} M multiply-adds"] = round(counted.get_total_flops() / 2e6 / len(given[0]), 1)
        return told


class Theirs(LearnsByGradient):
    """torch-mimicry's networks, to be taught by our loop: softplus of pairs, real and made ones in one pass."""

    accepts, likelihood = (Continuous,), "none"
    turns = (Turn("discriminator", ("discriminator",)), Turn("generator", ("generator",)))
    moments = (0.0, 0.99)
    descends = False

    def __init__(self, config: Any, space: Any, condition: Any = None):
        super().__init__(config, space, condition)
        networks: Any = nn.ModuleDict(sngan())
        self.networks = networks.to(memory_format=torch.channels_last)

    def loss(self, batch: Batch, turn: Turn) -> Losses:
        """As GAN has it, without penalties."""
        assert batch.noise is not None
        G, D, z = self.networks["generator"], self.networks["discriminator"], batch.noise.normal(LATENT)
        learns = turn.name == "generator"
        x = batch.x.contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(learns):
            made = G(z)
        if learns:
            with torch.no_grad():
                D_real = D(x)[:, 0]
            return Losses(F.softplus(D_real - D(made)[:, 0]))
        D_real, D_made = D(torch.cat([x, made.detach()]))[:, 0].chunk(2)
        return Losses(F.softplus(D_made - D_real))

    def unfold(self, noise: Any, condition: Any = None, **knobs: Any) -> Iterator[Tensor]:
        """Nothing: it is the loop that is asked here."""
        yield from ()

    log_prob = complete = unfold


def sngan() -> dict[str, nn.Module]:
    """torch-mimicry's generator and discriminator. Only its networks are loaded: the rest of the package asks for others."""
    if "torch_mimicry" not in sys.modules:
        found = importlib.util.find_spec("torch_mimicry")
        if found is None or found.submodule_search_locations is None:
            raise SystemExit("torch-mimicry is not there: pip install --no-deps torch-mimicry")
        sys.modules["torch_mimicry"] = package = types.ModuleType("torch_mimicry")
        package.__path__ = list(found.submodule_search_locations)
    nets = importlib.import_module("torch_mimicry.nets.sngan.sngan_32")
    torch.manual_seed(0)
    return {"generator": nets.SNGANGenerator32(ngf=SNGAN["channels"]),
            "discriminator": nets.SNGANDiscriminator32(ndf=SNGAN["channels"])}


def mimicry(x: Tensor) -> tuple[Net, Callable[[], None]]:
    """Its networks, and a step as its trainer takes it."""
    class Log(dict[str, Any]):
        def add_metric(self, name: str, value: Any, **knobs: Any) -> None:
            self[name] = float(value)
    nets: Any = sngan()
    G, D = nets["generator"], nets["discriminator"]
    optimizers = [torch.optim.Adam(net.parameters(), 2e-4, betas=(0.0, 0.9)) for net in (G, D)]

    def step() -> None:
        given: dict[str, Any] = {"real_batch": (x, None), "log_data": Log(), "device": torch.device("cpu")}
        D.train_step(netG=G, optD=optimizers[1], **given)
        G.train_step(netD=D, optG=optimizers[0], **given)
    return Net(G, D, (torch.randn(2, LATENT),), (x[:2],)), step


def stylegan(x: Tensor) -> tuple[Net, dict[str, Callable[[], None]]]:
    """StyleGAN2's networks, and each phase of its training as its train.py and training_loop.py set it up."""
    if not (CACHE / "stylegan3").exists():
        raise SystemExit("stylegan3 is not there: see the first lines of this file for how to get it.")
    sys.path.insert(0, str(CACHE / "stylegan3"))
    if importlib.util.find_spec("pkg_resources") is None:  # newer setuptools are without it
        sys.modules["pkg_resources"] = stand_in = types.ModuleType("pkg_resources")
        stand_in.__dict__["parse_version"] = Version
    nets, losses = (importlib.import_module(f"training.{name}") for name in ("networks_stylegan2", "loss"))
    width, wide = STYLEGAN["width"], {"channel_base": STYLEGAN["width"] * SIDE, "channel_max": 4 * STYLEGAN["width"]}
    torch.manual_seed(0)
    kept: dict[str, Any] = {**wide, "num_fp16_res": 0, "conv_clamp": None}
    G = nets.Generator(LATENT, 0, LATENT, SIDE, 3, mapping_kwargs={"num_layers": 2}, fused_modconv_default="inference_only",
                       **kept).train().requires_grad_(False)
    D = nets.Discriminator(0, SIDE, 3, **kept).train().requires_grad_(False)
    assert G.synthesis.b32.conv1.weight.shape[0] == width
    loss = losses.StyleGAN2Loss(torch.device("cpu"), G, D, r1_gamma=1, style_mixing_prob=0.9, pl_weight=2,
                                pl_no_weight_grad=True)
    optimizers = {}
    for name, network, every in (("G", G, LAZY["Greg"]), ("D", D, LAZY["Dreg"])):
        ratio = every / (every + 1)
        optimizers[name] = torch.optim.Adam(network.parameters(), 2e-3 * ratio, betas=(0.0, 0.99**ratio), eps=1e-8)
    none = torch.zeros(len(x), 0)

    def phase(name: str) -> Callable[[], None]:
        network, optimizer = (G, optimizers["G"]) if name[0] == "G" else (D, optimizers["D"])

        def run() -> None:
            optimizer.zero_grad(set_to_none=True)
            network.requires_grad_(True)
            loss.accumulate_gradients(phase=name, real_img=x, real_c=none, gen_z=torch.randn(len(x), LATENT), gen_c=none,
                                      gain=LAZY[name], cur_nimg=0)
            network.requires_grad_(False)
            optimizer.step()
        return run
    one = none[:2]
    return Net(G, D, (torch.randn(2, LATENT), one), (x[:2], one)), {name: phase(name) for name in LAZY}


@contextlib.contextmanager
def learning(family: LearnsByGradient, x: Tensor) -> Iterator[Any]:
    """The state of the library's loop about a family, ready to learn from batches."""
    probe = x.repeat(-(-PROBE // len(x)), 1, 1, 1)[:PROBE]
    data = InMemory(Batch(probe, None, torch.ones(PROBE), torch.arange(PROBE)))
    run = _Run(family, Settled(samples=1 << 40, batch=len(x), rate=family.peak), 0, Engine(), Journal(), None, None, None)
    family.train()
    with mock.patch.object(type(family), "start", lambda *_: None), run.prepared(data, None):  # the unit of penalties stays 1
        yield run


def ours(width: int, penalty: float) -> GAN:
    """The family of some width, with blocks at all resolutions as the peers have; everything else as it comes."""
    torch.manual_seed(0)
    with mock.patch.object(adversary, "FINEST", SIDE):
        return GAN(GAN.Config(width=width, latent=LATENT, penalty=penalty), SPACE)


def written(family: GAN) -> dict[str, float]:
    """Sizes of our networks as their formulas are written, and with "done" what is really multiplied."""
    net = Net(family.generator, family.discriminator, (torch.randn(2, LATENT),), (torch.randn(2, *SPACE.shape),))
    plain = dict.fromkeys(("lowered", "raised"), resampling.reference)

    def late(self: Any, h: Tensor, w: Any = None, axes: Any = None, halved: bool = False) -> Tensor:
        h = Block(self, h if axes is None else unpooled(h, axes), w)
        return pooled(h) if halved else h
    Block = adversary.Block.forward
    with mock.patch.multiple(adversary, **plain), mock.patch.object(adversary.Block, "forward", late):
        told = net.sizes()
    return told | {f"{name} done": value for name, value in net.sizes().items() if "multiply" in name}


def turns(run: Any, batch: Batch) -> dict[str, Callable[[], None]]:
    """Each turn of a step alone."""
    def turn(number: int) -> Callable[[], None]:
        def one() -> None:
            noise = Noise(1, len(batch.x))
            given = Batch(batch.x, None, batch.units, batch.index, noise)
            run.turn(given, run.family.turns[number], float(len(batch.x)))
        return one
    return {"discriminator's turn": turn(0), "generator's turn": turn(1)}


def peer(name: str, rounds: int, about: dict[str, Any], rates: dict[str, float]) -> None:
    """Times one peer and ours beside it."""
    batch = (SNGAN if name == "mimicry" else STYLEGAN)["batch"]
    width = (SNGAN if name == "mimicry" else STYLEGAN)["width"]
    torch.manual_seed(0)
    x = (torch.randint(0, 256, (batch, *SPACE.shape)).float() + 0.5) / 128 - 1
    whole = Batch(x, None, torch.ones(batch), torch.arange(batch))
    functions: dict[str, Callable[[], Any]] = {}
    with contextlib.ExitStack() as held:
        if name == "mimicry":
            net, functions["mimicry"] = mimicry(x)
            run = held.enter_context(learning(Theirs(None, SPACE), x))
            functions["mimicry's networks, our loop"] = lambda run=run: run.learn(whole)
        else:
            net, phases = stylegan(x)
            functions |= phases
        sizes = {"theirs": net.sizes(), "ours": written(ours(width, 1.0))}
        for side, told in sizes.items():
            print(name, side, told, flush=True)
            write("gan_speed.jsonl", what="sizes", peer=name, side=side, **told, **about)
        for label, penalty in OURS.items():
            run = held.enter_context(learning(ours(width, penalty), x))
            functions[label] = lambda run=run: run.learn(whole)
            functions |= {f"{label}: {part}": one for part, one in turns(run, whole).items()}
            if penalty:
                functions["exam"] = run.examine
        times = interleaved(functions, rounds)
    times |= {label: {"seconds": sum(times[phase]["seconds"] / often for phase, often in every.items()),
                      "least": sum(times[phase]["least"] / often for phase, often in every.items())}
              for label, every in (ADDED.items() if name == "stylegan2" else ())}
    for who, found in times.items():
        line = {"pictures_a_second": batch / found["seconds"], "ratio": times[name]["seconds"] / found["seconds"],
                "ratio_of_least": times[name]["least"] / found["least"]}
        print(f"{who:48}{found['seconds'] * 1e3:9.0f} ms {line['pictures_a_second']:8.1f} pictures/s {line['ratio']:6.2f}x "
              f"(at least disturbed {line['ratio_of_least']:.2f}x)", flush=True)
        write("gan_speed.jsonl", what="step", peer=name, who=who, batch=batch, **found, **line, **rates, **about)
    verdict(name, times, sizes, about)


def verdict(name: str, times: dict[str, dict[str, float]], sizes: dict[str, dict[str, float]], about: dict[str, Any]) -> None:
    """Ratios with the exam's share in each of our steps, and where the time goes."""
    told: dict[str, Any] = {"goal": GOALS[name]}
    work = {side: sum(value for key, value in found.items() if key.endswith("adds")) for side, found in sizes.items()}
    for kind, key in (("seconds", "seconds"), ("least disturbed", "least")):
        exam = times["exam"][key] / GAN.examined
        with_, without = (times[label][key] + exam for label in OURS)
        d_with, d_without = (times[f"{label}: discriminator's turn"][key] for label in OURS)
        told[kind] = {
            "ratio": times[name][key] / with_, "ratio without penalties": times[name][key] / without,
            "ratio by multiply-adds": times[name][key] / with_ * work["ours"] / work["theirs"],
            "penalties, share of the discriminator's turn": 1 - d_without / d_with,
            "discriminator's turn, share of a step": d_with / with_, "exams, share of a step": exam / with_}
    print(json.dumps(told), flush=True)
    write("gan_speed.jsonl", what="verdict", peer=name, **told, **about)


def main() -> None:
    """Both peers, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=(*GOALS,))
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    about, rates = host("torch-mimicry"), limits()
    print(json.dumps({**about, **rates}), flush=True)
    for name in GOALS:
        if asked.only in (None, name):
            peer(name, asked.rounds, about, rates)


if __name__ == "__main__":
    main()
