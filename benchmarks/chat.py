"""Chats: a model of the plays of Shakespeare goes on to learn questions and answers. Do the answers come back?

    python benchmarks/chat.py                              # about a quarter of an hour on two cores
    python benchmarks/chat.py --width 128                  # a larger network than so short a budget chooses: half an hour
    python benchmarks/chat.py --base 60s --samples 2000    # a quick look

Data: the lists, in English or another language, of the PyPI package chatterbot-corpus, each utterance and the one after it; a
tenth of the questions is held out. learned: each question that was learned is asked in its own words and answered greedily;
exact, the share of answers that the corpus has to it word for word, chrF (sacrebleu) against those. new: the same of questions
that were not; what an answer drawn from the corpus by lot has stands beside. perplexity: of a byte of held-out answers given
their questions, of the model before it learned chats, after, and of one of the same shape that learned chats alone.
Results: benchmarks/results/chat.jsonl.
"""

import argparse
import hashlib
import json
import math
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import sacrebleu

import verossim
from real import exchanges, plays
from timing import host, several, write

CONTEXT = 256


def sides(language: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Exchanges to learn from and held out, by question."""
    every = exchanges(language)
    held = {q for q, _ in every if hashlib.sha256(q.lower().encode()).digest()[0] < 26}
    return [pair for pair in every if pair[0] not in held], [pair for pair in every if pair[0] in held]


def messages(pairs: list[tuple[str, str]], path: Path) -> Path:
    """The pairs as JSON lines of chats."""
    chats = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in pairs]
    path.write_text("".join(json.dumps(chat) + "\n" for chat in chats), encoding="utf-8")
    return path


def answered(model: Any, pairs: list[tuple[str, str]]) -> dict[str, float]:
    """How near greedy answers come to those that the corpus has to a question."""
    known: dict[str, list[str]] = {}
    for q, a in pairs:
        known.setdefault(q, []).append(a)
    said = []
    for q in known:
        *_, (text,) = model.write(1, [{"role": "user", "content": q}], temperature=0.0, tokens=300)
        said.append(text.text)
    return compared(said, list(known.values()))


def by_lot(learned: list[tuple[str, str]], pairs: list[tuple[str, str]]) -> dict[str, float]:
    """The same of answers drawn from those learned."""
    known: dict[str, list[str]] = {}
    for q, a in pairs:
        known.setdefault(q, []).append(a)
    lots = random.Random(0)
    return compared([lots.choice(learned)[1] for _ in known], list(known.values()))


def compared(said: list[str], known: list[list[str]]) -> dict[str, float]:
    """Of answers, the share that is among those known, and the mean chrF against the nearest of them."""
    best = [max(sacrebleu.sentence_chrf(text, [a]).score for a in answers) for text, answers in zip(said, known, strict=True)]
    exact = [text in answers for text, answers in zip(said, known, strict=True)]
    return {"questions": len(said), "exact": sum(exact) / len(said), "chrf": sum(best) / len(best)}


def perplexity(model: Any, held: Path) -> float:
    """Of a byte of the answers."""
    found = model.log_prob(held)
    return math.exp(-float(found.log_prob.sum() / found.coordinates.sum()))


def main() -> None:
    """All seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="5m", help="time for the plays")
    parser.add_argument("--width", type=int, help="of the network; what the time for the plays allows where nothing is said")
    parser.add_argument("--samples", type=int, default=40_000, help="windows of chats to see")
    parser.add_argument("--language", default="english", help="of the chats")
    parser.add_argument("--seeds", type=several, default=range(1))
    asked = parser.parse_args()
    learned, held = sides(asked.language)
    about = host("sacrebleu")
    for seed in asked.seeds:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            (folder / "plays.txt").write_bytes(b"\n\n".join(plays().values()))
            chats, unseen = messages(learned, folder / "chats.jsonl"), messages(held, folder / "held.jsonl")
            sized = {} if asked.width is None else {"width": asked.width}
            base = verossim.fit(folder / "plays.txt", "autoregressive", budget=asked.base, context=CONTEXT, tokens="bytes",
                                seed=seed, **sized)
            base.save(folder / "base")
            began = time.perf_counter()
            model = verossim.fit(chats, "autoregressive", start=folder / "base", samples=asked.samples, held_out=0.0, seed=seed)
            seconds = time.perf_counter() - began
            shape = {name: getattr(base.family.config, name) for name in ("width", "blocks")}
            alone = verossim.fit(chats, "autoregressive", samples=asked.samples, context=CONTEXT, tokens="bytes", held_out=0.0,
                                 seed=seed, **shape)
            result: dict[str, Any] = {
                "learned": answered(model, learned), "new": answered(model, held), "by lot": by_lot(learned, held),
                "perplexity": {"before": perplexity(base, unseen), "after": perplexity(model, unseen),
                               "chats alone": perplexity(alone, unseen)}}
            print(json.dumps(result), flush=True)
            write("chat.jsonl", seed=seed, language=asked.language, base=asked.base, samples=asked.samples,
                  exchanges=len(learned), held=len(held),
                  seconds=seconds, **shape, parameters=sum(p.numel() for p in model.family.parameters()),
                  **result, **about)


if __name__ == "__main__":
    main()
