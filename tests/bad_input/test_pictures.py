"""Pictures as they come: every broken one is named with its code and passed over, every odd but sound one is read right."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from verossim.codecs.image import ImageConfig, Pictures
from verossim.codecs.image.picture import Refusal, header
from verossim.errors import BadConfig, BadData
from verossim.spaces import Problem, Records

SIZE = 8


def written(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_claiming(width: int, height: int, extra: bytes = b"", pixels: bytes = b"\0" * 16) -> bytes:
    """A PNG of a few bytes whose header claims any size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b""))


def noise(height: int = 64, width: int = 64, channels: int = 3) -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(levels.squeeze())


def reader(**settings) -> Pictures:
    """A codec of SIZE x SIZE pictures in colour, unless set otherwise."""
    plain = written(Image.new("RGB", (SIZE, SIZE), "red"))
    return Pictures(ImageConfig(**{"channels": 3, **settings})).fit([Records({"image": [plain]})])


def problem_of(source: object, **settings) -> Problem:
    problems: list[Problem] = []
    parsed = reader(**settings).parse(Records({"image": [source]}, names=["odd\nname.jpg"]), problems)
    assert len(parsed) == 0
    assert len(problems) == 1
    return problems[0]


def read(source: object, **settings) -> np.ndarray:
    problems: list[Problem] = []
    parsed = reader(**settings).parse(Records({"image": [source]}), problems)
    assert not problems, problems
    return parsed.columns["image"][0]


JPEG = written(noise(), "JPEG")
PNG = written(noise())
WEBP = written(noise(), "WEBP", lossless=True)
BROKEN_PNG = PNG[:300] + b"\0" * 200 + PNG[500:]
NAN_TIFF = written(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF")
TEXT_BOMB = png_claiming(8, 8, chunk(b"zTXt", b"comment\0\0" + zlib.compress(b"a" * 2_000_000)))
WEBP_BOMB = b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + b"\xff\x3f\0" * 2


@pytest.mark.parametrize(("source", "code", "words"), [
    (b"", "IMG_EMPTY", "0 bytes"),
    (None, "IMG_UNKNOWN", "NoneType"),
    (b"\xff", "IMG_UNKNOWN", "nothing known"),
    (b"<!DOCTYPE html><html><body>404</body></html>", "IMG_UNKNOWN", "HTML"),
    (b"%PDF-1.7 and more", "IMG_UNKNOWN", "PDF"),
    (b"PK\3\4 and more", "IMG_UNKNOWN", "zip"),
    (b"just some words", "IMG_UNKNOWN", "text"),
    (JPEG[: len(JPEG) // 2], "IMG_TRUNCATED", "cut off"),
    (JPEG[:24], "IMG_UNKNOWN", "header"),
    (PNG[: len(PNG) // 2], "IMG_TRUNCATED", "cut off"),
    (WEBP[: len(WEBP) // 2], "IMG_TRUNCATED", "cut off"),
    (written(noise(), "GIF")[:800], "IMG_TRUNCATED", "cut off"),
    (written(noise(), "BMP")[:800], "IMG_TRUNCATED", "cut off"),
    (BROKEN_PNG, "IMG_CORRUPT", "decoded"),
    (png_claiming(14_000, 14_000), "IMG_TOO_LARGE", "14000 x 14000"),
    (png_claiming(10_000, 10_000), "IMG_TOO_LARGE", "64,000,000"),
    (png_claiming(2**31 - 1, 2**31 - 1), "IMG_TOO_LARGE", "2147483647"),
    (WEBP_BOMB, "IMG_TOO_LARGE", "16384 x 16384"),
    (png_claiming(0, 5), "IMG_UNKNOWN", "header"),
    (TEXT_BOMB, "IMG_CORRUPT", "too large"),
    (b"SIMPLE  =                    T", "IMG_FORMAT", "FITS"),
    (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "IMG_FORMAT", "SVG"),
    (written(noise(), "ICO"), "IMG_FORMAT", "icon"),
    (written(Image.new("LAB", (8, 8)), "TIFF"), "IMG_FORMAT", "LAB"),
    (NAN_TIFF, "IMG_NONFINITE", "64 pixels"),
    (written(Image.fromarray(np.full((8, 8), 7.5, np.float32)), "TIFF"), "IMG_RANGE", "7.5"),
    (written(Image.fromarray(np.full((8, 8), 70_000, np.int32)), "TIFF"), "IMG_RANGE", "70000"),
    (np.full((8, 8), np.nan), "IMG_NONFINITE", "64 values"),
    (written(Image.new("RGB", (1, 1))), "IMG_TOO_SMALL", "1 x 1"),
    (written(Image.new("RGB", (10_000, 1))), "IMG_ASPECT", "10000 x 1"),
    (np.zeros((4, 8, 8, 3), np.uint8), "IMG_FORMAT", "(4, 8, 8, 3)"),
    (np.zeros((8, 8), complex), "IMG_FORMAT", "complex"),
])
def test_a_picture_that_cannot_be_used_is_named_with_its_code(source, code, words):
    problem = problem_of(source)
    assert problem.code == code
    assert words in problem.message
    assert "odd\\nname.jpg" in problem.message and "\n" not in problem.message
    assert problem.hint


def test_svg_and_web_pages_get_the_way_out():
    assert "PNG" in problem_of(b"<svg xmlns='http://www.w3.org/2000/svg'></svg>").hint
    assert "name does not count" in problem_of(b"<html></html>").hint


@pytest.mark.parametrize("bomb", [png_claiming(14_000, 14_000), png_claiming(2**31 - 1, 2**31 - 1), WEBP_BOMB])
def test_a_bomb_is_refused_before_a_pixel_is_allocated(bomb):
    tracemalloc.start()
    with pytest.raises(Refusal, match="claims"):
        header(bomb, 64_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_the_cap_on_pixels_is_the_users_and_not_pillows(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert problem_of(PNG, pixels=1000).code == "IMG_TOO_LARGE"
    assert read(PNG).shape == (SIZE, SIZE, 3)
    assert Image.MAX_IMAGE_PIXELS == 100
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_sixteen_bit_grey_keeps_its_mean():
    levels = np.linspace(0, 65_535, SIZE * SIZE).reshape(SIZE, SIZE).astype(np.uint16)
    for kind in ("PNG", "TIFF", "PPM"):
        image = read(written(Image.fromarray(levels), kind), channels=1)
        assert abs(image.mean() / 255 - levels.mean() / 65_535) < 1 / 255
        assert image.min() == 0 and image.max() == 255
    assert np.array_equal(read(levels, channels=1), image)


def test_float_pictures_between_0_and_1_are_read():
    ramp = np.linspace(0, 1, SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)
    image = read(written(Image.fromarray(ramp), "TIFF"), channels=1)
    assert np.abs(image[..., 0] / 255 - ramp).max() <= 0.5 / 255 + 1e-6
    assert np.array_equal(read(ramp.astype(np.float64), channels=1), image)


@pytest.mark.parametrize(("image", "kind", "options", "colour"), [
    (Image.new("CMYK", (SIZE, SIZE), (0, 255, 255, 0)), "JPEG", {}, (255, 0, 0)),
    (Image.new("1", (SIZE, SIZE), 1), "PNG", {}, (255, 255, 255)),
    (Image.new("LA", (SIZE, SIZE), (0, 0)), "PNG", {}, (0, 0, 255)),
    (Image.new("RGBA", (SIZE, SIZE), (255, 0, 0, 0)), "PNG", {}, (0, 0, 255)),
    (Image.new("RGBA", (SIZE, SIZE), (255, 0, 0, 0)), "WEBP", {"lossless": True}, (0, 0, 255)),
    (Image.new("RGB", (SIZE, SIZE), "red").quantize(4), "PNG", {"transparency": 0}, (0, 0, 255)),
    (Image.new("RGB", (SIZE, SIZE), "red").quantize(4), "PNG", {"transparency": b"\0"}, (0, 0, 255)),
    (Image.new("RGB", (SIZE, SIZE), "red").quantize(4), "GIF", {"transparency": 0}, (0, 0, 255)),
    (Image.new("RGB", (SIZE, SIZE), "red").quantize(4), "PNG", {}, (255, 0, 0)),
    (Image.new("L", (SIZE, SIZE), 9), "PNG", {"transparency": 9}, (0, 0, 255)),
    (Image.new("RGB", (SIZE, SIZE), (255, 0, 0)), "PPM", {}, (255, 0, 0)),
    (Image.new("RGB", (SIZE, SIZE), (255, 0, 0)), "BMP", {}, (255, 0, 0)),
])
def test_odd_modes_come_out_in_the_right_colour(image, kind, options, colour):
    pixels = read(written(image, kind, **options), background="blue")
    assert np.abs(pixels.astype(int) - np.array(colour)).max() <= 3


def test_half_transparent_pixels_are_mixed_with_the_background():
    pixels = read(written(Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 128))), background="#ffffff")
    assert np.abs(pixels.astype(int) - 127).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_the_eight_turns_give_one_picture(kind):
    upright = noise(SIZE, 2 * SIZE).resize((16, 8), Image.Resampling.NEAREST).convert("L").convert("RGB")
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE",
             8: "ROTATE_270"}
    files = []
    for orientation in range(1, 9):
        turned = upright.transpose(Image.Transpose[turns[orientation]]) if orientation in turns else upright
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
        files.append(written(turned, kind, exif=exif, **options))
    codec = Pictures(ImageConfig()).fit([Records({"image": files})])
    assert codec.space.shape == (3, 8, 16)
    images = codec.parse(Records({"image": files}), []).columns["image"]
    tolerance = 4 if kind == "JPEG" else 0
    assert all(np.abs(image.astype(int) - np.asarray(upright).astype(int)).max() <= tolerance for image in images)


def test_broken_exif_is_passed_over():
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01garbage"
    assert read(written(Image.new("RGB", (SIZE, SIZE), "red"), "JPEG", exif=exif)).shape == (SIZE, SIZE, 3)


def test_the_first_frame_of_an_animation_is_used_and_said():
    frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "TIFF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = written(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        codec = Pictures(ImageConfig()).fit([Records({"image": [data]})])
        pixel = codec.parse(Records({"image": [data]}), []).columns["image"][0][0, 0]
        assert pixel.tolist() == [255, 0, 0]
        assert any(note.startswith("IMG_FRAMES") for note in codec.notes)


def test_mixed_channels_are_promoted_and_said_once():
    grey, colour = written(Image.new("L", (SIZE, SIZE), 7)), written(Image.new("RGB", (SIZE, SIZE), "red"))
    codec = Pictures(ImageConfig()).fit([Records({"image": [grey, colour]}), Records({"image": [grey, colour]})])
    assert codec.space.shape == (3, SIZE, SIZE)
    assert [note for note in codec.notes if note.startswith("IMG_CHANNELS")] == [
        "IMG_CHANNELS: 2 of 4 pictures are grey and are given three channels"]
    assert codec.parse(Records({"image": [grey]}), []).columns["image"][0].tolist() == [[[7, 7, 7]] * SIZE] * SIZE


def test_pictures_that_are_all_the_same_are_said_to_be():
    same = written(Image.new("L", (SIZE, SIZE), 7))
    assert any(note.startswith("DATA_CONSTANT") for note in Pictures(ImageConfig()).fit([Records({"image": [same] * 5})]).notes)
    other = written(Image.new("L", (SIZE, SIZE), 8))
    assert not Pictures(ImageConfig()).fit([Records({"image": [same] * 5 + [other]})]).notes


def test_a_set_without_one_good_picture_says_what_was_wrong():
    with pytest.raises(BadData, match="0 bytes") as error:
        Pictures(ImageConfig()).fit([Records({"image": [b"", b"x"]})])
    assert error.value.code == "DATA_EMPTY"


@pytest.mark.parametrize("settings", [{"background": "no such colour"}, {"channels": 2}])
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(BadConfig) as error:
        Pictures(ImageConfig(**settings))
    assert error.value.code == "SETTING_RANGE"
