"""Pictures as they are: every pixel a feature, after all came to one size.

The size is the commonest of the reference, shrunk to `size` on its longer side. Pictures are resampled by the bilinear kernel
widened to the step, in floats, because a resampler that skips pixels changes measures more than models do (Parmar, Zhang and
Zhu, "On aliased resizing", arXiv:2104.11222).
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..config import knob
from ..errors import BadData
from ..spaces import Records
from . import Features, blocks, hash_of, modality_of

__all__ = ["MEMBER", "Pixels", "PixelsConfig", "resized", "rule"]

GREY = np.array([0.299, 0.587, 0.114])  # luma of red, green and blue (Recommendation ITU-R BT.601)
BLOCK = 4096  # pictures at a time


@dataclass(frozen=True, kw_only=True)
class PixelsConfig:
    """Settings of pixels."""

    size: int = knob(32, "most pixels of the longer side", low=1, high=512)


class Pixels(Features):
    """x = pixels / 255, (N, H W C) float64: rows, then columns, then channels. C is 1 where all of the reference is grey."""

    Config = PixelsConfig
    modalities = ("image",)
    shape: tuple[int, int, int]  #: (H, W, C), known after fit

    def fit(self, records: Records, labels: np.ndarray | None = None, seed: int = 0) -> "Pixels":
        """Settles size and channels. Raises Incompatible FEATURES_MODALITY, BadData DATA_EMPTY or IMG_FORMAT."""
        modality_of(records, self.modalities, "pixels")
        pictures = [_checked(picture, records, row) for row, picture in enumerate(records.columns["image"])]
        sizes = Counter(picture.shape[:2] for picture in pictures)
        H, W = min(sizes, key=lambda size: (-sizes[size], size[0] * size[1], size))
        shrink = min(1.0, self.config.size / max(H, W))
        C = 1 if all(picture.shape[2] == 1 for picture in pictures) else 3
        self.shape = (max(1, round(H * shrink)), max(1, round(W * shrink)), C)
        self.resize = rule(*self.shape)
        return self

    def __call__(self, records: Records) -> np.ndarray:
        """(N, H W C) float64 in [0, 1]."""
        modality_of(records, self.modalities, "pixels")
        out = np.empty((len(records), int(np.prod(self.shape))))
        for first, block in zip(range(0, len(records), BLOCK), blocks(records, BLOCK), strict=True):
            pictures = [_checked(picture, block, row) for row, picture in enumerate(block.columns["image"])]
            if all(picture.shape == self.shape for picture in pictures):
                out[first:first + BLOCK] = np.stack(pictures).reshape(len(pictures), -1)
                out[first:first + BLOCK] /= 255
                continue
            for row, picture in enumerate(pictures, start=first):
                out[row] = resized(picture, *self.shape).ravel()
        return out

    @property
    def hash(self) -> str:
        """Of the shape that pictures come to."""
        return hash_of("pixels", self.shape)


def resized(picture: np.ndarray, height: int, width: int, channels: int) -> np.ndarray:
    """A picture, uint8 (H, W, 1, 3 or 4), as float64 (height, width, channels) in [0, 1]; transparency lies on white."""
    x = picture / 255.0
    if x.shape[2] == 4:
        alpha = x[:, :, 3:]
        x = x[:, :, :3] * alpha + (1 - alpha)
    if x.shape[2] == 3 and channels == 1:
        x = (x @ GREY)[:, :, None]
    if x.shape[:2] != (height, width):
        planes = (Image.fromarray(np.ascontiguousarray(x[:, :, c], np.float32)) for c in range(x.shape[2]))
        x = np.stack([np.asarray(p.resize((width, height), Image.Resampling.BILINEAR), np.float64) for p in planes], axis=2)
    return np.broadcast_to(x, (height, width, channels))


def rule(height: int, width: int, channels: int) -> str:
    """The rule of `resized` in words, for the protocol."""
    return (f"{width} x {height} pixels {'grey' if channels == 1 else 'RGB'}, stretched by Pillow's bilinear resampling in "
            "floats, transparency on white")


def _checked(picture: np.ndarray, records: Records, row: int) -> np.ndarray:
    array = isinstance(picture, np.ndarray)
    if not array or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (1, 3, 4):
        what = f"{picture.dtype} {picture.shape}" if array else type(picture).__name__
        raise BadData("IMG_FORMAT", f"{records.where(row)}: a picture is {what}; features read uint8 (H, W, 1, 3 or 4).",
                      "Open the pictures through verossim.open, or give arrays of 8 bits a channel.")
    return picture


MEMBER = Pixels
