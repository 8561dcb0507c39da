"""One picture: from the bytes of a file, or an array, to 8-bit pixels; or the reason why not.

The bytes decide what a file is, never its name. Only the formats of `FORMATS` are opened, each by its own reader, so no exotic
decoder meets hostile bytes, and the size a header claims is checked before a pixel is allocated. Pillow's global settings are
left as they are.
"""

import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

__all__ = ["FORMATS", "Header", "Look", "Refusal", "header", "pixels", "upright"]

#: The first bytes of the formats that are read, and their readers.
FORMATS = (
    ("PNG", b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    ("JPEG", b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    ("GIF", b"GIF8", GifImagePlugin.GifImageFile),
    ("WebP", b"RIFF", WebPImagePlugin.WebPImageFile),
    ("BMP", b"BM", BmpImagePlugin.BmpImageFile),
    ("TIFF", b"II*\0", TiffImagePlugin.TiffImageFile),
    ("TIFF", b"MM\0*", TiffImagePlugin.TiffImageFile),
    *(("PPM", b"P%d" % digit, PpmImagePlugin.PpmImageFile) for digit in range(1, 7)),
)

#: Formats known by their first bytes that are not read: what they are, and what to do.
REFUSED = (
    (b"SIMPLE", "FITS"), (b"\0\0\0\x0cjP", "JPEG 2000"), (b"\xff\x4f\xff\x51", "JPEG 2000"), (b"8BPS", "Photoshop"),
    (b"\0\0\1\0", "an icon"), (b"icns", "an icon"), (b"DDS ", "a texture"), (b"%!PS", "PostScript"), (b"qoif", "QOI"),
    (b"v/1\x01", "OpenEXR"), (b"#?RADIANCE", "Radiance"), (b"II+\0", "BigTIFF"), (b"MM\0+", "BigTIFF"),
    (b"\xff\x0a", "JPEG XL"),
)

#: Pixel modes that are understood; what each holds is in Pillow's "Concepts" page.
MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "I", "I;16", "I;16B", "I;16L",
         "I;16N", "F"}
GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F"}

#: How the eight values of the EXIF orientation tag are undone (Exif 2.32, tag 0x0112).
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}

#: A picture has at least this many pixels a side, and at most this many times as many along one side as along the other.
SMALLEST, ASPECT = 2, 20


class Refusal(Exception):
    """A picture that cannot be used: a code, what is wrong and the way out."""

    def __init__(self, code: str, message: str, hint: str = ""):
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint


@dataclass(frozen=True)
class Header:
    """What a picture says of itself before it is decoded. height and width as it is to be seen, turned; grey: no colour;
    kind: the format and mode; frames: whether it has several."""

    height: int
    width: int
    grey: bool
    kind: str
    frames: bool


@dataclass(frozen=True)
class Look:
    """How a picture is to come out: height, width, channels (1 or 3); background: the levels (R, G, B) under transparency."""

    height: int
    width: int
    channels: int
    background: tuple[int, int, int]


def header(source: Any, cap: int) -> Header:
    """Size and mode without decoding. source: bytes, an array (H, W[, C]), or a Pillow image. cap: most pixels of a picture.

    Raises Refusal IMG_EMPTY, IMG_UNKNOWN, IMG_FORMAT, IMG_CORRUPT, IMG_TRUNCATED, IMG_TOO_LARGE, IMG_TOO_SMALL or IMG_ASPECT.
    """
    if isinstance(source, np.ndarray):
        H, W, C = _axes(source)
        _check_size(W, H, cap)
        return Header(H, W, C < 3, "array", False)
    image = _open(source, cap)
    # the TIFF reader gives the size as it is to be seen; the PNG reader's own getexif would decode the picture
    turned = image.format not in (None, "TIFF") and _guarded(lambda: Image.Image.getexif(image).get(ORIENTATION, 1)) >= 5
    W, H = reversed(image.size) if turned else image.size
    frames = image.format in ("GIF", "TIFF", "WEBP") and _guarded(lambda: bool(getattr(image, "is_animated", False)))
    return Header(H, W, image.mode in GREY, f"{image.format or 'image'} {image.mode}", frames)


def pixels(source: Any, look: Look, cap: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The picture as `look` wants it: uint8 (H, W, C), and which pixels are known (H, W) bool, or None if all are: a pixel is
    unknown where it is wholly transparent, or not a number. A float picture is taken to lie in [0, 1].

    Raises Refusal as `header` does, and IMG_NONFINITE or IMG_RANGE for the numbers of a float picture.
    """
    if isinstance(source, np.ndarray):
        H, W, _ = _axes(source)
        _check_size(W, H, cap)
        if source.dtype == np.uint8 and source.shape == (look.height, look.width, look.channels):
            return source, None
        source = _image_of(source)
    return _guarded(lambda: _fitted(_loaded(_open(source, cap), look), look))


def upright(source: Any, cap: int, mode: str) -> Image.Image:
    """All of a picture, decoded, turned as its EXIF tag says, in `mode`, of 8 bits a channel. source, cap: as for `header`.

    Raises Refusal as `pixels` does.
    """
    if isinstance(source, np.ndarray):
        H, W, _ = _axes(source)
        _check_size(W, H, cap)
        source = _image_of(source)
    return _guarded(lambda: _eight_bit(_turned(_open(source, cap))).convert(mode))


def _open(source: Any, cap: int) -> Image.Image:
    """A picture whose header has been read and found good, and no more."""
    if isinstance(source, Image.Image):
        _check_size(*source.size, cap)
        return source
    if not isinstance(source, bytes | bytearray | memoryview):
        raise Refusal("IMG_UNKNOWN", f"is {type(source).__name__}, not a picture.", "Give bytes, an array or an image.")
    data = bytes(source)
    if not data:
        raise Refusal("IMG_EMPTY", "is empty (0 bytes).", "Get the file again, or delete it.")
    reader = next((reader for _, start, reader in FORMATS if data.startswith(start)), None)
    if reader is None or (data[:4] == b"RIFF" and data[8:12] != b"WEBP"):
        raise _stranger(data)
    if data[:4] == b"RIFF":
        _check_webp(data, cap)
    try:
        image = reader(io.BytesIO(data))
    except ValueError as error:     # a limit of the reader was met, such as that on text chunks
        raise Refusal("IMG_CORRUPT", f"has a bad header: {error}.", "Save the picture anew.") from error
    except Exception as error:      # a reader that is given hostile bytes may raise anything
        raise Refusal("IMG_UNKNOWN", f"begins as a picture, but its header cannot be read ({len(data):,} bytes).",
                      "It is likely cut off: get the file again.") from error
    _check_size(*image.size, cap)
    if image.mode not in MODES:
        raise Refusal("IMG_FORMAT", f"has the colour mode {image.mode}, which is not read.", "Save it as RGB first.")
    return image


def _check_size(W: int, H: int, cap: int) -> None:
    claimed = W * H
    if claimed > cap:
        raise Refusal("IMG_TOO_LARGE", f"claims {W} x {H} pixels; at most {cap:,} are taken.",
                      "Make the picture smaller, or raise the limit on pixels if you trust the file.")
    if max(W, H) > ASPECT * min(W, H):
        raise Refusal("IMG_ASPECT", f"is {W} x {H} pixels; a side may be {ASPECT} times the other.", "Crop the picture.")
    if min(W, H) < SMALLEST:
        raise Refusal("IMG_TOO_SMALL", f"is {W} x {H} pixels; each side needs at least {SMALLEST}.", "Leave the picture out.")


def _check_webp(data: bytes, cap: int) -> None:
    """The WebP reader allocates its canvas when it opens, so the size is read here first (RFC 9649, sections 2.4 to 2.7)."""
    if len(data) < struct.unpack("<I", data[4:8])[0] + 8:
        raise Refusal("IMG_TRUNCATED", f"is cut off after {len(data):,} bytes.", "Get the file again.")
    kind, body = data[12:16], data[20:30].ljust(10, b"\0")
    if kind == b"VP8X":
        W, H = (1 + int.from_bytes(body[i:i + 3], "little") for i in (4, 7))
    elif kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        W, H = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        W, H = (size & 0x3FFF for size in struct.unpack("<HH", body[6:10]))
    _check_size(W, H, cap)


def _stranger(data: bytes) -> Refusal:
    """The refusal of bytes that no reader takes, with what they look like."""
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in start or (start.startswith(b"<?xml") and b"svg" in start):
        return Refusal("IMG_FORMAT", "is SVG, a drawing and not pixels.", "Render to PNG first.")
    known = next((name for magic, name in REFUSED if data.startswith(magic)), None)
    if data[4:8] == b"ftyp":
        known = {b"avif": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF"}.get(data[8:12])
    if known:
        return Refusal("IMG_FORMAT", f"is {known}, which is not read.", "Save it as PNG or JPEG first.")
    looks = (
        (b"<!doctype html", "HTML, a saved web page"), (b"<html", "HTML, a saved web page"), (b"%pdf", "PDF"),
        (b"<?xml", "XML"), (b"pk\3\4", "a zip archive"), (b"\x1f\x8b", "gzip"), (b"{", "JSON or text"),
    )
    looked = next((what for magic, what in looks if start.startswith(magic)), None)
    if looked is None:
        is_text = all(byte >= 32 or byte in b"\t\r\n" for byte in data[:256]) and len(data) > 1
        looked = "text" if is_text else f"nothing known (first bytes {data[:8].hex(' ')})"
    return Refusal("IMG_UNKNOWN", f"is not a picture; it looks like {looked}.",
                   "Readable are PNG, JPEG, GIF, WebP, BMP, TIFF and PPM; the name does not count.")


def _guarded(work: Any) -> Any:
    """The result of a decoder's work; whatever it raises becomes a Refusal."""
    try:
        return work()
    except Refusal:
        raise
    except (Image.DecompressionBombError, MemoryError) as error:
        raise Refusal("IMG_TOO_LARGE", f"is too large to decode: {error}.", "Make the picture smaller.") from error
    except Exception as error:      # a decoder that is given hostile bytes may raise anything
        if "truncated" in str(error).lower() or isinstance(error, EOFError):
            raise Refusal("IMG_TRUNCATED", f"is cut off: {error}.", "Get the file again.") from error
        raise Refusal("IMG_CORRUPT", f"cannot be decoded: {error}.", "Get the file again, or save it anew.") from error


def _loaded(image: Image.Image, look: Look) -> Image.Image:
    """Decoded and turned; a JPEG of over four times the size wanted is decoded at a half, a quarter or an eighth."""
    if image.format == "JPEG":
        side = 2 * max(look.height, look.width)
        image.draft(None, (side, side))
    return _turned(image)


def _turned(image: Image.Image) -> Image.Image:
    image.load()
    turn = TURNS.get(image.getexif().get(ORIENTATION, 1)) if image.format else None
    return image if turn is None else image.transpose(turn)


def _known(image: Image.Image) -> np.ndarray | None:
    """Where a picture holds something: not wholly transparent."""
    if not _has_alpha(image):
        return None
    known = np.asarray(image.convert("RGBA"))[..., 3] > 0
    return None if known.all() else known


def _has_alpha(image: Image.Image) -> bool:
    named = "transparency" in image.info and image.mode in ("1", "L", "P", "RGB")
    return named or image.mode in ("LA", "La", "PA", "RGBA", "RGBa")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Levels of 16 bits divided by 257, floats in [0, 1] times 255."""
    if image.mode == "F":
        values = np.asarray(image)
        if not np.isfinite(values).all():
            raise Refusal("IMG_NONFINITE", f"has {int((~np.isfinite(values)).sum()):,} pixels that are not finite numbers.",
                          "Fill them in, or make them transparent and complete the picture.")
        top = 1.0
    elif image.mode.startswith("I"):
        values, top = np.asarray(image), 65_535.0
    else:
        return image
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > top:
        raise Refusal("IMG_RANGE", f"has values from {low:g} to {high:g}; they should lie between 0 and {top:g}.",
                      f"Divide by the largest value and save as {'floats' if top == 1 else '16 bits'}.")
    return Image.fromarray(np.rint(values * (255 / top)).astype(np.uint8))


def _flat(image: Image.Image, look: Look) -> Image.Image:
    """Opaque, in the mode wanted: transparency lies on the background colour."""
    mode = "L" if look.channels == 1 else "RGB"
    if _has_alpha(image):
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (*look.background, 255))
        image = Image.alpha_composite(ground, image)
    return image.convert(mode)


def _fitted(image: Image.Image, look: Look) -> tuple[np.ndarray, np.ndarray | None]:
    """Cropped about the centre to the wanted shape and resampled; a pixel is known if all of its area is."""
    known, size = _known(image), (look.width, look.height)
    image = _flat(_eight_bit(image), look)
    if image.size != size:
        image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
        if known is not None:
            cover = ImageOps.fit(Image.fromarray(known.astype(np.uint8) * 255), size, Image.Resampling.BOX)
            known = np.asarray(cover) == 255
    return np.array(image).reshape(look.height, look.width, look.channels), known


def _axes(array: np.ndarray) -> tuple[int, int, int]:
    """Height, width and channels of an array (H, W[, C])."""
    shape = array.shape if array.ndim == 3 else (*array.shape, 1)
    if len(shape) != 3 or not 1 <= shape[2] <= 4:
        raise Refusal("IMG_FORMAT", f"is an array of shape {array.shape}.", "Give (height, width[, 1 to 4 channels]).")
    if array.dtype.kind not in "buif":
        raise Refusal("IMG_FORMAT", f"is an array of {array.dtype}.", "Give 8 or 16 bits a channel, or floats in [0, 1].")
    return shape


def _image_of(array: np.ndarray) -> Image.Image:
    """An array (H, W[, 1 to 4]) as a Pillow image of 8 bits; NaN is wholly transparent."""
    H, W, C = _axes(array)
    array = array.reshape(H, W, C)
    holes = np.isnan(array).any(axis=2) if array.dtype.kind == "f" else np.zeros((H, W), bool)
    if array.dtype != np.uint8:
        grey = [_eight_bit(Image.fromarray(_wide(np.where(holes, 0, array[..., c])))) for c in range(C)]
        array = np.stack([np.asarray(channel) for channel in grey], axis=2)
    if holes.any():
        alpha = np.where(holes, 0, 255).astype(np.uint8)[..., None]
        array = np.concatenate([array[..., :C - (C in (2, 4))], alpha], axis=2)
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[array.shape[2]]
    return Image.frombytes(mode, (W, H), np.ascontiguousarray(array).tobytes())


def _wide(channel: np.ndarray) -> np.ndarray:
    """One channel in a type that Pillow keeps: float32, or int32 of 16-bit levels."""
    if channel.dtype.kind == "f":
        return channel.astype(np.float32)
    return (channel * 65_535 if channel.dtype.kind == "b" else channel).astype(np.int32)
