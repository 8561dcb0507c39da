"""Pictures: files, arrays or Pillow images become x in [-1, 1], and come back bit for bit.

A level of 8 bits stands for one of 256 equal steps over [-1, 1], and x is the middle of its step,

    x = (level + 1/2) 2/256 - 1        level = (x + 1) 128 - 1/2,

both exact in float32. Densities over x are turned into masses by the step's width, so nothing is lost or added.

The size is settled by this rule. If all pictures are of one size, of at most 64 x 64, that is the size. Else the shorter side
is the median of the pictures' shorter sides, rounded down to a power of two from 8 to 64, or what the user set; the shape is
square, or that of the pictures if all have one. Pictures are turned as their EXIF tag says, cropped about the centre and
resampled (Lanczos). They are grey if all are, else all are given three channels.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import ImageColor
from torch import Tensor

from ...config import knob
from ...errors import BadConfig, BadData, printable
from ...spaces import Continuous, Problem, Records
from .. import Codec
from .picture import Look, Refusal, pixels
from .survey import Survey

__all__ = ["MEMBER", "ImageConfig", "Pictures"]

LEVELS = 256


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """Settings of the image codec."""

    size: int | str = knob("auto", "pixels of the shorter side; auto: by rule", low=2, high=4096, choices=("auto",))
    channels: int | str = knob("auto", "1 for grey, 3 for colour; auto: grey if all are", low=1, high=3, choices=("auto",))
    background: str = knob("white", "colour under transparent pixels: a name, or #rrggbb")
    pixels: int = knob(64_000_000, "most pixels a picture may have; larger ones are passed over unread", low=4, high=1 << 31)


class Pictures(Codec):
    """Records with the column "image" <-> x (B, C, H, W) float32 on a grid of 256 levels. `notes` holds what `fit` found worth
    saying, each with a stable code."""

    Config = ImageConfig
    modality = "image"

    def __init__(self, config: ImageConfig):
        self.config = config
        self.background = _colour(config.background)
        if config.channels not in ("auto", 1, 3):
            raise BadConfig("SETTING_RANGE", f"channels is {config.channels}.", "It should be 1 (grey), 3 (colour) or auto.")
        self.notes: list[str] = []
        self.rule = ""

    def fit(self, blocks: Iterable[Records]) -> "Pictures":
        """Reads headers only. Raises BadData DATA_EMPTY where no picture can be read."""
        survey = Survey(self.config.pixels)
        for block in blocks:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")     # Pillow warns of odd metadata, which is of no use here
                survey.add(block)
        if not survey.count:
            raise BadData("DATA_EMPTY", f"None of the {survey.refused} pictures can be read; the first: {survey.example}",
                          "Readable are PNG, JPEG, GIF, WebP, BMP, TIFF and PPM.")
        H, W, self.rule = survey.size(self.config.size)
        C = (1 if survey.grey == survey.count else 3) if self.config.channels == "auto" else int(self.config.channels)
        self._lay_out(C, H, W)
        self.notes = survey.notes(C)
        return self

    def _lay_out(self, C: int, H: int, W: int) -> None:
        self.look = Look(H, W, C, self.background)
        self.space = Continuous(shape=(C, H, W), axes=("channel", "height", "width"), levels=LEVELS)

    def parse(self, records: Records, problems: list[Problem], unknown: bool = False) -> Records:
        """Pictures decoded to uint8 (H, W, C) at the settled size; the unusable are left out and named in `problems`.

        With `unknown` a column "known" is added, a mask (H, W) bool or None for each record: False where a pixel is wholly
        transparent or NaN. Without it, transparency lies on the background and NaN is refused.
        """
        rows, images, masks = [], [], []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")         # as above
            for row, source in enumerate(records.columns["image"]):
                try:
                    image, known = self._picture(source, unknown)
                except Refusal as refusal:
                    where = records.where(row)
                    problems.append(Problem(refusal.code, where, f"{printable(where)} {refusal.message}", refusal.hint))
                    continue
                rows.append(row)
                images.append(image)
                masks.append(known)
        kept = records if len(rows) == len(records) else records.take(rows)
        return kept.with_columns(image=images, **{"known": masks} if unknown else {})

    def _picture(self, source: Any, unknown: bool) -> tuple[np.ndarray, np.ndarray | None]:
        if not unknown and isinstance(source, np.ndarray) and source.dtype.kind == "f" and np.isnan(source).any():
            raise Refusal("IMG_NONFINITE", f"has {int(np.isnan(source).sum()):,} values that are not numbers.",
                          "Fill them in, or complete the picture.")
        return pixels(source, self.look, self.config.pixels)

    def encode(self, records: Records, unknown: bool = False) -> Tensor:
        """x (B, C, H, W) of parsed pictures; where the column "known" is False, x is NaN."""
        if not len(records):
            return torch.zeros(0, *self.space.shape)
        levels = torch.from_numpy(np.stack(records.columns["image"])).permute(0, 3, 1, 2)
        x = (levels.to(torch.float32) + 0.5) * (2 / LEVELS) - 1
        for row, known in enumerate(records.columns.get("known", ())):
            if known is not None:
                x[row, :, torch.from_numpy(~known)] = torch.nan
        return x.contiguous()

    def decode(self, x: Tensor, first: int = 0, known: Records | None = None) -> Records:
        """Pictures uint8 (H, W, C) of x (B, C, H, W): the nearest level; pixels that are NaN become level 0. With `known`,
        parsed pictures, the pixels that are known there stand."""
        levels = ((x.detach().cpu() + 1) * (LEVELS / 2) - 0.5).round().clamp(0, LEVELS - 1).nan_to_num(0)
        images = list(levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy())
        if known is not None:
            masks = known.columns.get("known", [None] * len(known))
            images = [old if mask is None else np.where(mask[..., None], old, new)
                      for old, new, mask in zip(known.columns["image"], images, masks, strict=True)]
        return Records({"image": images}, "decoded", first)

    def log_volume(self, x: Tensor) -> Tensor:
        """Zero, (B,) float64: levels are masses."""
        return torch.zeros(len(x), dtype=torch.float64)

    def state(self) -> dict[str, Any]:
        """Shape (C, H, W), the rule that gave it, and the notes."""
        return {"shape": list(self.space.shape), "rule": self.rule, "notes": self.notes}

    @classmethod
    def restore(cls, config: ImageConfig, state: dict[str, Any]) -> "Pictures":
        """The codec that `state` was taken from."""
        codec = cls(config)
        codec._lay_out(*state["shape"])
        codec.rule, codec.notes = state["rule"], list(state["notes"])
        return codec

    def describe(self) -> list[dict[str, Any]]:
        """One row: the size, the channels and the rule that gave them."""
        C, H, W = self.space.shape
        kind, size = ("grey picture" if C == 1 else "colour picture"), f"{H} x {W} pixels, 256 levels"
        return [{"column": "image", "type": kind, "missing": 0, "distinct": None, "range": size,
                 "note": "; ".join([self.rule, *self.notes])}]


def _colour(text: str) -> tuple[int, int, int]:
    """Red, green and blue of a colour's name or code. Raises BadConfig SETTING_RANGE."""
    try:
        return ImageColor.getrgb(text)[:3]
    except ValueError as error:
        raise BadConfig("SETTING_RANGE", f"background: '{printable(text)}' is not a colour.",
                        "Give a name such as white, or a code such as #00ff7f.") from error


MEMBER = Pictures
