"""Features: vectors that follow from records, reference, settings and seed alone, and a hash that says when they do not."""

import datetime

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from verossim.config import build
from verossim.errors import BadConfig, BadData, Incompatible
from verossim.features import blocks, choose
from verossim.shelves import FEATURES
from verossim.spaces import Records

DIGITS = load_digits()
PICTURES = [np.rint(picture * 15.9375).astype(np.uint8)[:, :, None] for picture in DIGITS.images]
TEXTS = ["the cat sat on the mat", "a cat sat on a mat", "SELECT name FROM users;", "Olá, mundo!", "", "the cat sat on the mat"]
SMALL = {"samples": 8000}


def made(name, **settings):
    kind = FEATURES.load(name)
    return kind(build(kind.Config, settings))


def pictures(*arrays):
    return Records({"image": list(arrays)})


def table(**columns):
    return Records({name: column if isinstance(column, pa.Array) else pa.array(column) for name, column in columns.items()})


def people(n=60, seed=3):
    rng = np.random.default_rng(seed)
    age = [None if rng.random() < 0.1 else int(v) for v in rng.integers(18, 90, n)]
    towns = pa.array(rng.choice(["Lyon", "Porto", "Turin"], n)).dictionary_encode()
    days = [datetime.date(2020, 1, 1) + datetime.timedelta(int(days)) for days in rng.integers(0, 900, n)]
    return table(age=age, income=rng.lognormal(10, 1, n), town=towns, member=rng.random(n) < 0.5, since=days)


REFERENCES = {"image": pictures(*PICTURES[:300]), "table": people(), "text": Records({"text": TEXTS})}
OTHERS = {"image": pictures(*PICTURES[300:600], PICTURES[5].repeat(2, axis=0)), "table": people(80, 4),
          "text": Records({"text": ["another", "text"]})}
FITTED = [("pixels", "image", {}), ("principal", "image", {"components": 8}), ("principal", "table", {"whiten": True}),
          ("columns", "table", {}), ("ngrams", "text", {}), ("classifier", "image", {"samples": 1000}),
          ("classifier", "table", {"samples": 1000})]


@pytest.mark.parametrize("name, modality, settings", FITTED, ids=[f"{n}-{m}" for n, m, _ in FITTED])
def test_the_same_records_settings_and_seed_give_the_same_bytes_and_another_reference_another_hash(name, modality, settings):
    reference, labels = REFERENCES[modality], np.arange(len(REFERENCES[modality])) % 3
    if modality == "image":
        labels = DIGITS.target[:300]
    one, two = (made(name, **settings).fit(reference, labels, seed=7) for _ in range(2))
    x = one(reference)
    assert x.shape[0] == len(reference) and x.dtype == np.float64 and x.ndim == 2 and np.isfinite(x).all()
    assert x.tobytes() == two(reference).tobytes()
    assert one.hash == two.hash and len(one.hash) == 16
    alone = np.concatenate([one(block) for block in blocks(reference, 7)])
    np.testing.assert_allclose(alone, x, atol=2e-5)
    if name != "pixels":    # the others settle on what the reference holds, pixels on its sizes alone
        assert made(name, **settings).fit(OTHERS[modality], np.arange(len(OTHERS[modality])) % 3, seed=7).hash != one.hash
    assert len(one(reference.take([4]))) == 1


def test_names_of_the_shelf_are_features_and_nothing_else():
    assert set(FEATURES.names()) >= {"pixels", "principal", "classifier", "columns", "ngrams", "mobilenet", "sentences", "dino"}
    assert all(FEATURES.load(name).modalities for name in FEATURES.names())


def test_pixels_are_the_pictures_over_255_and_their_hash_follows_their_size_alone():
    f = made("pixels").fit(REFERENCES["image"])
    np.testing.assert_array_equal(f(pictures(PICTURES[9])), PICTURES[9].reshape(1, -1) / 255)
    assert f.shape == (8, 8, 1) and "8 x 8 pixels grey" in f.resize
    assert made("pixels").fit(pictures(*PICTURES[700:])).hash == f.hash
    assert made("pixels", size=4).fit(REFERENCES["image"]).hash != f.hash


def test_pixels_bring_mixed_sizes_and_channels_to_the_commonest_size_of_the_reference():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (20, 10, 1), dtype=np.uint8)
    seen = np.full((40, 80, 4), 255, np.uint8)
    clear = np.zeros((40, 80, 4), np.uint8)     # black, wholly transparent: white
    f = made("pixels").fit(pictures(seen, seen, grey))
    assert f.shape == (16, 32, 3)
    x = f(pictures(grey, seen, clear)).reshape(3, 16, 32, 3)
    np.testing.assert_allclose(x[1:], 1.0)
    assert (x[0, :, :, 0] == x[0, :, :, 1]).all() and abs(x[0].mean() - grey.mean() / 255) < 0.03
    half = seen.copy()
    half[..., :3], half[..., 3] = 0, 51     # black at a fifth
    np.testing.assert_allclose(f(pictures(half)), 0.8, atol=1e-6)


def test_pixels_are_resampled_without_aliasing():
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, ::2] = 255
    f = made("pixels", size=16).fit(pictures(stripes))
    inner = f(pictures(stripes)).reshape(16, 16)[:, 1:-1]
    assert abs(inner - 0.5).max() < 0.02


def test_a_grey_reference_keeps_pictures_grey_by_their_luma():
    f = made("pixels").fit(pictures(PICTURES[0]))
    colour = np.broadcast_to(np.array([200, 100, 50], np.uint8), (8, 8, 3)).copy()
    np.testing.assert_allclose(f(pictures(colour)), (0.299 * 200 + 0.587 * 100 + 0.114 * 50) / 255)


def test_principal_components_equal_those_of_scikit_learn_up_to_sign():
    x = made("pixels").fit(REFERENCES["image"])(REFERENCES["image"])
    ours = made("principal", components=10).fit(REFERENCES["image"])(REFERENCES["image"])
    theirs = PCA(10, svd_solver="full").fit_transform(x)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-9)
    whitened = made("principal", components=10, whiten=True).fit(REFERENCES["image"])(REFERENCES["image"])
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(10), atol=1e-9)


def test_principal_components_of_fewer_records_than_features_keep_all_distances():
    few = pictures(*(np.random.default_rng(k).integers(0, 256, (12, 12, 3), dtype=np.uint8) for k in range(9)))
    x, z = made("pixels").fit(few)(few), made("principal").fit(few)(few)
    assert z.shape == (9, 8)    # nine points span eight dimensions
    np.testing.assert_allclose(np.linalg.norm(z[:, None] - z, axis=2), np.linalg.norm(x[:, None] - x, axis=2), atol=1e-9)


def test_records_that_do_not_differ_have_no_principal_components():
    with pytest.raises(BadData, match="all 3 records are the same") as caught:
        made("principal").fit(pictures(PICTURES[0], PICTURES[0], PICTURES[0]))
    assert caught.value.code == "DATA_CONSTANT" and "pixels" in caught.value.hint
    with pytest.raises(BadData):
        made("principal").fit(pictures(PICTURES[0]))


def test_columns_standardise_numbers_and_dates_and_say_what_is_missing():
    days = [datetime.datetime(2024, 1, d) for d in (1, 2, 3, 4)]
    r = table(a=[1, 2, None, 3], b=[5.0, 5.0, 5.0, 5.0], when=days, word=["x", "y", None, "x"], yes=[True, False, True, True])
    x = made("columns").fit(r)(r)
    root = (2 / 3) ** 0.5
    np.testing.assert_allclose(x[:, 0], [-1 / root, 0, 0, 1 / root])
    np.testing.assert_array_equal(x[:, 1], [0, 0, 1, 0])    # a is missing
    np.testing.assert_array_equal(x[:, 2], 0)               # b is constant
    np.testing.assert_allclose(x[:, 3], (np.arange(4) - 1.5) / 1.25 ** 0.5)
    np.testing.assert_array_equal(x[:, 4:8], [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]])  # x, y, others, missing
    np.testing.assert_array_equal(x[:, 8:], [[1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0]])               # true, false, others


def test_columns_pool_rare_and_unseen_words_and_fill_gaps_that_the_reference_has_not():
    r = table(word=["a"] * 5 + ["b"] * 3 + ["c", "d"], n=list(range(10)))
    f = made("columns", levels=2).fit(r)
    other = table(n=[None, 4.5], word=pa.array(["c", "never seen"]).dictionary_encode())    # in another order, of other types
    np.testing.assert_array_equal(f(other), [[0, 0, 1, 0], [0, 0, 1, 0]])
    np.testing.assert_array_equal(f(table(word=pa.nulls(2), n=[4.5, 4.5]))[:, 2], 1)
    moved = table(word=pa.chunked_array([["b"], ["a"]]).combine_chunks(), n=pa.array([4, 5], pa.decimal128(5, 1)))
    np.testing.assert_array_equal(f(moved)[:, :3], [[0, 1, 0], [1, 0, 0]])


def test_columns_of_another_table_are_refused_with_the_difference():
    f = made("columns").fit(table(age=[1, 2], town=["x", "y"]))
    with pytest.raises(Incompatible, match="missing 'town'; not known 'twon'") as caught:
        f(table(age=[1], twon=["x"]))
    assert caught.value.code == "TAB_SCHEMA" and "'town'" in caught.value.hint
    with pytest.raises(Incompatible, match="column 'age' holds words, in the reference numbers"):
        f(table(age=["old"], town=["x"]))
    with pytest.raises(BadData, match="every cell is missing") as none:
        made("columns").fit(table(a=pa.nulls(3)))
    assert none.value.code == "TAB_NOTHING"
    with pytest.raises(BadData, match="is list"):
        made("columns").fit(table(a=[[1], [2]]))


def test_ngrams_tell_texts_apart_that_differ_in_who_does_what():
    texts = ["the cake was awful and the bread was bland", "the bread was awful and the cake was bland"] * 8
    one, other = made("ngrams").fit(Records({"text": texts}))(Records({"text": texts}))[:2]
    assert np.abs(one - other).max() > 1e-3


def test_ngrams_keep_what_is_alike_near_and_equal_texts_equal():
    f = made("ngrams").fit(REFERENCES["text"])
    x = f(REFERENCES["text"])
    assert x.shape == (6, 257)
    assert x[0].tobytes() == x[5].tobytes()
    near = np.linalg.norm(x[0] - x[1])
    assert near < 0.8 * np.linalg.norm(x[0] - x[2]) and near < 0.8 * np.linalg.norm(x[0] - x[3])
    np.testing.assert_array_equal(x[4], 0)      # no characters at all
    np.testing.assert_allclose(x[:, -1], np.log1p([len(text) for text in TEXTS]) / 10)
    finer = made("ngrams", dims=512).fit(REFERENCES["text"])(REFERENCES["text"])[:4, :-1]
    np.testing.assert_allclose(np.linalg.norm(finer, axis=1), 2 ** 0.5, rtol=3 / (2 * 512) ** 0.5)  # each kind is of length one
    as_bytes = Records({"text": [text.encode() for text in TEXTS]})
    np.testing.assert_array_equal(f(as_bytes), x)
    assert f(Records({"text": ["a  b"]})).tobytes() != f(Records({"text": ["a b"]})).tobytes()     # spaces count
    assert made("ngrams", dims=64).fit(REFERENCES["text"]).hash != f.hash


def test_the_classifier_tells_digits_apart_and_says_how_well():
    before = torch.random.get_rng_state()
    f = made("classifier", **SMALL).fit(pictures(*PICTURES), DIGITS.target, seed=0)
    assert f.accuracy >= 0.95 and f.held_out == 179
    assert f"{f.accuracy:.1%} of 179 held-out records" in f.notes[0]
    assert torch.equal(before, torch.random.get_rng_state())
    x = f(pictures(*PICTURES))
    assert x.shape == (1797, 128)
    middles = np.stack([x[DIGITS.target == digit].mean(axis=0) for digit in range(10)])
    assert (np.linalg.norm(x[:, None] - middles, axis=2).argmin(axis=1) == DIGITS.target).mean() >= 0.95
    assert made("classifier", **SMALL).fit(pictures(*PICTURES), DIGITS.target, seed=1).hash != f.hash


def test_the_classifier_leaves_out_records_without_a_class_and_learns_tables():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 600)
    r = table(a=rng.normal(size=600) + 3 * y, b=rng.choice(["x", "y"], 600))
    labels = np.where(np.arange(600) < 400, y, -1)
    f = made("classifier").fit(r, labels, seed=0)
    assert f.held_out == 40 and f.accuracy > 0.8
    np.testing.assert_array_equal(f(r), made("classifier").fit(r, labels, seed=0)(r))


def test_the_classifier_needs_classes():
    records = pictures(*PICTURES[:20])
    for labels in (None, np.full(20, -1)):
        with pytest.raises(Incompatible, match="these records have none") as caught:
            made("classifier").fit(records, labels)
        assert caught.value.code == "FEATURES_LABELS" and "principal" in caught.value.hint
    with pytest.raises(BadData, match="of one class") as one:
        made("classifier").fit(records, np.zeros(20, int))
    assert one.value.code == "LABEL_SINGLE"
    with pytest.raises(BadData, match="Only 2 records"):
        made("classifier").fit(pictures(*PICTURES[:2]), np.array([0, 1]))
    with pytest.raises(BadConfig):
        made("classifier").fit(records, np.arange(20) % 2, seed=-1)


def test_records_of_another_modality_or_none_are_refused():
    with pytest.raises(Incompatible, match="'pixels' read image records, and these are table") as caught:
        made("pixels").fit(people())
    assert caught.value.code == "FEATURES_MODALITY"
    with pytest.raises(Incompatible):
        made("columns").fit(REFERENCES["image"])
    with pytest.raises(BadData) as empty:
        made("pixels").fit(pictures())
    assert empty.value.code == "DATA_EMPTY"
    with pytest.raises(BadData, match=r"float64 \(8, 8\)") as form:
        made("pixels").fit(pictures(DIGITS.images[0]))
    assert form.value.code == "IMG_FORMAT"


def test_the_default_features_follow_from_what_is_known():
    assert choose("image", True, 60_000) == "classifier"
    assert choose("image", True, 20) == choose("image", False, 60_000) == "principal"
    assert choose("table", True, 100) == "columns"
    assert choose("text", False, 100) in ("sentences", "ngrams")
    with pytest.raises(Incompatible, match="no features of audio"):
        choose("audio", False, 100)
