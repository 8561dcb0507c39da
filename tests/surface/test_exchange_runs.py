"""Models that go out to other programs and come in from them, with their tokenizers."""

import json

import pytest
import torch

import verossim
from verossim.errors import BadConfig, Incompatible
from verossim.model.exchanging import export, imported
from verossim.model.speaking import speaking
from verossim.model.texts import opening

TEXT = "".join(f"{n} apples and {n + 1} pears. " for n in range(300))


@pytest.fixture(scope="module", params=["bytes", "bpe:300"])
def model(request) -> verossim.Model:
    return verossim.fit([TEXT, TEXT[::-1]], family="autoregressive", tokens=request.param, width=32, context=24, samples=320,
                        batch=32, held_out=0)


def test_out_to_transformers_and_back_is_the_identity(model, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    export(model, tmp_path / "out")
    assert "chat_template" not in json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    theirs, tokenizer = (kind.from_pretrained(tmp_path / "out") for kind in (AutoModelForCausalLM, AutoTokenizer))
    assert type(theirs).__name__ == "Qwen3ForCausalLM"
    ids = tokenizer("12 apples", return_tensors="pt").input_ids
    assert ids[0].tolist() == (~opening(model, "12 apples")).tolist()  # the first token is put before the text there too
    with torch.no_grad():
        assert torch.allclose(theirs(ids).logits, model.family.net(ids), atol=1e-4)
    again = imported(tmp_path / "out")
    ours, back = model.family.net.state_dict(), again.family.net.state_dict()
    assert ours.keys() == back.keys() and all(torch.equal(ours[name], back[name]) for name in ours)
    texts = ["3 apples", "<|stop|> pears", "\u00e9\u4e2d"]
    assert torch.equal(again.log_prob(texts).log_prob, model.log_prob(texts).log_prob)
    assert again.sample(3, prompt="1", seed=4) == model.sample(3, prompt="1", seed=4)


def test_a_foreign_model_is_taken_in_saved_scored_and_gone_on_from(say, tmp_path):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=299, show_progress=False,
                                                              initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    end = tokenizer.token_to_id("<|endoftext|>")
    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=end + 1, n_positions=32, n_embd=32, n_layer=2, n_head=2, bos_token_id=end,
                                        eos_token_id=end)).eval()
    theirs.save_pretrained(tmp_path / "gpt2")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(tmp_path / "gpt2")
    status, _, err = say("import", tmp_path / "gpt2", "-o", tmp_path / "model")
    assert status == 0, err
    model = verossim.Model.load(tmp_path / "model")
    said = "2 apples <|endoftext|>"
    x = opening(model, said)
    assert (~x).tolist().count(end) == 1 and model.codec.raw(x[None])[0].decode() == said
    ids = ~x[None]
    with torch.no_grad():
        log_p = theirs(ids).logits[0, :-1].log_softmax(dim=1).gather(1, ids[0, 1:, None]).sum()
        log_p += theirs(ids).logits[0, -1].log_softmax(dim=0)[end]
    assert float(model.log_prob([said]).log_prob) == pytest.approx(float(log_p), rel=1e-5)
    (tmp_path / "more.txt").write_text(TEXT)
    status, _, err = say("fit", tmp_path / "more.txt", "--family", "autoregressive", "--from", tmp_path / "model", "--samples",
                         "320", "-o", tmp_path / "on", "--held-out", "0")
    assert status == 0, err
    tuned = verossim.Model.load(tmp_path / "on")
    assert float(tuned.log_prob([TEXT[:200]]).log_prob) > float(model.log_prob([TEXT[:200]]).log_prob)
    with pytest.raises(Incompatible, match="user"):
        opening(model, [{"role": "user", "content": "Hello"}])


def foreign(folder, **settings):
    """A Llama of transformers in a folder, whose tokens are bytes and two more."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM
    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**{
        "vocab_size": 258, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 64, "bos_token_id": 256, "eos_token_id": 257, **settings})).save_pretrained(folder)
    return tokenizer


def test_adapters_rest_on_a_model_from_elsewhere(tmp_path):
    foreign(tmp_path / "m").save(str(tmp_path / "m" / "tokenizer.json"))
    base = imported(tmp_path / "m")
    base.save(tmp_path / "base")
    fit = {"family": "autoregressive", "start": tmp_path / "base", "samples": 320, "held_out": 0}
    tuned = verossim.fit([TEXT], adapter_rank=4, **fit)
    tuned.save(tmp_path / "tuned")
    weights = sum(file.stat().st_size for file in (tmp_path / "tuned").glob("*.safetensors"))
    assert weights < 0.5 * sum(file.stat().st_size for file in (tmp_path / "base").glob("*.safetensors"))
    again = verossim.Model.load(tmp_path / "tuned")
    assert torch.allclose(again.log_prob([TEXT[:200]]).log_prob, tuned.log_prob([TEXT[:200]]).log_prob, rtol=1e-5)
    assert float(again.log_prob([TEXT[:200]]).log_prob) > float(base.log_prob([TEXT[:200]]).log_prob)


def test_a_model_from_elsewhere_learns_chats_and_pairs(say, tmp_path):
    foreign(tmp_path / "m", vocab_size=264).save(str(tmp_path / "m" / "tokenizer.json"))  # six that no text has
    base = imported(tmp_path / "m")
    base.save(tmp_path / "base")
    fit = {"family": "autoregressive", "start": tmp_path / "base", "held_out": 0, "batch": 16, "rate": 0.006}
    with pytest.raises(Incompatible, match="adapters"):
        opening(base, [{"role": "user", "content": "Hello"}])
    said = {"Hello": "Good day!", "Bye": "See you."}
    chats = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in said.items()] * 20
    before, after = (model.family.net.first.weight for model in (base, speaking(base)))
    assert torch.equal(after[:258], before[:258]) and torch.allclose(after[258:], before[:258].mean(dim=0).expand(8, -1))
    speaker = verossim.fit(chats, samples=1600, **fit)
    speaker.save(tmp_path / "chat")
    speaker = verossim.Model.load(tmp_path / "chat")
    for question, answer in said.items():
        *_, (text,) = speaker.write(1, [{"role": "user", "content": question}], temperature=0.0)
        assert (text.text, text.ended) == (answer, "stop")
    assert speaker.codec.special["start"] == base.codec.special["start"] and len(speaker.codec.vocabulary) == 266
    from transformers import AutoTokenizer
    export(speaker, tmp_path / "out")
    spoken = AutoTokenizer.from_pretrained(tmp_path / "out").apply_chat_template(chats[0]["messages"][:1], return_dict=False,
                                                                                add_generation_prompt=True)
    assert spoken == (~opening(speaker, chats[0]["messages"][:1])).tolist()
    pairs = verossim.fit([{"en": "the owl", "pt": "OWL"}, {"en": "the fox", "pt": "FOX"}] * 20, condition="en", target="pt",
                         samples=1600, **fit)
    assert pairs.search(condition="the owl").text == "OWL"


def test_how_a_tokenizer_was_last_called_does_not_matter(tmp_path):
    tokenizer = foreign(tmp_path / "m")
    tokenizer.save(str(tmp_path / "m" / "tokenizer.json"))
    whole = imported(tmp_path / "m").log_prob([TEXT[:100], "a"])
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=32, pad_token="</s>", pad_id=257)
    tokenizer.save(str(tmp_path / "m" / "tokenizer.json"))
    again = imported(tmp_path / "m").log_prob([TEXT[:100], "a"])
    assert torch.equal(again.log_prob, whole.log_prob) and again.coordinates.tolist() == [100, 1]


def test_a_model_that_knows_no_end_of_texts_is_used_without_one(tmp_path):
    tokenizer = foreign(tmp_path / "m", eos_token_id=None)
    tokenizer.save(str(tmp_path / "m" / "tokenizer.json"))
    model = imported(tmp_path / "m")
    ids = torch.tensor([[256, *tokenizer.encode("12 pears").ids]])
    with torch.no_grad():
        log_p = model.family.net(ids).log_softmax(dim=2)[0, :-1].gather(1, ids[0, 1:, None]).sum()
    assert float(model.log_prob(["12 pears"]).log_prob) == pytest.approx(float(log_p), rel=1e-5)
    assert len(model.sample(2, prompt="12", tokens=5)) == 2
    with pytest.raises(Incompatible, match="rule"):
        next(model.write(1, regex="a"))


def test_what_comes_in_can_be_loaded_again_or_is_refused(tmp_path):
    foreign(tmp_path / "long", rope_parameters={"rope_type": "default", "rope_theta": 3580165449.0}).save(
        str(tmp_path / "long" / "tokenizer.json"))
    imported(tmp_path / "long").save(tmp_path / "model")
    assert verossim.Model.load(tmp_path / "model").family.shape.base == 3580165449.0
    foreign(tmp_path / "odd", rope_parameters={"rope_type": "default", "rope_theta": 1e30}).save(
        str(tmp_path / "odd" / "tokenizer.json"))
    with pytest.raises(BadConfig, match="base"):
        imported(tmp_path / "odd")


def test_chats_go_out_with_their_form_and_end_where_they_do_here(model, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    chats = [{"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day!"}]}] * 30
    speaker = verossim.fit(chats, family="autoregressive", tokens="bytes", width=32, blocks=2, context=32, samples=1600,
                           batch=16, rate=0.006, held_out=0)
    export(speaker, tmp_path / "out")
    theirs, tokenizer = (kind.from_pretrained(tmp_path / "out") for kind in (AutoModelForCausalLM, AutoTokenizer))
    asked = chats[0]["messages"][:1]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
    assert ids[0].tolist() == (~opening(speaker, asked)).tolist()
    said = theirs.generate(ids, do_sample=False, max_new_tokens=20)[0, ids.shape[1]:]
    assert tokenizer.decode(said, skip_special_tokens=True) == "Good day!" and len(said) == len("Good day!") + 1
    export(speaker, tmp_path / "m.gguf", "gguf")
    for place in ("out", "m.gguf"):
        *_, (text,) = imported(tmp_path / place).write(1, asked, temperature=0.0)
        assert (text.text, text.ended) == ("Good day!", "stop")


def test_a_gguf_file_goes_out_and_comes_back(say, model, tmp_path):
    model.save(tmp_path / "model")
    status, _, err = say("export", tmp_path / "model", "-o", tmp_path / "m.gguf", "--format", "gguf")
    assert status == 0, err
    status, out, err = say("import", tmp_path / "m.gguf", "-o", tmp_path / "back", "--json")
    assert status == 0 and json.loads(out)["family"] == "autoregressive", err
    assert torch.equal(verossim.Model.load(tmp_path / "back").log_prob(["7 pears"]).log_prob,
                       model.log_prob(["7 pears"]).log_prob)


def test_what_is_no_model_of_texts_is_refused(say, model, tmp_path):
    assert say("import", tmp_path / "nowhere", "-o", tmp_path / "x")[0] not in (0, 70)
    (tmp_path / "text").write_text("not a model")
    assert say("import", tmp_path / "text", "-o", tmp_path / "x")[0] not in (0, 70)
    model.save(tmp_path / "model")
    assert say("export", tmp_path / "model", "-o", tmp_path / "out", "--format", "onnx")[0] == 64
    table = verossim.fit([[0.0, 1.0], [1.0, 2.0], [2.0, 0.5], [0.3, 0.1]] * 5, components=1)
    with pytest.raises(Incompatible, match="texts"):
        export(table, tmp_path / "out")
