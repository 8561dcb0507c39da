"""Models that go out to other programs and come in from them, with their tokenizers."""

import json

import pytest
import torch

import verossim
from verossim.errors import Incompatible
from verossim.model.exchanging import export, imported
from verossim.model.texts import opening

TEXT = "".join(f"{n} apples and {n + 1} pears. " for n in range(300))


@pytest.fixture(scope="module", params=["bytes", "bpe:300"])
def model(request) -> verossim.Model:
    return verossim.fit([TEXT, TEXT[::-1]], family="autoregressive", tokens=request.param, width=32, context=24, samples=320,
                        batch=32, held_out=0)


def test_out_to_transformers_and_back_is_the_identity(model, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    export(model, tmp_path / "out")
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
