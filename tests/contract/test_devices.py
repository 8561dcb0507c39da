"""All that is learned and asked on a device, on one that is pretended: the answers are the CPU's."""

from functools import partial, partialmethod

import numpy as np
import pytest
import torch
from PIL import Image
from pretended import NAME, Pretended

import verossim
from verossim.families import diffusion, vae
from verossim.families.gan import inversion
from verossim.model import fitting
from verossim.model.texts import weighed
from verossim.nn import decoding
from verossim.seeds import Noise
from verossim.training import Engine

SETTINGS = {"vae": {"draws": 4}, "diffusion": {}, "gan": {"chains": 2, "temperatures": 4, "latent": 3}}
KINDS = ("pictures", "table")


def source(kind, folder, count=60):
    """Labelled records: pictures of 4 pixels in two folders, or a table with a category."""
    g = np.random.default_rng(0)
    if kind == "pictures":
        for i in range(count):
            (folder / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(g.integers(0, 255, (4, 4), dtype=np.uint8)).save(folder / "ab"[i % 2] / f"{i}.png")
        return folder
    rows = [f"{a:.3f},{b:.3f},{'xyz'[i % 3]},{'ab'[i % 2]}" for i, (a, b) in enumerate(g.normal(size=(count, 2)))]
    folder.with_suffix(".csv").write_text("one,two,three,label\n" + "\n".join(rows))
    return folder.with_suffix(".csv")


def learned(family, kind, tmp_path, folder):
    label = {"label": "label"} if kind == "table" else {}
    return verossim.fit(source(kind, tmp_path / "data"), family=family, folder=folder, samples=96, batch=16, width=8, depth=1,
                        seed=1, **label, **SETTINGS[family])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", SETTINGS)
def test_a_run_on_a_device_is_that_of_the_cpu(family, kind, tmp_path, monkeypatch):
    near = learned(family, kind, tmp_path, tmp_path / "near")
    with Pretended():
        monkeypatch.setattr(fitting.Engine, "start", lambda device: Engine(device=NAME))
        far = learned(family, kind, tmp_path, tmp_path / "far")
    for name, value in near.family.state_dict().items():
        assert torch.equal(value, far.family.state_dict()[name]), name


def asked(model, records, tmp_path):
    """All that a model is asked, and what it answers."""
    z = model.encode(records)
    yield "encode", z
    yield "sample", model.draw(5, seed=3)
    yield "given", model.draw(5, condition="a", seed=3)
    for method in model.family.methods:
        yield method, model.log_prob(records, condition="a", method=method).log_prob
    yield "decode", model.decoded(z, "b")
    yield "classes", model.predict_proba(records)
    if model.codec.modality == "table":
        gaps = tmp_path / "gaps.csv"
        gaps.write_text("one,two,three,label\n,0.5,x,a\n0.25,,,b\n")
        yield "means", next(filled for _, filled in model.fill(gaps))
        yield "draws", next(filled for _, filled in model.fill(gaps, seed=2))
    if model.family.layers:
        yield "mix", model.crossed(0, 1)
        yield "edit", model.moved(0, [-1, 1])
        yield "edit of records", model.moved(0, [-1, 1], records)
        yield "truncated", model.draw(3, truncation=0.5)
        yield "sandwich", torch.tensor(list(model.sandwich(2).values()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", SETTINGS)
def test_what_is_asked_on_a_device_is_answered_as_by_the_cpu(family, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(diffusion, "FLOW_STEPS", 4)
    monkeypatch.setattr(diffusion, "Completion", partial(diffusion.Completion, levels=3, rounds=1))
    monkeypatch.setattr(diffusion.Judge, "flow", partialmethod(diffusion.Judge.flow, steps=2, draws=1))
    monkeypatch.setattr(diffusion.Judge, "bound", partialmethod(diffusion.Judge.bound, draws=1))
    monkeypatch.setattr(vae, "STEPS", 3)
    monkeypatch.setattr(inversion, "STEPS", 10)
    near, few = learned(family, kind, tmp_path, tmp_path / "run"), source(kind, tmp_path / "few", 6)
    with Pretended():
        found = dict(asked(verossim.Model.load(tmp_path / "run" / "model", NAME), few, tmp_path))
    for name, value in asked(near, few, tmp_path):
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, found[name]), name
        for column, values in value.columns.items() if not isinstance(value, torch.Tensor) else ():
            assert np.array_equal(values, found[name].columns[column]), (name, column)


TEXTS = {"family": "autoregressive", "width": 16, "blocks": 2, "context": 24, "samples": 64, "batch": 16, "seed": 1}


def said():
    """Texts with labels."""
    return [{"text": f"{n} {'red' if n % 2 else 'blue'} things", "mood": "ab"[n % 2]} for n in range(40)]


def written(model, rows):
    """All that a model of texts is asked, and what it answers."""
    yield "sample", model.sample(3, condition="a", seed=3, tokens=30)  # past the context
    yield "likeliest", model.sample(1, seed=3, temperature=0.0, top_k=4, repetition=1.2)
    yield "drawn", [(text.label, text.log_prob) for text in [*model.write(4, "1", seed=2, top_p=0.9, tokens=5)][-1]]
    yield "search", model.search("1 ", condition="b", beam=3, tokens=6).text
    yield "log_prob", model.log_prob(rows, condition="a").log_prob.tolist()
    yield "classes", model.predict_proba(rows).tolist()
    yield "each", [cost for _, told in weighed(model, rows) for one in told for _, cost in one]
    x = model.codec.encode(model.codec.parse(next(verossim.data.open_source(["12 red things"]).blocks()), []))
    x[:, 3:5] = model.codec.space.pad
    yield "gap", model.family.complete(x, torch.tensor([1]), Noise(4, 1)).tolist()


@pytest.mark.parametrize("adapted", [False, True], ids=["whole", "adapters"])
def test_texts_are_learned_and_written_on_a_device_as_by_the_cpu(adapted, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "find_spec", lambda name: None)  # a device has no compiled decoder
    rows, told = said(), {"label": "mood", "modality": "text"}
    if adapted:
        verossim.fit(rows, folder=tmp_path / "run", **told, **TEXTS)
    on = {"start": tmp_path / "run", "adapter_rank": 2, "family": "autoregressive", "samples": 64, "batch": 16, "seed": 1}
    settings = on if adapted else TEXTS
    near = verossim.fit(rows, folder=tmp_path / "near", **told, **settings)
    with Pretended():
        monkeypatch.setattr(fitting.Engine, "start", lambda device: Engine(device=NAME))
        far = verossim.fit(rows, folder=tmp_path / "far", **told, **settings)
        found = dict(written(verossim.Model.load(tmp_path / "far", NAME, apart=adapted), rows))
    for name, value in near.family.state_dict().items():
        assert torch.equal(value, far.family.state_dict()[name]), name
    for name, value in written(verossim.Model.load(tmp_path / "near", apart=adapted), rows):
        assert value == found[name], name
