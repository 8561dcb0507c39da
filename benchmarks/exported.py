"""Whether other programs write what ours does: a model is fitted, adapters are learned on it, and each is given out.

    python benchmarks/exported.py [--data FILE] [--tokens 64] [--dry]

From three prompts, the likeliest tokens by verossim, by llama.cpp from the GGUF file (llama-cpp-python, float32), by
transformers from the Hugging Face folder, and by PEFT from the folders of the base and of the adapters alone. Counted are the
texts and tokens that are the same. Without data, 40 kB of made sentences are learned.
Results: benchmarks/results/exported.jsonl.
"""

import argparse
import random
import tempfile
from pathlib import Path
from typing import Any

import torch

import verossim
from timing import host, tell
from verossim.model.exchanging import export
from verossim.model.texts import opening

PROMPTS = ("The ", "A small owl ", "12")
CONTEXT = 128
SETTINGS = {"family": "autoregressive", "held_out": 0.0, "batch": 32}


def sentences(words: str, seed: int) -> str:
    """40 kB of sentences of these words."""
    chosen = random.Random(seed)
    return "".join(f"The {chosen.choice(words.split())} {chosen.choice(words.split())} {chosen.randrange(100)} times.\n"
                   for _ in range(1600))


def ours(model: Any, prompt: str, tokens: int) -> list[int]:
    """The likeliest tokens after a prompt, as many as fit in the context."""
    given = opening(model, prompt)
    x = model.family.sample(verossim.seeds.Noise(0, 1), None, given=given, temperature=0.0, tokens=tokens)[0]
    return [token for token in x[len(given):].tolist() if token >= 0 and token != model.codec.space.pad]


def llama(path: Path, given: list[int], tokens: int, stop: int | None) -> list[int]:
    """The same by llama.cpp."""
    from llama_cpp import Llama
    peer, found = Llama(str(path), n_ctx=CONTEXT, n_threads=1, verbose=False), list[int]()
    for token in peer.generate(given, temp=0.0, repeat_penalty=1.0):
        found.append(token)
        if len(found) == tokens or token == stop:
            break
    return found


def transformers(theirs: Any, given: list[int], tokens: int, stop: int | None) -> list[int]:
    """The same by transformers, or by PEFT."""
    x = torch.tensor([given])
    return theirs.generate(input_ids=x, attention_mask=torch.ones_like(x), do_sample=False, max_new_tokens=tokens,
                           eos_token_id=stop, pad_token_id=0)[0, len(given):].tolist()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--dry", action="store_true", help="print the lines and write none")
    given = parser.parse_args()
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    lines: list[dict[str, Any]] = [{"part": "host", **host("transformers", "peft", "llama-cpp-python", "gguf")}]
    with tempfile.TemporaryDirectory() as home:
        at = Path(home)
        old, new = sentences("fox owl bear saw met fled", 0), sentences("cat dog hen ate hid sang", 1)
        source = given.data or [old]
        for tokens in ("bytes", "bpe:400"):
            run = at / f"run-{tokens[:3]}"
            base = verossim.fit(source, folder=run, tokens=tokens, width=64, context=CONTEXT, samples=3200, **SETTINGS)
            adapted = verossim.fit([new], start=run, folder=at / f"on-{tokens[:3]}", adapter_rank=8, samples=1600, **SETTINGS)
            out = {name: at / f"{name}-{tokens[:3]}" for name in ("base", "merged", "alone")}
            export(base, out["base"]), export(adapted, out["merged"]), export(adapted, out["alone"], "peft")
            for name, model in (("base", base), ("merged", adapted)):
                file = at / f"{name}-{tokens[:3]}.gguf"
                export(model, file, "gguf")
                load = AutoModelForCausalLM.from_pretrained
                peers = {"llama.cpp": None, "transformers": load(out[name])}
                peers |= {"peft": PeftModel.from_pretrained(load(out["base"]), out["alone"])} if name == "merged" else {}
                stop = model.codec.space.stop
                mine = [ours(model, prompt, given.tokens) for prompt in PROMPTS]
                for who, peer in peers.items():
                    starts = [(~opening(model, prompt)).tolist() for prompt in PROMPTS]
                    found = [llama(file, start, given.tokens, stop) if peer is None else
                             transformers(peer, start, given.tokens, stop) for start in starts]
                    alike = [next((n for n, (a, b) in enumerate(zip(one, two, strict=False)) if a != b),
                                  min(len(one), len(two))) for one, two in zip(mine, found, strict=True)]
                    lines.append({"part": "greedy", "tokens": tokens, "model": name, "who": who, "texts": len(PROMPTS),
                                  "same_texts": sum(one == two for one, two in zip(mine, found, strict=True)),
                                  "written": sum(map(len, mine)), "same_tokens": sum(alike)})
    tell("exported.jsonl", lines, given.dry)


if __name__ == "__main__":
    main()
