"""Weights go out and come in unchanged and mean the same to transformers; what cannot be is refused by name."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from exchanged import GPT2, LENGTH, LLAMA, OURS, V, model, random, refused, same, words
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from verossim.exchange import Imported, read_folder, write_folder
from verossim.nn.language import LanguageModel

SIZES = {"vocab_size": V, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": LENGTH, "bos_token_id": 1, "eos_token_id": 2}
OLD = {"vocab_size": V, "n_positions": LENGTH, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 1}
PUBLISHED = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**OLD)),
    "gpt2-untied": lambda: GPT2LMHeadModel(GPT2Config(**OLD, n_inner=40, activation_function="relu2",
                                                      tie_word_embeddings=False)),
    "gpt2-gelu": lambda: GPT2LMHeadModel(GPT2Config(**OLD, activation_function="gelu", layer_norm_epsilon=1e-3)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, rope_theta=5000.0)),
    "llama-biased": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True, tie_word_embeddings=True)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, rms_norm_eps=1e-2)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True)),
    "qwen3-biased": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8, attention_bias=True)),
}
WRITTEN = {"Qwen3": OURS, "Qwen3-untied": replace(OURS, tied=False, base=1e6), "Llama": LLAMA,
           "Llama-biased": replace(LLAMA, biases="all", tied=False), "Qwen2": replace(LLAMA, biases="qkv", head=16),
           "GPT2": GPT2, "GPT2-relu2": replace(GPT2, activation="relu2")}


def network(imported: Imported) -> LanguageModel:
    made = LanguageModel(imported.shape)
    made.load_state_dict(imported.tensors)
    return made.eval()


def tokens() -> Tensor:
    return torch.randint(0, V, (3, LENGTH), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def logits(theirs, x: Tensor) -> Tensor:
    return theirs(x).logits


def perplexity(logits: Tensor, x: Tensor) -> float:
    nats = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).double(), x[:, 1:].flatten())
    return math.exp(nats.item())


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Path]:
    """A folder of each architecture, written by transformers."""
    place = tmp_path_factory.mktemp("published")
    for name, made in PUBLISHED.items():
        random(made()).save_pretrained(place / name, max_shard_size="20KB" if name == "llama" else "1GB")
    return {name: place / name for name in PUBLISHED}


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_transformers_saved_means_the_same_here_and_written_again(name, saved, tmp_path):
    x = tokens()
    theirs = logits(AutoModelForCausalLM.from_pretrained(saved[name]).eval(), x)
    imported = read_folder(saved[name])
    with torch.no_grad():
        ours = network(imported)(x)
    assert theirs.std() > 0.5
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert perplexity(ours, x) == pytest.approx(perplexity(theirs, x), rel=1e-5)
    assert (imported.start, imported.stop, imported.pad) == ((1, 1, None) if name.startswith("gpt2") else (1, 2, None))

    write_folder(tmp_path / "again", imported)
    same(read_folder(tmp_path / "again"), imported)
    again, report = AutoModelForCausalLM.from_pretrained(tmp_path / "again", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    torch.testing.assert_close(logits(again.eval(), x), theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_means_the_same_to_transformers(name, tmp_path):
    made, x = model(WRITTEN[name], start=3, stop=4, pad=5), tokens()
    write_folder(tmp_path / "out", made)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert type(theirs).__name__.startswith(name.split("-")[0])
    with torch.no_grad():
        torch.testing.assert_close(logits(theirs, x), network(made)(x), atol=1e-4, rtol=0)
    assert (theirs.config.bos_token_id, theirs.config.eos_token_id, theirs.config.pad_token_id) == (3, 4, 5)
    same(read_folder(tmp_path / "out"), made)


def test_shards_and_one_file_hold_the_same(tmp_path):
    made = model(OURS)
    write_folder(tmp_path / "one", made)
    write_folder(tmp_path / "many", made, shard=10_000)
    files = sorted((tmp_path / "many").glob("model-*"))
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert safe_open(files[0], "pt").metadata() == {"format": "pt"}    # which older versions of transformers ask for
    assert len(files) > 3 and all(sum(t.nbytes for t in load_file(file).values()) <= 10_000 for file in files[1:])
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in load_file(tmp_path / "one" / "model.safetensors").values())
    same(read_folder(tmp_path / "many"), read_folder(tmp_path / "one"))


def test_the_tokenizer_goes_along_and_transformers_speaks_it(tmp_path):
    spoken = words()
    shape = replace(OURS, vocabulary=spoken.get_vocab_size())
    made = model(shape, tokenizer=spoken.to_str(pretty=True), start=276, stop=277, pad=278)
    write_folder(tmp_path / "out", made)
    same(read_folder(tmp_path / "out"), made)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (theirs.bos_token, theirs.eos_token, theirs.pad_token) == ("<|start|>", "<|stop|>", "<|pad|>")
    for text in ("To be, or not  to be\n", "é ß 漢字 🙂\0", " the"):
        assert theirs(text)["input_ids"] == spoken.encode(text).ids


@pytest.fixture
def folder(saved, tmp_path):
    """A folder to spoil, and a verb that changes its config.json."""
    place = Path(shutil.copytree(saved["qwen3"], tmp_path / "model"))

    def change(file: str = "config.json", **values) -> Path:
        plain = json.loads((place / file).read_text()) if (place / file).exists() else {}
        (place / file).write_text(json.dumps(plain | values))
        return place
    return change


def test_special_tokens_are_found_wherever_they_are_said(folder):
    folder(bos_token_id=None, eos_token_id=[7, 8], pad_token_id=-1)
    place = folder("generation_config.json", bos_token_id=9, eos_token_id=8)
    assert [vars(read_folder(place))[name] for name in ("start", "stop", "pad")] == [9, 7, None]
    (place / "generation_config.json").unlink()
    folder("tokenizer_config.json", bos_token={"content": "<|a|>"}, pad_token="<|b|>")
    folder("tokenizer.json", added_tokens=[{"content": "<|a|>", "id": 4}, {"content": "<|b|>", "id": V}])
    assert [vars(read_folder(place))[name] for name in ("start", "stop", "pad")] == [4, 7, None]


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_weights_become_float32(kind, folder):
    place = folder()
    halves = {name: tensor.to(kind) for name, tensor in load_file(place / "model.safetensors").items()}
    save_file(halves, place / "model.safetensors")
    tensors = read_folder(place).tensors
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert torch.equal(tensors["first.weight"], halves["model.embed_tokens.weight"].float())


def test_older_configurations_say_the_base_of_rotations_elsewhere(saved, tmp_path):
    place = Path(shutil.copytree(saved["llama"], tmp_path / "old"))
    plain = json.loads((place / "config.json").read_text())
    assert plain.pop("rope_parameters")["rope_theta"] == 5000.0
    (place / "config.json").write_text(json.dumps(plain | {"rope_theta": 5000, "rope_scaling": None}))
    assert read_folder(place).shape == read_folder(saved["llama"]).shape


def test_older_files_of_gpt2_are_read(saved, tmp_path):
    place = Path(shutil.copytree(saved["gpt2"], tmp_path / "old"))
    tensors = {name.removeprefix("transformer."): t for name, t in load_file(place / "model.safetensors").items()}
    save_file({**tensors, "h.0.attn.bias": torch.ones(1, 1, 4, 4), "h.0.attn.masked_bias": torch.tensor(-1e4)},
              place / "model.safetensors")
    same(read_folder(place), read_folder(saved["gpt2"]))


@pytest.mark.parametrize(("values", "said"), [
    ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "rope_theta": 1e4}}, ("rope_parameters", "llama3")),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, ("rope_scaling", "linear")),
    ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, ("partial_rotary_factor", "0.5")),
    ({"use_sliding_window": True}, ("use_sliding_window", "true")),
    ({"layer_types": ["full_attention", "sliding_attention"]}, ("layer_types", "sliding_attention")),
    ({"layer_types": 3}, ("layer_types", "3")),
    ({"rms_norm_eps": 10 ** 400}, ("rms_norm_eps", "finite")),
    ({"quantization_config": {"bits": 4}}, ("quantization_config",)),
    ({"hidden_act": "gelu"}, ("hidden_act", "gelu", "silu")),
    ({"num_key_value_heads": 3}, ("num_key_value_heads", "3", "divisor")),
    ({"hidden_size": -32}, ("hidden_size", "-32")),
    ({"hidden_size": 1e400}, ("hidden_size", "Infinity")),
    ({"num_hidden_layers": None}, ("num_hidden_layers", "null")),
    ({"vocab_size": True}, ("vocab_size", "true")),
    ({"head_dim": 7}, ("head_dim", "even")),
    ({"rms_norm_eps": "1e-6"}, ("rms_norm_eps", "1e-6")),
    ({"tie_word_embeddings": "yes"}, ("tie_word_embeddings", "yes")),
    ({"eos_token_id": "2"}, ("eos_token_id", "number of a token")),
])
def test_a_setting_that_is_not_known_here_is_named(values, said, folder):
    place = folder(**values)
    assert refused(lambda: read_folder(place), "config.json", *said) == "IMPORT_SETTING"


@pytest.mark.parametrize(("values", "said"), [
    ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"), ({"activation_function": "tanh"}, "tanh"),
    ({"n_head": 5}, "n_head"), ({"add_cross_attention": True}, "add_cross_attention"),
    ({"scale_attn_weights": False}, "scale_attn_weights"),
])
def test_a_setting_of_gpt2_that_is_not_known_here_is_named(values, said, saved, tmp_path):
    place = Path(shutil.copytree(saved["gpt2"], tmp_path / "model"))
    (place / "config.json").write_text(json.dumps(json.loads((place / "config.json").read_text()) | values))
    assert refused(lambda: read_folder(place), said) == "IMPORT_SETTING"


def test_another_architecture_is_named_with_those_that_work(folder):
    place = folder(architectures=["MambaForCausalLM"])
    assert refused(lambda: read_folder(place), "MambaForCausalLM", "Qwen3ForCausalLM") == "IMPORT_KIND"
    folder(architectures=["Qwen3ForSequenceClassification"])
    assert refused(lambda: read_folder(place), "Qwen3ForSequenceClassification") == "IMPORT_KIND"
    folder(architectures=None, model_type="qwen3")
    assert read_folder(place).shape.normed_heads


def test_tensors_that_are_absent_or_do_not_fit_are_named(folder):
    place = folder()
    tensors = load_file(place / "model.safetensors")
    full = dict(tensors)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    tensors["model.norm.weight"] = torch.ones(31)
    tensors["model.strange.weight"] = torch.ones(2)
    save_file(tensors, place / "model.safetensors")
    said = ("'model.layers.1.mlp.up_proj.weight' is absent, not (48, 32)", "'model.norm.weight' is (31,), not (32,)",
            "'model.strange.weight' is (2,), not known")
    assert refused(lambda: read_folder(place), *said) == "CKPT_SHAPE"
    save_file(full, place / "model.safetensors")
    folder(tie_word_embeddings=False)
    assert refused(lambda: read_folder(place), "'lm_head.weight' is absent") == "CKPT_SHAPE"
    folder(tie_word_embeddings=True, hidden_size=64)
    assert refused(lambda: read_folder(place), "and ", " more") == "CKPT_SHAPE"
    folder(num_hidden_layers=2_000_000_000)
    assert refused(lambda: read_folder(place), "2,000,000,000 blocks") == "CKPT_SHAPE"
    folder(hidden_size=32, num_hidden_layers=2)
    save_file({**full, "model.norm.weight": torch.full((32,), math.nan)}, place / "model.safetensors")
    assert refused(lambda: read_folder(place), "norm.weight") == "CKPT_NONFINITE"
    save_file({**full, "model.norm.weight": torch.ones(32, dtype=torch.int8)}, place / "model.safetensors")
    assert refused(lambda: read_folder(place), "model.norm.weight", "I8") == "CKPT_FORMAT"


def test_a_folder_that_is_not_whole_or_damaged_is_named(folder, tmp_path):
    place = folder()
    weights, config = (place / "model.safetensors").read_bytes(), (place / "config.json").read_bytes()

    def spoilt(file: str, content: bytes | None) -> Path:
        (place / file).unlink(missing_ok=True)
        if content is not None:
            (place / file).write_bytes(content)
        return place
    assert refused(lambda: read_folder(spoilt("config.json", config[:40])), "config.json is not JSON") == "CKPT_FORMAT"
    assert refused(lambda: read_folder(spoilt("config.json", b"[" * 100_000)), "config.json is not JSON") == "CKPT_FORMAT"
    assert refused(lambda: read_folder(spoilt("config.json", b"[1]")), "config.json", "list") == "CKPT_FORMAT"
    assert refused(lambda: read_folder(spoilt("config.json", None)), "no config.json") == "CKPT_MISSING"
    spoilt("config.json", config)
    for content in (weights[:200], weights[:-1], b"", b"\x80\x02}q\x00."):
        spoilt("model.safetensors", content)
        assert refused(lambda: read_folder(place), "model.safetensors is not a") == "CKPT_FORMAT"
    assert refused(lambda: read_folder(spoilt("model.safetensors", None)), "no model.safetensors") == "CKPT_MISSING"
    spoilt("pytorch_model.bin", b"\x80\x02}q\x00.")
    assert refused(lambda: read_folder(place), "pytorch_model.bin", "unpickling") == "PICKLE_REFUSED"
    assert refused(lambda: read_folder(place / "pytorch_model.bin"), "pytorch_model.bin") == "PICKLE_REFUSED"
    assert refused(lambda: read_folder(place / "config.json"), "is a file") == "CKPT_FORMAT"
    assert refused(lambda: read_folder(tmp_path / "modle"), "does not exist", "'model'") == "CKPT_MISSING"
    spoilt("model.safetensors.index.json", b'{"weight_map": {"model.norm.weight": "../model.safetensors"}}')
    assert refused(lambda: read_folder(place), "weight_map") == "CKPT_FORMAT"
    spoilt("model.safetensors.index.json", b'{"weight_map": {"model.norm.weight": "a.safetensors"}}')
    assert refused(lambda: read_folder(place), "a.safetensors") == "CKPT_MISSING"


@pytest.mark.parametrize(("setting", "value"), [
    ("cap", 15.0), ("values", True), ("activation", "relu2"), ("norm", "layer"), ("biases", "qkv"), ("head", 7),
    ("positions", "none"),
])
def test_a_shape_that_no_class_has_is_refused_by_the_setting(setting, value, tmp_path):
    odd = model(replace(OURS, **{setting: value}))
    assert refused(lambda: write_folder(tmp_path / "out", odd), f"'{setting}'", "Qwen3ForCausalLM") == "EXPORT_SHAPE"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("setting", "value"), [
    ("cap", 15.0), ("activation", "swiglu"), ("norm", "rms"), ("biases", "none"), ("groups", 2), ("head", 16),
    ("normed_heads", True),
])
def test_a_shape_with_learned_positions_that_is_not_that_of_gpt2_is_refused(setting, value, tmp_path):
    odd = model(replace(GPT2, **{setting: value}))
    assert refused(lambda: write_folder(tmp_path / "out", odd), f"'{setting}'", "GPT2LMHeadModel") == "EXPORT_SHAPE"


def test_a_width_that_llama_cannot_share_out_is_refused(tmp_path):
    odd = model(replace(LLAMA, heads=6, groups=2))
    assert refused(lambda: write_folder(tmp_path / "out", odd), "'heads' is 6", "LlamaForCausalLM") == "EXPORT_SHAPE"


def test_a_write_that_is_refused_leaves_nothing_and_takes_no_place(tmp_path):
    made = model(replace(OURS, biases="all"))    # Qwen3 has no biases in its MLPs; these here are not zero
    assert refused(lambda: write_folder(tmp_path / "out", made), "mlp.inner.bias") == "EXPORT_SHAPE"
    wrong = Imported(OURS, model(replace(OURS, width=64)).tensors)
    assert refused(lambda: write_folder(tmp_path / "out", wrong), "blocks.0") == "EXPORT_SHAPE"
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert refused(lambda: write_folder(tmp_path / "out", model(OURS)), "out is there already") == "OUT_EXISTS"
    assert [file.name for file in tmp_path.rglob("*")] == ["out", "mine.txt"]
