"""Low-rank adapters as people have them: learned on a model, saved apart from it, found again, merged and given out."""

import json
import shutil

import pytest
import torch

import verossim
from verossim.errors import BadConfig, CorruptStore

OLD = "".join(f"The {a} saw the {b}.\n" for a in ("fox", "owl", "bear") for b in ("moon", "sun", "sea")) * 20
NEW = "".join(f"Some {a} ate my {b}!\n" for a in ("cat", "dog", "pig") for b in ("fish", "hay", "pie")) * 20
SMALL = {"family": "autoregressive", "batch": 16, "held_out": 0.0}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("adapters")
    (home / "new.txt").write_text(NEW)
    verossim.fit([OLD], width=48, blocks=2, context=32, samples=640, folder=home / "run", **SMALL)
    verossim.fit(home / "new.txt", start=home / "run", adapter_rank=4, samples=640, folder=home / "adapted", **SMALL)
    return home


def bits(model, text=NEW[:300]):
    return float(model.log_prob([text]).bits[0])


def size(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_only_adapters_are_saved_and_they_have_learned(home):
    base, adapted = (verossim.Model.load(home / name) for name in ("run", "adapted"))
    assert bits(adapted) < bits(base) - 1
    plain, apart = (json.loads((home / name / "model" / "model.json").read_text()) for name in ("run", "adapted"))
    assert apart["base"] == base.sha256 and "base" not in plain
    weights = home / "adapted" / "model" / "weights.safetensors"
    assert weights.stat().st_size < 0.5 * (home / "run" / "model" / "weights.safetensors").stat().st_size
    from safetensors.torch import load_file
    assert all(name.endswith(("lora_A", "lora_B")) for name in load_file(weights))
    assert size(home / "adapted" / "state") < 0.5 * size(home / "run" / "state")


def test_merged_and_apart_they_say_and_write_the_same(home, tmp_path):
    merged, apart = verossim.Model.load(home / "adapted"), verossim.Model.load(home / "adapted", apart=True)
    assert torch.allclose(merged.log_prob([NEW[:200]]).log_prob, apart.log_prob([NEW[:200]]).log_prob, rtol=1e-5)
    assert merged.sample(2, prompt="Some", temperature=0.0) == apart.sample(2, prompt="Some", temperature=0.0)
    apart.save(tmp_path / "again")
    assert apart.sha256 == merged.sha256
    merged.save(tmp_path / "whole")  # what was merged is saved whole, and needs no other
    shutil.copytree(tmp_path / "whole", tmp_path / "elsewhere" / "whole")
    again = verossim.Model.load(tmp_path / "elsewhere" / "whole")
    assert torch.equal(again.log_prob([NEW[:200]]).log_prob, merged.log_prob([NEW[:200]]).log_prob)


def test_the_model_they_rest_on_is_found_beside_them_and_no_other_is_taken(home, tmp_path, say):
    moved = tmp_path / "moved"
    shutil.copytree(home / "adapted" / "model", moved / "adapted")
    card = json.loads((home / "adapted" / "model" / "card.json").read_text())
    assert card["base"] == str(home / "run")
    before = bits(verossim.Model.load(moved / "adapted"))
    shutil.move(home / "run", tmp_path / "kept")
    try:
        with pytest.raises(CorruptStore, match="run") as error:
            verossim.Model.load(moved / "adapted")
        assert error.value.code == "CKPT_BASE" and error.value.status == 66
        status, _, err = say("sample", home / "adapted", "--prompt", "Some")
        assert status == 66 and "beside" in err
        assert bits(verossim.Model.load(moved / "adapted", base=tmp_path / "kept")) == before
        status, _, err = say("export", moved / "adapted", "--base", tmp_path / "kept", "-o", tmp_path / "out")
        assert status == 0, err
        (moved / "run").symlink_to(tmp_path / "kept")
        assert bits(verossim.Model.load(moved / "adapted")) == before
        (moved / "run").unlink()
        verossim.fit([OLD], width=48, blocks=2, context=32, samples=16, folder=moved / "run", **SMALL)
        with pytest.raises(CorruptStore, match="another"):
            verossim.Model.load(moved / "adapted")
    finally:
        shutil.move(tmp_path / "kept", home / "run")


def test_they_go_out_merged_or_alone(home, tmp_path, say):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    for name, source, more in (("base", "run", []), ("merged", "adapted", []), ("alone", "adapted", ["--format", "peft"])):
        status, _, err = say("export", home / source, "-o", tmp_path / name, *more)
        assert status == 0, err
    ids = torch.tensor([[256, *b"Some cat ate"]])
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")(ids).logits
        under = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        theirs = PeftModel.from_pretrained(under, tmp_path / "alone").eval()(ids).logits
        ours = verossim.Model.load(home / "adapted", apart=True).family.net(ids)
    assert torch.allclose(theirs, merged, atol=1e-4) and torch.allclose(ours, merged, atol=1e-4)
    status, _, err = say("export", home / "run", "-o", tmp_path / "none", "--format", "peft")
    assert status == 65 and "--adapter-rank" in err


def test_one_goes_on_from_them_and_lays_adapters_on_adapters(home, tmp_path):
    third = "A mole in a hole.\n" * 20
    on = {"start": home / "adapted", "samples": 160, **SMALL}
    whole = verossim.fit([third], folder=tmp_path / "whole", **on)
    assert whole.base is None and bits(whole, third[:200]) < bits(verossim.Model.load(home / "adapted"), third[:200])
    twice = verossim.fit([third], adapter_rank=2, adapter_alpha=8.0, folder=tmp_path / "twice", **on)
    loaded = verossim.Model.load(tmp_path / "twice")
    assert bits(loaded, third[:200]) == pytest.approx(bits(twice, third[:200]), rel=1e-5)
    assert loaded.family.state_dict().keys() == verossim.Model.load(home / "run").family.state_dict().keys()


def test_the_same_command_goes_on_with_adapters_and_others_are_told_apart(home, tmp_path):
    asked = {"start": home / "run", "adapter_rank": 2, "samples": 64, **SMALL}
    first = verossim.fit([NEW], folder=tmp_path / "run", **asked)
    again = verossim.fit([NEW], folder=tmp_path / "run", **asked)
    assert all(torch.equal(value, again.family.state_dict()[name]) for name, value in first.family.state_dict().items())
    with pytest.raises(BadConfig, match="adapter_rank"):
        verossim.fit([NEW], folder=tmp_path / "run", **{**asked, "adapter_rank": 3})
    with pytest.raises(BadConfig, match="--from"):
        verossim.fit([NEW], adapter_rank=2, samples=16, **SMALL)
    with pytest.raises(BadConfig, match="width"):
        verossim.fit([NEW], width=64, **asked)


def test_labelled_models_and_chats_take_adapters(say, tmp_path):
    rows = [{"text": f"{word} {noun}", "mood": word[0]} for word in ("good", "bad") for noun in ("day", "tea", "sea")] * 8
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = ["--family", "autoregressive", "--set", "batch=16", "--held-out", "0"]
    status, _, err = say("fit", tmp_path / "rows.jsonl", "--modality", "text", "--label", "mood", *common, "--width", "32",
                         "--blocks", "2", "--context", "24", "--samples", "320", "-o", tmp_path / "run")
    assert status == 0, err
    status, _, err = say("fit", tmp_path / "rows.jsonl", "--modality", "text", "--label", "mood", *common, "--from",
                         tmp_path / "run", "--adapter-rank", "2", "--samples", "64", "-o", tmp_path / "on")
    assert status == 0, err
    model = verossim.Model.load(tmp_path / "on")
    assert model.classes == ["b", "g"] and float(model.predict_proba(["good day"])[0, 1]) > 0.5
    chats = [{"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day!"}]}] * 20
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, chats)))
    verossim.fit([OLD], width=32, blocks=2, context=32, samples=320, folder=tmp_path / "plain", **SMALL)
    chat = verossim.fit(tmp_path / "chats.jsonl", start=tmp_path / "plain", adapter_rank=8, samples=160,
                        folder=tmp_path / "chat", **SMALL)
    before, after = (each.log_prob(tmp_path / "chats.jsonl").log_prob.mean() for each in (
        verossim.Model.load(tmp_path / "plain"), chat))
    assert after > before + 3
    *_, (text,) = chat.write(1, [{"role": "user", "content": "Hello"}], tokens=4)
    assert text.ended
