"""Speed of diffusion against diffusers: a step of learning and a sample, at equal widths (64, 128, 128), pictures 28 x 28 x 1.

    python benchmarks/diffusion.py

Learning: the library's whole loop (guard, averages, streams of random numbers, journal) against diffusers' own network with a
bare loop about it, with attention heads of 8 as it comes and of 64. Sampling: DDIM with 50 steps against Euler with 50, and
DPM-Solver++ (2M) with 20 against the same. "aside" is the share of the time that sampling spends outside the network. How far
from the machine's matrix rate: floating-point operations as PyTorch counts them, three times those of a forward pass for a step
of learning. Results: benchmarks/results/diffusion.jsonl.
"""

import argparse
import contextlib
import io
import json
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from timing import host, interleaved, limits, write
from verossim.families.diffusion import Diffusion
from verossim.seeds import Noise
from verossim.spaces import Batch, Continuous
from verossim.training import InMemory, Settled, train

SIDE, BATCH, DRAWN = 28, 64, 16
SPACE = Continuous(shape=(1, SIDE, SIDE), axes=("channel", "height", "width"), levels=256)


def ours() -> Diffusion:
    """The family as it comes."""
    torch.manual_seed(0)
    return Diffusion(Diffusion.Config(width=64, depth=2), SPACE)


def theirs(heads: int = 8) -> Any:
    """UNet2DModel of the same widths, with attention at the middle level as in its examples."""
    from diffusers import UNet2DModel
    torch.manual_seed(0)
    return UNet2DModel(sample_size=SIDE, in_channels=1, out_channels=1, layers_per_block=2, block_out_channels=(64, 128, 128),
                       norm_num_groups=32, attention_head_dim=heads,
                       down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
                       up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"))


def learning_ours(x: Tensor, steps: int, precision: str) -> Callable[[], None]:
    """So many steps of the library's loop."""
    data = InMemory(Batch(x, None, torch.ones(len(x)), torch.arange(len(x))))
    config = Settled(samples=steps * BATCH, batch=BATCH, rate=1e-4, precision=precision)

    def run() -> None:
        train(ours(), lambda samples: iter([data.whole] * steps), config, data=data)
    return run


def learning_theirs(x: Tensor, steps: int, heads: int) -> Callable[[], None]:
    """The same number of steps by a bare loop: noise, prediction of the noise, AdamW."""
    from diffusers import DDPMScheduler
    net, schedule = theirs(heads), DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)

    def run() -> None:
        for _ in range(steps):
            t, noise = torch.randint(0, 1000, (len(x),)), torch.randn_like(x)
            loss = F.mse_loss(net(schedule.add_noise(x, noise, t), t, return_dict=False)[0], noise)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return run


def sampling_ours(solver: str, steps: int) -> Callable[[], None]:
    """DRAWN samples by the family."""
    family = ours().eval()

    def run() -> None:
        for _ in family.unfold(Noise(0, DRAWN), steps=steps, solver=solver):
            pass
    return run


def sampling_theirs(scheduler: str, steps: int) -> Callable[[], None]:
    """DRAWN samples by a scheduler of diffusers, as its pipelines do it."""
    import diffusers
    net, schedule = theirs().eval(), getattr(diffusers, scheduler)(num_train_timesteps=1000)

    def run() -> None:
        with torch.no_grad():
            schedule.set_timesteps(steps)
            x = torch.randn(DRAWN, 1, SIDE, SIDE)
            for t in schedule.timesteps:
                x = schedule.step(net(x, t, return_dict=False)[0], t, x, return_dict=False)[0]
    return run


def share_aside(solver: str, steps: int) -> float:
    """The share of sampling's time that is not spent in the network."""
    family = ours().eval()
    network, spent = family.networks["denoiser"], [0.0, 0.0]
    network.register_forward_pre_hook(lambda *_: spent.__setitem__(0, time.perf_counter()))
    network.register_forward_hook(lambda *_: spent.__setitem__(1, spent[1] + time.perf_counter() - spent[0]))
    began = time.perf_counter()
    for _ in family.unfold(Noise(0, DRAWN), steps=steps, solver=solver):
        pass
    return 1 - spent[1] / (time.perf_counter() - began)


def operations(network: Any, *given: Tensor) -> float:
    """Floating-point operations of a forward pass for one picture, in GFLOP."""
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        network(*given)
    return counted.get_total_flops() / 1e9


def main() -> None:
    """Times all of it, one thing beside its peer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6, help="steps of learning in a round")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    about, rates = host("diffusers"), limits()
    print(json.dumps({**about, **rates}))
    one, t = torch.randn(1, 1, SIDE, SIDE), torch.ones(1)
    gflop = {"ours": operations(ours().networks["denoiser"], one, t), "theirs": operations(theirs(), one, t)}
    x = torch.rand(BATCH, 1, SIDE, SIDE) * 2 - 1
    learning = {"diffusers": learning_theirs(x, asked.steps, 8), "diffusers, heads of 64": learning_theirs(x, asked.steps, 64),
                "verossim": learning_ours(x, asked.steps, "fp32"), "verossim, bf16": learning_ours(x, asked.steps, "bf16")}
    drawing = {("DDIM 50", "diffusers"): sampling_theirs("DDIMScheduler", 50),
               ("DDIM 50", "verossim"): sampling_ours("euler", 50),
               ("DPM-Solver++ 20", "diffusers"): sampling_theirs("DPMSolverMultistepScheduler", 20),
               ("DPM-Solver++ 20", "verossim"): sampling_ours("dpm", 20)}
    with contextlib.redirect_stdout(io.StringIO()):
        learned = interleaved(learning, asked.rounds)
        drawn = interleaved({f"{what}|{who}": run for (what, who), run in drawing.items()}, asked.rounds)
    for who, times in learned.items():
        rate = asked.steps * BATCH / times["seconds"]
        work = 3 * gflop["theirs" if "diffusers" in who else "ours"] * rate
        line = {"what": "learning", "who": who, "pictures_a_second": rate,
                "ratio": learned["diffusers"]["seconds"] / times["seconds"], "gflops": work, "of_gemm": work / rates["gemm32"]}
        print(f"{'learning':18}{who:24}{rate:8.1f} pictures/s {line['ratio']:5.2f}x  {line['of_gemm']:.2f} of the matrix rate")
        write("diffusion.jsonl", **line, **times, gflop=gflop, **rates, **about)
    for name, times in drawn.items():
        what, who = name.split("|")
        solver, steps = ("euler", 50) if "DDIM" in what else ("dpm", 20)
        aside = share_aside(solver, steps) if who == "verossim" else None
        line = {"what": what, "who": who, "seconds_a_picture": times["seconds"] / DRAWN,
                "ratio": drawn[f"{what}|diffusers"]["seconds"] / times["seconds"], "aside": aside}
        print(f"{what:18}{who:24}{line['seconds_a_picture']:8.3f} s/picture   {line['ratio']:5.2f}x   aside {aside}")
        write("diffusion.jsonl", **line, **times, **about)


if __name__ == "__main__":
    main()
