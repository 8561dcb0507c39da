"""Every codec on the shelf: records go to x and come back, and what was learned survives being written down."""

import datetime
import io
import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image

from verossim.codecs import Codec
from verossim.codecs.image import ImageConfig, Pictures
from verossim.codecs.label import LabelConfig
from verossim.codecs.table import TableConfig
from verossim.codecs.text import TextConfig
from verossim.config import build, plain
from verossim.shelves import CODECS
from verossim.spaces import Continuous, Records, space_from, space_plain

few = settings(derandomize=True, max_examples=40, deadline=None)


def written(image: Image.Image, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


def picture_set(*sizes: tuple[int, int], mode: str = "RGB") -> Records:
    """Encoded pictures of the sizes (height, width), all different."""
    return Records({"image": [written(Image.new(mode, (width, height), row)) for row, (height, width) in enumerate(sizes)]})


def table() -> Records:
    """A block with a column of every kind, half of them with gaps."""
    days = [datetime.date(2024, 1, 1) + datetime.timedelta(days=3 * i) for i in range(24)]
    return Records({
        "real": pa.array([0.1 * i * i for i in range(24)]),
        "gaps": pa.array([None if i % 5 == 0 else i / 7 for i in range(24)], pa.float32()),
        "count": pa.array([i * i % 11 for i in range(24)], pa.int16()),
        "word": pa.array([None if i % 7 == 3 else "abc"[i % 3] for i in range(24)]),
        "truth": pa.array([i % 4 == 0 for i in range(24)]),
        "day": pa.array(days),
        "moment": pa.array([datetime.datetime(2024, 1, 1, i) for i in range(24)], pa.timestamp("ns", tz="Asia/Tokyo")),
        "kind": pa.array(["low", "high"] * 12).dictionary_encode(),
        "same": pa.array([7] * 24, pa.uint8()),
        "gappy constant": pa.array([None if i % 2 else "x" for i in range(24)]),
        "nothing": pa.nulls(24),
        "key": pa.array([f"k{i:03d}" for i in range(24)]),
    })


EXAMPLES = {
    "image": (ImageConfig(), picture_set((8, 8), (8, 8))),
    "table": (TableConfig(), table()),
    "label": (LabelConfig(), Records({"label": ["b", "a", "b", None]})),
    "text": (TextConfig(context=16), Records({"text": [b"To be,", "or não".encode(), b""]})),
}


# ---- the shelf -----------------------------------------------------------------------------------------------------------


#: Codecs that are made of records alone; "latent" needs an autoencoder besides, and is asked in identities/test_vae_family.py.
PLAIN = [name for name in CODECS.names() if name != "latent"]


@pytest.mark.parametrize("name", PLAIN)
def test_every_codec_keeps_the_contract(name):
    config, records = EXAMPLES[name]
    kind = CODECS.load(name)
    assert issubclass(kind, Codec) and kind.modality == name
    codec = kind(build(kind.Config, plain(config)))
    assert codec.fit(iter([records])) is codec
    parsed = codec.parse(records, problems := [])
    assert not problems and len(parsed) == len(records)
    x = codec.encode(parsed)
    assert x.shape == (len(records), *codec.space.shape)
    assert codec.log_volume(x).shape == (len(records),)
    assert space_from(json.loads(json.dumps(space_plain(codec.space)))) == codec.space
    assert all({"column", "type", "missing", "distinct", "range", "note"} == row.keys() for row in codec.describe())

    again = kind.restore(config, json.loads(json.dumps(codec.state())))
    assert again.space == codec.space
    assert again.notes == codec.notes and again.describe() == codec.describe()
    assert torch.equal(again.encode(again.parse(records, [])).nan_to_num(-9), x.nan_to_num(-9))
    assert list(again.decode(x).rows()).__repr__() == list(codec.decode(x).rows()).__repr__()


@pytest.mark.parametrize("name", PLAIN)
def test_no_records_become_no_points(name):
    config, records = EXAMPLES[name]
    codec = CODECS.load(name)(config).fit([records])
    none = codec.encode(codec.parse(records.take([]), []))
    assert none.shape == (0, *codec.space.shape)
    assert len(codec.decode(none)) == 0


# ---- pictures ------------------------------------------------------------------------------------------------------------


def test_x_is_the_middle_of_its_step_and_comes_back_bit_for_bit():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    codec = Pictures(ImageConfig()).fit([Records({"image": [levels]})])
    x = codec.encode(codec.parse(Records({"image": [levels]}), []))
    assert codec.space == Continuous(shape=(1, 16, 16), axes=("channel", "height", "width"), levels=256)
    assert x.flatten().tolist() == [(level + 0.5) * 2 / 256 - 1 for level in range(256)]
    assert np.array_equal(codec.decode(x).columns["image"][0], levels)
    edge = 1 / 256 * 0.99
    assert np.array_equal(codec.decode(x + edge).columns["image"][0], levels)
    assert np.array_equal(codec.decode(x - edge).columns["image"][0], levels)
    assert codec.decode(x * 100).columns["image"][0].flatten().tolist()[::255] == [0, 255]


@few
@given(some.integers(2, 9), some.integers(2, 9), some.sampled_from([1, 3]), some.integers(0, 2**32 - 1))
def test_files_come_back_bit_for_bit(height, width, channels, seed):
    levels = np.random.default_rng(seed).integers(0, 256, (3, height, width, channels), np.uint8)
    files = Records({"image": [written(Image.fromarray(image.squeeze(2) if channels == 1 else image)) for image in levels]})
    codec = Pictures(ImageConfig()).fit([files])
    parsed = codec.parse(files, [])
    assert codec.space.shape == (channels, height, width)
    assert np.array_equal(np.stack(codec.decode(codec.encode(parsed)).columns["image"]), levels)


@pytest.mark.parametrize(("sizes", "size", "shape"), [
    ([(28, 28)] * 3, "auto", (28, 28)),
    ([(5, 64)] * 3, "auto", (5, 64)),
    ([(90, 90)] * 3, "auto", (64, 64)),
    ([(100, 150)] * 3, "auto", (64, 96)),
    ([(40, 50), (50, 40), (70, 90)], "auto", (32, 32)),
    ([(4, 5), (5, 4), (6, 6)], "auto", (8, 8)),
    ([(300, 500), (600, 400), (900, 800)], "auto", (64, 64)),
    ([(40, 50), (50, 40)], 24, (24, 24)),
    ([(20, 30)] * 2, 10, (10, 15)),
])
def test_the_size_follows_the_stated_rule(sizes, size, shape):
    records = picture_set(*sizes)
    codec = Pictures(ImageConfig(size=size)).fit([records])
    assert codec.space.shape == (3, *shape)
    assert all(image.shape == (*shape, 3) for image in codec.parse(records, []).columns["image"])
    assert str(shape[0]) in codec.describe()[0]["note"]


def test_fit_reads_headers_only():
    whole = written(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)))
    codec = Pictures(ImageConfig()).fit([Records({"image": [whole[:200]]})])
    assert codec.space.shape == (3, 40, 40)


def test_resampling_crops_about_the_centre():
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = 200
    tall = wide.transpose(1, 0, 2)
    codec = Pictures(ImageConfig(size=8)).fit([Records({"image": [wide, tall]})])
    for image in codec.parse(Records({"image": [wide, tall]}), []).columns["image"]:
        assert np.abs(image[1:-1, 1:-1].astype(int) - 200).max() <= 10


def test_transparent_pixels_are_unknown_where_asked_and_filled_in_by_decode():
    levels = np.full((6, 6, 4), 255, np.uint8)
    levels[..., 0] = 10
    levels[2:4, 2:5, 3] = 0
    levels[0, 0, 3] = 1
    whole = np.full((6, 6, 3), 90, np.uint8)
    records = Records({"image": [written(Image.fromarray(levels)), written(Image.fromarray(whole))]})
    codec = Pictures(ImageConfig()).fit([records])
    assert not codec.encode(codec.parse(records, [])).isnan().any()
    parsed = codec.parse(records, [], unknown=True)
    x = codec.encode(parsed, unknown=True)
    holes = torch.zeros(6, 6, dtype=torch.bool)
    holes[2:4, 2:5] = True
    assert torch.equal(x[0].isnan(), holes.expand(3, 6, 6))
    assert not x[1].isnan().any()
    filled = codec.decode(torch.zeros_like(x), known=parsed).columns["image"]
    assert np.array_equal(filled[0][~holes.numpy()], parsed.columns["image"][0][~holes.numpy()])
    assert (filled[0][holes.numpy()] == 128).all()
    assert np.array_equal(filled[1], whole)


def test_nan_pixels_of_an_array_are_unknown_where_asked():
    ramp = np.linspace(0, 1, 36).reshape(6, 6)
    ramp[1, 2] = np.nan
    codec = Pictures(ImageConfig()).fit([Records({"image": [ramp]})])
    x = codec.encode(codec.parse(Records({"image": [ramp]}), [], unknown=True), unknown=True)
    assert x.isnan().nonzero().tolist() == [[0, 0, 1, 2]]
    assert abs(float(x[0, 0, 5, 5]) - (1 - 1 / 256)) < 1e-6


def test_masks_shrink_to_pixels_that_are_wholly_known():
    levels = np.full((16, 16, 4), 255, np.uint8)
    levels[:5, :, 3] = 0
    codec = Pictures(ImageConfig(size=8)).fit([Records({"image": [levels]})])
    known = codec.parse(Records({"image": [levels]}), [], unknown=True).columns["known"][0]
    assert known.any(axis=1).tolist() == [False] * 3 + [True] * 5


# ---- tables --------------------------------------------------------------------------------------------------------------
