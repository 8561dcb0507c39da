"""Speed of writing against transformers.generate at equal weights: 256 new tokens after a prompt of 16, float32, temperature 1.

    python benchmarks/writing.py [--shapes S,M] [--batches 1,16] [--rounds 5]

S: 4 blocks of 128, 4 heads; M: 6 blocks of 384, 6 heads; both GPT-2's kind with 65 tokens. The weights are transformers' own
random ones, and logits are compared before anything is timed. Where llama-cpp-python is there, it writes the first sample too,
from the same weights in float32. "compiled" is the decoder that `decoder` chooses with numba, "plain" the one without. Counted
as well: bytes of weights a second, against what the memory delivers ("reading"). Results: benchmarks/results/writing.jsonl.
"""

import argparse
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from timing import host, interleaved, limits, tell
from verossim.nn.decoding import Decoder, Plain, decoder
from verossim.nn.language import LanguageModel, Shape

SHAPES = {"S": (4, 128, 4), "M": (6, 384, 6)}  # blocks, width, heads
VOCABULARY, PROMPT, NEW, LENGTH = 65, 16, 256, 512


def theirs(blocks: int, width: int, heads: int) -> Any:
    """GPT2LMHeadModel with random weights."""
    from transformers import GPT2Config, GPT2LMHeadModel, logging
    logging.set_verbosity_error()
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=width, n_layer=blocks, n_head=heads,
                                      bos_token_id=0, eos_token_id=None, pad_token_id=0)).eval()


def ours(model: Any) -> LanguageModel:
    """The same weights in our module; theirs lie as (in, out)."""
    c = model.config
    shape = Shape(vocabulary=c.vocab_size, length=c.n_positions, width=c.n_embd, blocks=c.n_layer, heads=c.n_head,
                  groups=c.n_head, head=c.n_embd // c.n_head, inside=4 * c.n_embd, positions="learned", norm="layer",
                  eps=c.layer_norm_epsilon, normed_heads=False, activation="gelu_tanh", biases="all")
    names = {"ln_1": "norm_1", "attn.c_attn": "attention.qkv", "attn.c_proj": "attention.out", "ln_2": "norm_2",
             "mlp.c_fc": "mlp.inner", "mlp.c_proj": "mlp.out"}
    given = {name.removeprefix("transformer."): tensor for name, tensor in model.state_dict().items()}
    found = {"first.weight": given["wte.weight"], "places.weight": given["wpe.weight"],
             "norm.weight": given["ln_f.weight"], "norm.bias": given["ln_f.bias"]}
    for block in range(c.n_layer):
        for there, here in names.items():
            weight = given[f"h.{block}.{there}.weight"]
            found[f"blocks.{block}.{here}.weight"] = weight.T if weight.ndim == 2 else weight
            found[f"blocks.{block}.{here}.bias"] = given[f"h.{block}.{there}.bias"]
    net = LanguageModel(shape)
    net.load_state_dict(found)
    return net.eval()


def written(made: Callable[..., Decoder], net: LanguageModel, prompt: Tensor) -> Tensor:
    """NEW tokens after each row of the prompt (B, PROMPT), by the largest of logits + Gumbel noise."""
    B, N = prompt.shape
    noise = -torch.empty(NEW, B, VOCABULARY).exponential_().log()
    writer = made(net, B, N + NEW)
    tokens, logits = [], writer.feed(prompt, torch.full((B,), N))
    for z in noise[:-1]:
        tokens.append((logits + z).argmax(dim=1))
        logits = writer.step(tokens[-1])
    tokens.append((logits + noise[-1]).argmax(dim=1))
    return torch.stack(tokens, dim=1)


def generated(model: Any, prompt: Tensor) -> Tensor:
    """The same by transformers."""
    return model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW, min_new_tokens=NEW,
                          do_sample=True, top_k=0, top_p=1.0, temperature=1.0, eos_token_id=None)


@torch.inference_mode()
def checked(model: Any, net: LanguageModel) -> float:
    """The largest difference of our logits from theirs, through `decoder`."""
    x = torch.randint(VOCABULARY, (2, 64))
    writer = decoder(net, 2, 64)
    logits = [writer.feed(x[:, :32], torch.full((2,), 32))] + [writer.step(x[:, n]) for n in range(32, 64)]
    return float((torch.stack(logits, dim=1) - model(x).logits[:, 31:]).abs().max())


def llama(model: Any, folder: Path) -> Any:
    """llama.cpp with the same weights, by a file in its own format."""
    import gguf
    from llama_cpp import Llama
    c, given = model.config, {name.removeprefix("transformer."): tensor.numpy() for name, tensor in model.state_dict().items()}
    file = folder / "model.gguf"
    out = gguf.GGUFWriter(str(file), "gpt2")
    out.add_context_length(c.n_positions)
    out.add_embedding_length(c.n_embd)
    out.add_block_count(c.n_layer)
    out.add_feed_forward_length(4 * c.n_embd)
    out.add_head_count(c.n_head)
    out.add_layer_norm_eps(c.layer_norm_epsilon)
    out.add_tokenizer_model("llama")
    out.add_token_list([f"<{token}>".encode() for token in range(c.vocab_size)])
    out.add_token_scores([0.0] * c.vocab_size)
    out.add_token_types([1] * c.vocab_size)
    names = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}
    each = {"ln_1": "attn_norm", "ln_2": "ffn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
            "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}
    names |= {f"h.{block}.{there}": f"blk.{block}.{here}" for block in range(c.n_layer) for there, here in each.items()}
    for name, tensor in given.items():
        layer, _, kind = name.rpartition(".")
        if layer in names:
            turned = tensor.T if tensor.ndim == 2 and layer.startswith("h.") else tensor
            out.add_tensor(f"{names[layer]}.{kind}", turned.copy())
    out.add_tensor("output.weight", given["wte.weight"].copy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return Llama(str(file), n_ctx=c.n_positions, n_threads=torch.get_num_threads(), n_batch=64, verbose=False)


def continued(peer: Any, prompt: Tensor) -> int:
    """NEW tokens after a prompt (N,) by llama.cpp; returns how many."""
    peer.reset()
    for count, _ in enumerate(peer.generate(prompt.tolist(), temp=1.0, top_k=0, top_p=1.0, min_p=0.0, repeat_penalty=1.0), 1):
        if count == NEW:
            break
    return count


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shapes", default="S,M")
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dry", action="store_true", help="print the lines and write none")
    given = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    facts = {"part": "host", **host("transformers", "numba", "llama-cpp-python"), **limits()}
    lines = [facts]
    for name in given.shapes.split(","):
        model = theirs(*SHAPES[name])
        net, numbers = ours(model), sum(p.numel() for p in model.parameters())
        start = time.perf_counter()
        error = checked(model, net)
        first = time.perf_counter() - start
        for B in map(int, given.batches.split(",")):
            prompt = torch.randint(VOCABULARY, (B, PROMPT))
            ways: dict[str, Callable[[], Any]] = {"transformers": lambda x=prompt, m=model: generated(m, x),
                                                  "compiled": lambda x=prompt, n=net: written(decoder, n, x),
                                                  "plain": lambda x=prompt, n=net: written(Plain, n, x)}
            with tempfile.TemporaryDirectory() as folder:
                if B == 1 and all(importlib.util.find_spec(package) for package in ("llama_cpp", "gguf")):
                    peer = llama(model, Path(folder))
                    ways["llama.cpp"] = lambda x=prompt, p=peer: continued(p, x[0])
                with torch.inference_mode():
                    found = interleaved(ways, given.rounds)
            for who, reading in found.items():
                steps = NEW / reading["seconds"]
                lines.append({"part": "writing", "shape": name, "batch": B, "who": who, "tokens_a_second": B * steps,
                              "ratio": found["transformers"]["seconds"] / reading["seconds"],
                              "weights_gb_a_second": 4e-9 * numbers * steps, "logits_apart": error, "first_call": first,
                              **reading})
    tell("writing.jsonl", lines, given.dry)


if __name__ == "__main__":
    main()
