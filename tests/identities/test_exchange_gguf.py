"""GGUF files hold the same model and tokenizer; what llama.cpp has no word for is refused by name."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from exchanged import GPT2, LLAMA, OURS, model, refused, same, words
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, pre_tokenizers

from verossim.errors import CorruptStore
from verossim.exchange import read_gguf, write_gguf
from verossim.exchange.vocabulary import CUTS, metadata_from, tokenizer_from

SHAPES = {"qwen3": OURS, "qwen3-untied": replace(OURS, tied=False, base=1e6), "llama": LLAMA,
          "llama-biased": replace(LLAMA, biases="all", tied=False), "qwen2": replace(LLAMA, biases="qkv"), "gpt2": GPT2}
BYTES = pre_tokenizers.ByteLevel
PIECES = {
    "gpt-2": BYTES(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTES(add_prefix_space=False)]),
    **{name: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CUTS[name][0][0][1]), "isolated"),
                                      BYTES(add_prefix_space=False, use_regex=False)]) for name in ("qwen2", "llama-bpe")},
}


def copied(path: Path, to: Path, without: str = "", kind: GGMLQuantizationType | None = None, added=None, **values) -> Path:
    """A GGUF file again, with one setting less, others changed or added, or its matrices of another type."""
    reader = GGUFReader(path)
    writer = GGUFWriter(to, values.get("architecture", reader.get_field("general.architecture").contents()))
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture", without):
            value = values.get(name.rsplit(".", 1)[1], field.contents())
            writer.add_key_value(name, value, field.types[0], field.types[-1] if len(field.types) > 1 else None)
    for name, value in (added or {}).items():
        writer.add_string(name, value)
    for tensor in reader.tensors:
        plain = np.array(tensor.data)
        if kind is None or plain.ndim == 1:
            writer.add_tensor(tensor.name, plain)
        elif kind == GGMLQuantizationType.I32:
            writer.add_tensor(tensor.name, plain.view(np.int32))
        else:
            writer.add_tensor(tensor.name, gguf.quants.quantize(plain, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return to


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_written_is_what_is_read(name, tmp_path):
    made = model(SHAPES[name], start=3, stop=4, pad=5)
    write_gguf(tmp_path / "a.gguf", made)
    same(read_gguf(tmp_path / "a.gguf"), made)
    assert [file.name for file in tmp_path.iterdir()] == ["a.gguf"]
    assert GGUFReader(tmp_path / "a.gguf").get_field("general.architecture").contents() == name.split("-")[0]


def test_rows_of_llama_lie_as_neighbours_and_those_of_qwen_do_not(tmp_path):
    """llama.cpp turns (x_2i, x_2i+1) of Llama, so row 2i of each head is our row i and row 2i + 1 our row i + D/2."""
    H, G, D = LLAMA.heads, LLAMA.groups, LLAMA.head
    for shape, neighbours in ((LLAMA, True), (OURS, False)):
        made = model(shape)
        write_gguf(tmp_path / f"{neighbours}.gguf", made)
        stored = {t.name: torch.tensor(np.array(t.data)) for t in GGUFReader(tmp_path / f"{neighbours}.gguf").tensors}
        q, k, v = made.tensors["blocks.1.attention.qkv.weight"].split((H * shape.head, G * shape.head, G * shape.head))
        assert torch.equal(stored["blk.1.attn_v.weight"], v)
        for name, rows, heads in (("q", q, H), ("k", k, G)):
            order = [h * D + i + half * D // 2 for h in range(heads) for i in range(D // 2) for half in (0, 1)]
            assert torch.equal(stored[f"blk.1.attn_{name}.weight"], rows[order] if neighbours else rows)


def test_the_tokenizer_goes_along(tmp_path):
    spoken = words()
    made = model(replace(OURS, vocabulary=spoken.get_vocab_size() + 2), tokenizer=spoken.to_str(), start=276, stop=277, pad=278)
    write_gguf(tmp_path / "a.gguf", made)
    same(read_gguf(tmp_path / "a.gguf"), made)
    fields = GGUFReader(tmp_path / "a.gguf").fields
    assert fields["tokenizer.ggml.tokens"].contents()[276:] == ["<|start|>", "<|stop|>", "<|pad|>", "[PAD279]", "[PAD280]"]
    assert fields["tokenizer.ggml.token_type"].contents()[275:] == [1, 3, 3, 3, 5, 5]
    foreign = read_gguf(copied(tmp_path / "a.gguf", tmp_path / "b.gguf", without="tokenizer.huggingface.json"))
    assert Tokenizer.from_str(foreign.tokenizer).get_vocab() == spoken.get_vocab()


def test_kinds_of_tokens_that_are_too_few_are_not_believed():
    metadata = metadata_from(words().to_str(), 300, None)
    short = tokenizer_from(metadata | {"token_type": metadata["token_type"][:5]})
    assert Tokenizer.from_str(short).get_vocab()["a"] == words().get_vocab()["a"]


@pytest.fixture(scope="module")
def spoken() -> dict[str, tuple[Tokenizer, Tokenizer]]:
    """A tokenizer of each cut, and what comes of it through GGUF's words."""
    pairs = {}
    for name, pieces in PIECES.items():
        plain = json.loads(words(pieces).to_str())
        plain["model"]["ignore_merges"] = CUTS[name][1]
        plain["model"]["vocab"]["Ġquestion"] = 279    # which no merges lead to
        text = json.dumps(plain)
        metadata = metadata_from(text, 300, None)
        assert metadata["pre"] == name
        pairs[name] = Tokenizer.from_str(text), Tokenizer.from_str(tokenizer_from(metadata))
    bare = words(merges=0)
    pairs["bytes"] = bare, Tokenizer.from_str(tokenizer_from(metadata_from(bare.to_str(), 300, None)))
    assert pairs["llama-bpe"][0].encode(" question").ids == [279]
    return pairs


@pytest.mark.parametrize("name", [*PIECES, "bytes"])
@example(text=" question")
@given(text=st.text() | st.text("the question's 160\n<|stop>"))
def test_a_tokenizer_made_from_tokens_and_merges_speaks_the_same(name, spoken, text):
    one, other = spoken[name]
    assert other.encode(text).ids == one.encode(text).ids
    assert other.decode(one.encode(text).ids) == one.decode(one.encode(text).ids)


def test_a_first_token_before_every_text_is_said(tmp_path):
    begun = json.loads(words().to_str())
    start, one, other = ({"SpecialToken": {"id": "<|start|>", "type_id": 0}},
                         *({"Sequence": {"id": name, "type_id": 0}} for name in "AB"))
    begun["post_processor"] = {"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True},
        {"type": "TemplateProcessing", "single": [start, one], "pair": [one, other],
         "special_tokens": {"<|start|>": {"id": "<|start|>", "ids": [276], "tokens": ["<|start|>"]}}}]}
    text = json.dumps(begun)
    metadata = metadata_from(text, 300, 276)
    assert metadata["add_bos_token"] is True and metadata_from(words().to_str(), 300, 276)["add_bos_token"] is False
    again = Tokenizer.from_str(tokenizer_from(metadata | {"bos_token_id": 276}))
    assert again.encode("to be").ids == Tokenizer.from_str(text).encode("to be").ids
    assert again.encode("to be").ids[0] == 276


@pytest.mark.parametrize(("kind", "error"), [(GGMLQuantizationType.F16, 1e-3), (GGMLQuantizationType.BF16, 1e-2),
                                             (GGMLQuantizationType.Q8_0, 2e-2)])
def test_half_and_quantised_weights_are_what_they_stand_for(kind, error, tmp_path):
    made = model(replace(OURS, inside=64))
    write_gguf(tmp_path / "a.gguf", made)
    rounded = read_gguf(copied(tmp_path / "a.gguf", tmp_path / "b.gguf", kind=kind))
    assert rounded.shape == made.shape
    for name, tensor in made.tensors.items():
        worst = (rounded.tensors[name] - tensor).abs().max().item()
        assert 0 < worst < error if tensor.dim() == 2 else worst == 0
        assert rounded.tensors[name].dtype == torch.float32


def test_a_type_that_the_package_cannot_read_is_named_with_the_way_out(tmp_path):
    write_gguf(tmp_path / "a.gguf", model(OURS))
    with pytest.raises(CorruptStore, match="of type I32, which cannot be read") as refused:
        read_gguf(copied(tmp_path / "a.gguf", tmp_path / "b.gguf", kind=GGMLQuantizationType.I32))
    assert refused.value.code == "CKPT_FORMAT" and "Q8_0" in refused.value.hint


def test_a_file_that_is_no_such_model_is_named(tmp_path):
    made = model(OURS)
    write_gguf(tmp_path / "a.gguf", made)
    whole = (tmp_path / "a.gguf").read_bytes()
    place = tmp_path / "b.gguf"

    def spoilt(content: bytes | None = None, **values) -> str:
        place.unlink(missing_ok=True)
        if content is None:
            copied(tmp_path / "a.gguf", place, **values)
        else:
            place.write_bytes(content)
        return refused(lambda: read_gguf(place), "b.gguf")
    for content in (b"", b"GG", b"PK\x03\x04 and more", whole[:30], whole[:500], whole[:len(whole) // 2], whole[:-64]):
        assert spoilt(content) == "CKPT_FORMAT"
    assert spoilt(architecture="gptneox") == "IMPORT_KIND"
    assert spoilt(block_count=3) == "CKPT_SHAPE"
    assert spoilt(block_count=2_000_000_000) == "IMPORT_SETTING"
    assert spoilt(head_count_kv=3) == "IMPORT_SETTING"
    assert spoilt(dimension_count=8) == "IMPORT_SETTING"
    assert spoilt(feed_forward_length=40) == "CKPT_SHAPE"
    assert refused(lambda: read_gguf(tmp_path / "none.gguf"), "none.gguf") == "CKPT_MISSING"
    assert refused(lambda: read_gguf(tmp_path), str(tmp_path.name)) == "CKPT_MISSING"


def test_scaled_rotations_and_other_tokenizers(tmp_path):
    write_gguf(tmp_path / "a.gguf", model(LLAMA))
    copied(tmp_path / "a.gguf", tmp_path / "b.gguf", added={"llama.rope.scaling.type": "yarn"})
    assert refused(lambda: read_gguf(tmp_path / "b.gguf"), "llama.rope.scaling.type", "yarn") == "IMPORT_SETTING"
    assert tokenizer_from({"model": "llama", "tokens": ["a"]}) is None
    assert tokenizer_from({"model": "gpt2", "pre": "deepseek-llm", "tokens": ["a"]}) is None


@pytest.mark.parametrize(("shape", "setting"), [
    (replace(OURS, cap=15.0), "cap"), (replace(OURS, values=True), "values"), (replace(GPT2, activation="gelu"), "activation"),
    (replace(OURS, biases="all"), "biases"), (replace(LLAMA, biases="all", head=16), "head"),
    (replace(LLAMA, biases="qkv", head=16), "head"),
])
def test_a_shape_that_llama_cpp_has_not_is_refused_by_the_setting(shape, setting, tmp_path):
    assert refused(lambda: write_gguf(tmp_path / "a.gguf", model(shape)), f"'{setting}'") == "EXPORT_SHAPE"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("change", "said"), [
    ({"model": {"type": "WordLevel", "vocab": {"a": 0}}}, "WordLevel"),
    ({"pre_tokenizer": {"type": "Whitespace"}}, "cuts text"),
    ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}}, "cuts text"),
    ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}}, "cuts text"),
    ({"decoder": {"type": "Metaspace"}}, "byte-level"),
    ({"added_tokens": [{"id": 400, "content": "<|far|>", "special": True}]}, "token 400"),
    ({"model": {"type": "BPE", "merges": []}}, "vocab"),
])
def test_a_tokenizer_that_llama_cpp_has_not_is_refused(change, said, tmp_path):
    text = json.dumps(json.loads(words().to_str()) | change)
    made = model(replace(OURS, vocabulary=300), tokenizer=text)
    assert refused(lambda: write_gguf(tmp_path / "a.gguf", made), said) == "EXPORT_TOKENIZER"
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_left_alone(tmp_path):
    (tmp_path / "a.gguf").write_text("mine")
    assert refused(lambda: write_gguf(tmp_path / "a.gguf", model(OURS)), "a.gguf is there already") == "OUT_EXISTS"
    assert (tmp_path / "a.gguf").read_text() == "mine"


def test_without_the_package_the_hint_is_the_command(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gguf", None)    # as Python finds it where it is not installed
    for made in (lambda: read_gguf(tmp_path / "a.gguf"), lambda: write_gguf(tmp_path / "a.gguf", model(OURS))):
        assert refused(made, "'gguf'", "pip install 'verossim[exchange]'") == "EXTRA"
