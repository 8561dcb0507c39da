"""Quality of diffusion against diffusers after equal wall-clock on Fashion-MNIST, by a Frechet distance.

    python benchmarks/frechet.py --minutes 20

Ours is what a person gets by `verossim.fit(pictures, family="diffusion", budget="20m")`: the library chooses the size. The peer
is diffusers' UNet2DModel with its published recipe for unconditional pictures (DDPM of 1,000 linear steps, AdamW at 1e-4,
500 steps of warm-up, cosine, its own average of the weights), for as many seconds as ours took from first to last; its size is
asked for by --peer-width and --peer-layers (16 and 1 have as many parameters as ours; 32 and 2 see four times fewer pictures in
that time, and come out far worse). --only leaves the other out; the peer then takes --minutes itself. Drawn by 18 steps of Heun
(35 evaluations) and by DDIM of 50.

Distance: |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)) (Frechet, 1957; Dowson and Landau, 1982) in the 128 features of a small
classifier that is trained here on the training pictures; against all training pictures. It is not what is called FID. The same
number of held-out pictures shows the floor; "saving" is the share of the time that checkpoints took. Results:
benchmarks/results/frechet.jsonl, and a sheet of samples of each.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import verossim
from real import fashion
from timing import HERE, host, write
from verossim.training.journal import read_events

BATCH = 64


class Classifier(nn.Module):
    """28 x 28 pictures in [-1, 1] -> 128 features -> 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU())
        self.last = nn.Linear(128, 10)

    def learn(self, x: Tensor, y: Tensor, epochs: int = 3) -> None:
        """Cross-entropy by Adam."""
        optimizer = torch.optim.Adam(self.parameters(), 1e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(128):
                optimizer.zero_grad()
                F.cross_entropy(self.last(self.body(x[rows])), y[rows]).backward()
                optimizer.step()

    @torch.no_grad()
    def features(self, x: Tensor) -> np.ndarray:
        """(N, 128) float64."""
        return torch.cat([self.body(part) for part in x.split(512)]).double().numpy()


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The squared Frechet distance of the normal distributions that have the moments of a and b."""
    A, B = np.cov(a.T), np.cov(b.T)
    values, vectors = np.linalg.eigh(A)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ B @ root).clip(0)).sum()  # the trace of (A B)^(1/2); no feature need ever vary
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(A + B) - 2 * cross)


def unit(pictures: np.ndarray) -> Tensor:
    """(N, 28, 28) uint8 -> (N, 1, 28, 28) in [-1, 1]."""
    return torch.from_numpy(np.array(pictures)).float()[:, None] / 127.5 - 1


def ours(pictures: np.ndarray, minutes: float, drawn: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Samples, and how it went."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        model = verossim.fit(pictures, family="diffusion", budget=f"{minutes * 60}s", folder=folder)
        seconds = time.monotonic() - began
        history = model.card["history"]
        saving = sum(event["seconds"] for event in read_events(Path(folder) / "events.jsonl") if event["event"] == "saved")
    began = time.monotonic()
    made = np.stack([np.asarray(picture) for picture in model.sample(drawn, seed=1)])
    return made, {"seconds": seconds, "sampling": time.monotonic() - began, "seen": history["samples"],
                  "saving": saving / seconds, "width": model.family.config.width, "training": history["training"],
                  "held_out": model.card["held_out"],
                  "parameters": sum(p.numel() for p in model.family.networks.parameters())}


def theirs(pictures: np.ndarray, seconds: float, width: int, layers: int, drawn: int) -> tuple[np.ndarray, dict[str, Any]]:
    """The same by diffusers."""
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
    from diffusers.optimization import get_cosine_schedule_with_warmup
    from diffusers.training_utils import EMAModel
    x, began = unit(pictures), time.monotonic()
    torch.manual_seed(0)
    net = UNet2DModel(sample_size=28, in_channels=1, out_channels=1, layers_per_block=layers,
                      block_out_channels=(width, 2 * width, 2 * width), norm_num_groups=min(32, width),
                      down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
                      up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"))
    schedule, optimizer = DDPMScheduler(num_train_timesteps=1000), torch.optim.AdamW(net.parameters(), lr=1e-4)
    average = EMAModel(net.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=3 / 4)
    rate: Any = None
    steps, order = 0, iter(())
    while (gone := time.monotonic() - began) < seconds:
        if steps == 10:  # its rate is by the number of steps, which is known once their time is
            rate = get_cosine_schedule_with_warmup(optimizer, 500, int(seconds / (gone / steps)))
        rows = next(order, None)
        if rows is None:
            order = iter(torch.randperm(len(x)).split(BATCH))
            rows = next(order)
        t, noise = torch.randint(0, 1000, (len(rows),)), torch.randn(len(rows), 1, 28, 28)
        loss = F.mse_loss(net(schedule.add_noise(x[rows], noise, t), t, return_dict=False)[0], noise)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        rate.step() if rate is not None else None
        optimizer.zero_grad()
        average.step(net.parameters())
        steps += 1
    average.copy_to(net.parameters())
    net.eval()
    told = {"seconds": time.monotonic() - began, "seen": steps * BATCH, "width": width, "layers": layers,
            "parameters": sum(p.numel() for p in net.parameters())}
    sampler, began, made = DDIMScheduler(num_train_timesteps=1000), time.monotonic(), []
    with torch.no_grad():
        for first in range(0, drawn, 250):
            z = torch.randn(min(250, drawn - first), 1, 28, 28)
            sampler.set_timesteps(50)
            for t in sampler.timesteps:
                z = sampler.step(net(z, t, return_dict=False)[0], t, z, return_dict=False)[0]
            made.append(((z[:, 0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))
    return torch.cat(made).numpy(), {**told, "sampling": time.monotonic() - began}


def sheet(pictures: np.ndarray, path: Path) -> None:
    """The first 100, ten by ten."""
    rows = pictures[:100].reshape(10, 10, 28, 28).transpose(0, 2, 1, 3).reshape(280, 280)
    Image.fromarray(rows).save(path)


def main() -> None:
    """Trains both, draws from both, and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--peer-width", type=int, default=16)
    parser.add_argument("--peer-layers", type=int, default=1)
    parser.add_argument("--only", choices=("verossim", "diffusers"))
    parser.add_argument("--drawn", type=int, default=2000)
    asked = parser.parse_args()
    about, data = host("diffusers"), fashion()
    print(json.dumps(about), flush=True)
    pictures, classes = data["train"]
    torch.manual_seed(0)
    judge = Classifier()
    judge.learn(unit(pictures), torch.from_numpy(classes.astype(np.int64)))
    unseen, real = data["test"][0], judge.features(unit(pictures))
    said = judge.last(torch.from_numpy(judge.features(unit(unseen))).float()).argmax(dim=1).numpy()
    right = float((said == data["test"][1]).mean())
    found = {"floor": frechet(judge.features(unit(unseen[:asked.drawn])), real)}
    write("frechet.jsonl", who="held-out pictures", distance=found["floor"], accuracy=right, minutes=asked.minutes, **about)
    print(f"held-out pictures: {found['floor']:.2f}   (the classifier is right in {right:.1%})", flush=True)
    seconds = 60 * asked.minutes
    for who in ("verossim", "diffusers") if asked.only is None else (asked.only,):
        made, told = (ours(pictures, asked.minutes, asked.drawn) if who == "verossim"
                      else theirs(pictures, seconds, asked.peer_width, asked.peer_layers, asked.drawn))
        seconds = told["seconds"]
        found[who] = frechet(judge.features(unit(made)), real)
        print(f"{who}: {found[who]:.2f}   {json.dumps(told)}", flush=True)
        sheet(made, HERE / "results" / f"frechet-{who}.png")
        write("frechet.jsonl", who=who, distance=found[who], minutes=asked.minutes,
              drawn=asked.drawn, **told, **about)


if __name__ == "__main__":
    main()
