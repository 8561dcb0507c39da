"""Quality of diffusion against diffusers after equal wall-clock, by a Frechet distance; our autoencoder besides.

    python benchmarks/frechet.py --minutes 20                                     # Fashion-MNIST, 28 pixels
    python benchmarks/frechet.py --data emoji --size 32 --minutes 5 --drawn 1000  # 3-D emoji in colours, 32 or 64 pixels

Ours is what a person gets by `verossim.fit(pictures, family="diffusion", budget="20m")`: the library chooses the size. The peer
is diffusers' UNet2DModel with its published recipe for unconditional pictures (DDPM of 1,000 linear steps, AdamW at 1e-4,
500 steps of warm-up, cosine, its own average of the weights), for as many seconds as ours took from first to last; its size is
asked for by --peer-width and --peer-layers (16 and 1 have as many parameters as ours; 32 and 2 see four times fewer pictures in
that time, and come out far worse). --who says which of verossim, vae (ours too, no peer) and diffusers are to run; without ours
the peer takes --minutes itself. Drawn by 18 steps of Heun (35 evaluations) and by DDIM of 50.

Distance: |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)) (Frechet, 1957; Dowson and Landau, 1982) in the 128 features of a small
classifier that is trained here on the training pictures; against all training pictures. It is not what is called FID. Held-out
pictures show the floor (of emoji there are so few that theirs is high for that alone); "saving" is the share of the time that
checkpoints took. Results: benchmarks/results/frechet.jsonl, and a sheet of samples of each.
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
from real import emoji, fashion
from timing import HERE, host, write
from verossim.training.journal import read_events

BATCH = 64
SHEET = 320  # pixels, of a sheet of samples


class Classifier(nn.Module):
    """Pictures (B, channels, side, side) in [-1, 1] -> 128 features -> classes."""

    def __init__(self, channels: int = 1, side: int = 28, classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * (side // 4) ** 2, 128), nn.ReLU())
        self.last = nn.Linear(128, classes)

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


def channels_first(pictures: np.ndarray) -> Tensor:
    """(N, H, W) or (N, H, W, C) uint8 -> (N, C, H, W) in [-1, 1]."""
    x = torch.from_numpy(np.array(pictures)).float() / 127.5 - 1
    return x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2).contiguous()


def sheet(pictures: np.ndarray, name: str) -> None:
    """The first 100, ten by ten, to results/NAME.png; of pictures larger than 32 pixels as many as have room there."""
    (h, w), rest = pictures.shape[1:3], pictures.shape[3:]
    n = min(10, SHEET // max(h, w))
    rows = pictures[:n * n].reshape(n, n, h, w, *rest).swapaxes(1, 2).reshape(n * h, n * w, *rest)
    Image.fromarray(rows).save(HERE / "results" / f"{name}.png")


def ours(pictures: np.ndarray, family: str, minutes: float, drawn: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Samples, and how it went."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        model = verossim.fit(pictures, family=family, budget=f"{minutes * 60}s", folder=folder)
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
    x, began = channels_first(pictures), time.monotonic()
    channels, side = x.shape[1:3]
    torch.manual_seed(0)
    net = UNet2DModel(sample_size=side, in_channels=channels, out_channels=channels, layers_per_block=layers,
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
        t, noise = torch.randint(0, 1000, (len(rows),)), torch.randn(len(rows), channels, side, side)
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
            z = torch.randn(min(250, drawn - first), channels, side, side)
            sampler.set_timesteps(50)
            for t in sampler.timesteps:
                z = sampler.step(net(z, t, return_dict=False)[0], t, z, return_dict=False)[0]
            made.append(((z.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))
    drawings = torch.cat(made).permute(0, 2, 3, 1)
    return (drawings[..., 0] if channels == 1 else drawings).numpy(), {**told, "sampling": time.monotonic() - began}


def runners(text: str) -> list[str]:
    """Who is to run, of names between commas."""
    if unknown := set(text.split(",")) - {"verossim", "vae", "diffusers"}:
        raise argparse.ArgumentTypeError(f"nobody is called {', '.join(unknown)}")
    return text.split(",")


def main() -> None:
    """Trains both, draws from both, and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--peer-width", type=int, default=16)
    parser.add_argument("--peer-layers", type=int, default=1)
    parser.add_argument("--data", choices=("fashion", "emoji"), default="fashion")
    parser.add_argument("--size", type=int, default=32, help="pixels of emoji")
    parser.add_argument("--who", type=runners, default="verossim,diffusers")
    parser.add_argument("--drawn", type=int, default=2000)
    asked = parser.parse_args()
    fashionable = asked.data == "fashion"
    about, data = {"data": asked.data, **host("diffusers")}, fashion() if fashionable else emoji(asked.size)
    print(json.dumps(about), flush=True)
    pictures, classes = data["train"]
    x, unseen = channels_first(pictures), channels_first(data["test"][0])
    torch.manual_seed(0)
    judge = Classifier(x.shape[1], x.shape[2], classes.max() + 1)
    judge.learn(x, torch.from_numpy(classes.astype(np.int64)))
    real, kept = judge.features(x), judge.features(unseen)
    right = float((judge.last(torch.from_numpy(kept).float()).argmax(dim=1).numpy() == data["test"][1]).mean())
    floor = frechet(kept[:asked.drawn], real)
    about |= {"minutes": asked.minutes, "size": x.shape[2], "records": len(x)}
    write("frechet.jsonl", who="held-out pictures", distance=floor, drawn=len(kept[:asked.drawn]), accuracy=right, **about)
    print(f"held-out pictures: {floor:.2f}   (the classifier is right in {right:.1%})", flush=True)
    seconds = 60 * asked.minutes
    for who in asked.who:
        made, told = (theirs(pictures, seconds, asked.peer_width, asked.peer_layers, asked.drawn) if who == "diffusers" else
                      ours(pictures, "vae" if who == "vae" else "diffusion", asked.minutes, asked.drawn))
        seconds = told["seconds"] if who == "verossim" else seconds
        distance = frechet(judge.features(channels_first(made)), real)
        print(f"{who}: {distance:.2f}   {json.dumps(told)}", flush=True)
        sheet(made, f"frechet-{who}" if fashionable else f"emoji-{asked.size}-{who}")
        write("frechet.jsonl", who=who, distance=distance, drawn=asked.drawn, **told, **about)


if __name__ == "__main__":
    main()
