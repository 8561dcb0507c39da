"""Translation from English into Portuguese, learned from nothing: ours, transformers' Marian class, and the English as it is.

    python benchmarks/translation.py --minutes 60          # each an hour, on two cores
    python benchmarks/translation.py --minutes 3 --judged 100
    python benchmarks/translation.py --who marian --parameters 2000000 --seconds 3600      # beside ours, each on a core

Data: 35,623 paragraphs of LibreOffice's help (Debian `libreoffice-help-en-us`, `-pt-br`). A paragraph is held out by a hash of
its English, so that equal ones are on one side; --judged of those, of at most 400 characters, are translated by beams of 4 and
held against theirs by BLEU and chrF (sacrebleu). Ours: `verossim.fit --condition en --target pt --budget`, which chooses all.
Marian: about as many parameters as ours (d_model from 64 to 384, an MLP of four times that, as many layers in the encoder as in
the decoder), byte-pair tokens of its own, 8,000 for both languages, AdamW, warm-up, cosine, label smoothing 0.1, dropout 0.1,
48 pairs of about one length a step. Of three rates it has the one whose loss is least after a twentieth of the time, which does
not count. Time goes by the wall, with --cpu-time by this process's CPU.
Results: benchmarks/results/translation.jsonl.
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

import pyarrow as pa
import pyarrow.csv
import sacrebleu
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import MarianConfig, MarianMTModel

import verossim
from real import pairs
from timing import host, write

WIDTHS, LAYERS, HEADS, VOCABULARY, LONGEST = (64, 96, 128, 192, 256, 384), range(2, 9), 4, 8000, 192
RATES, TRIED, WARM, SMOOTHED, DROPPED, PAIRS, POOL = (3e-4, 6e-4, 1.2e-3), 0.05, 500, 0.1, 0.1, 48, 100
BEAMS, SHOWN, SHORT = 4, 5, 400
PAD, END = 0, 1


def sides(judged: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Pairs to learn from, and so many that were held out, each English text once."""
    def hashed(text: str) -> bytes:
        return hashlib.sha256(text.encode()).digest()
    learned, held = [], {}
    for english, other in pairs():
        if hashed(english)[0] < 13:
            held.setdefault(english, other)    # of several, the first
        else:
            learned.append((english, other))
    short = [pair for pair in held.items() if len(pair[0]) <= SHORT]
    return learned, sorted(short, key=lambda pair: hashed(pair[0]))[:judged]


class Marian:
    """A MarianMTModel and its tokenizer, that learned from pairs for so many seconds of a clock."""

    def __init__(self, learned: list[tuple[str, str]], parameters: int, seconds: float, seed: int, clock: Any):
        self.seed, self.clock = seed, clock
        self.tokenizer = Tokenizer(models.BPE())
        self.tokenizer.pre_tokenizer, self.tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
        special = ["<pad>", "</s>"]
        self.tokenizer.train_from_iterator((text for pair in learned for text in pair), trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
        self.tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", END)])
        self.tokenizer.enable_truncation(LONGEST)
        self.shape = min(((width, layers) for width in WIDTHS for layers in LAYERS),
                         key=lambda shape: abs(math.log(self._sized(*shape).num_parameters() / parameters)))
        self.data = [tuple(torch.tensor(self.tokenizer.encode(text).ids) for text in pair) for pair in learned]
        losses = {rate: self._learn(rate, TRIED * seconds) for rate in RATES}
        self.rate = min(losses, key=losses.__getitem__)
        self._learn(self.rate, seconds)

    def _learn(self, highest: float, seconds: float) -> float:
        """From the beginning for so long; the mean loss of the last tenth of the time."""
        torch.manual_seed(self.seed)
        began, last = self.clock(), []
        self.model, self.steps = self._sized(*self.shape), 0
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=highest, betas=(0.9, 0.98), fused=True)
        loss_of = torch.nn.CrossEntropyLoss(ignore_index=-100, label_smoothing=SMOOTHED)
        self.model.train()
        for batch in self._batches(self.data, self.seed):
            done = (self.clock() - began) / seconds
            if done >= 1:
                break
            rate = min(1.0, (self.steps + 1) / WARM) * 0.5 * (1 + math.cos(math.pi * done))
            for group in optimizer.param_groups:
                group["lr"] = highest * rate
            source, target = (torch.nn.utils.rnn.pad_sequence(side, True, PAD) for side in zip(*batch, strict=True))
            given = torch.nn.functional.pad(target, (1, 0), value=PAD)[:, :-1]
            logits = self.model(input_ids=source, attention_mask=source != PAD, decoder_input_ids=given).logits
            loss = loss_of(logits.flatten(0, 1), target.masked_fill(target == PAD, -100).flatten())
            loss.backward()
            last += [float(loss.detach())] if done > 0.9 else []
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            self.steps += 1
        self.model.eval()
        return sum(last) / len(last) if last else math.inf

    @staticmethod
    def _sized(width: int, layers: int) -> MarianMTModel:
        return MarianMTModel(MarianConfig(
            vocab_size=VOCABULARY, d_model=width, encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=HEADS,
            decoder_attention_heads=HEADS, encoder_ffn_dim=4 * width, decoder_ffn_dim=4 * width, dropout=DROPPED,
            activation_function="gelu", max_position_embeddings=LONGEST + 8, pad_token_id=PAD, eos_token_id=END,
            decoder_start_token_id=PAD, forced_eos_token_id=END, share_encoder_decoder_embeddings=True, scale_embedding=True))

    @staticmethod
    def _batches(data: list[Any], seed: int) -> Any:
        lots = random.Random(seed)
        while True:
            some = lots.sample(data, min(POOL * PAIRS, len(data)))
            some.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
            batches = [some[first:first + PAIRS] for first in range(0, len(some), PAIRS)]
            lots.shuffle(batches)
            yield from batches

    def translated(self, texts: list[str]) -> list[str]:
        """By beams."""
        found = []
        for text in texts:
            source = torch.tensor([self.tokenizer.encode(text).ids])
            made = self.model.generate(input_ids=source, attention_mask=torch.ones_like(source), num_beams=BEAMS,
                                       max_length=LONGEST, do_sample=False)
            found.append(self.tokenizer.decode(made[0].tolist(), skip_special_tokens=True).strip())
        return found


def main() -> None:
    """Ours, theirs, and none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--judged", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--who", type=lambda names: names.split(","), default=["verossim", "marian"])
    parser.add_argument("--parameters", type=int, help="of marian, where ours are not there")
    parser.add_argument("--seconds", type=float, help="of marian, where ours are not there")
    parser.add_argument("--cpu-time", action="store_true", help="equal seconds of CPU, not of wall-clock")
    asked = parser.parse_args()
    if not {"verossim", "marian"} >= {*asked.who} or ("verossim" not in asked.who and not (asked.parameters and asked.seconds)):
        parser.error("--who is verossim, marian or both; marian alone needs --parameters and --seconds")
    learned, held = sides(asked.judged)
    english, wanted = ([pair[side] for pair in held] for side in (0, 1))
    clock = time.process_time if asked.cpu_time else time.monotonic
    about = {"minutes": asked.minutes, "seed": asked.seed, "pairs": len(learned), "clock": clock.__name__,
             **host("transformers", "sacrebleu", "tokenizers")}

    def told(who: str, said: list[str], **fields: Any) -> None:
        found = {"bleu": sacrebleu.corpus_bleu(said, [wanted]).score, "chrf": sacrebleu.corpus_chrf(said, [wanted]).score,
                 "exact": sum(a == b for a, b in zip(said, wanted, strict=True)) / len(said)}
        print(who, json.dumps(found | fields), flush=True)
        write("translation.jsonl", who=who, judged=len(said), **found, **fields, said=said[:SHOWN], wanted=wanted[:SHOWN],
              **about)
    if "verossim" in asked.who:
        told("the English", english)
    parameters, seconds = asked.parameters, asked.seconds
    if "verossim" in asked.who:
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "pairs.csv"
            pa.csv.write_csv(pa.table({"en": [a for a, _ in learned], "pt": [b for _, b in learned]}), path)
            began = clock()
            model = verossim.fit(path, "autoregressive", condition="en", target="pt", budget=f"{60 * asked.minutes}s",
                                 held_out=0.02, seed=asked.seed)
            seconds = clock() - began
        if model.card["history"]["interrupted"]:
            raise SystemExit("interrupted")
        parameters = sum(p.numel() for p in model.family.parameters())
        print(f"learned: {parameters} parameters in {seconds:.0f} s", flush=True)
        began = clock()
        said = [model.search(condition=text, beam=BEAMS).text.strip() for text in english]
        told("verossim", said, seconds=seconds, writing=clock() - began, parameters=parameters,
             held_out=model.card["held_out"], config=vars(model.family.config), training=model.card["history"]["training"])
    if "marian" in asked.who:
        peer = Marian(learned, parameters, seconds, asked.seed, clock)
        began = clock()
        said = peer.translated(english)
        told("marian", said, seconds=seconds, writing=clock() - began, parameters=peer.model.num_parameters(),
             steps=peer.steps, shape=peer.shape, rate=peer.rate)


if __name__ == "__main__":
    main()
