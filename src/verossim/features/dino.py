"""Pictures as DINOv2 sees them, a vision transformer that learned from pictures alone, without classes.

    h_0 = [c; P patches] + places
    h  <- h + g_1 O softmax(Q K' / sqrt(d)) V norm(h),    h <- h + g_2 W_2 gelu(W_1 norm(h))      for each layer
    x   = norm(h)_0

Oquab et al., "DINOv2", arXiv:2304.07193; Dosovitskiy et al., arXiv:2010.11929. Stein et al. (arXiv:2306.04675) found that
distances in these features follow people's judgement of pictures better than those in Inception's. The weights come with no
package: give the folder of a model as Hugging Face has it (facebook/dinov2-small and larger, not giant), with config.json and
model.safetensors.

The Inception of FID is not read: its official file is TorchScript, an archive of code, and running code from files is what this
library does not do. So no number of this library is called FID.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..config import knob
from ..errors import BadConfig, CorruptStore, printable
from ..spaces import Records
from . import Features, blocks, hash_of, modality_of
from ._encoder import Encoder
from ._weights import json_of, placed, setting, tensors
from .mobilenet import seen
from .pixels import rule

__all__ = ["MEMBER", "Dino", "DinoConfig"]

HINT = ("Give weights=FOLDER. On a machine with a network: huggingface-cli download facebook/dinov2-small config.json "
        "model.safetensors, then carry the folder here. Without weights: the features mobilenet, classifier or principal.")
BATCH = 16


@dataclass(frozen=True, kw_only=True)
class DinoConfig:
    """Settings of DINOv2."""

    weights: str = knob("", "the folder of the model, with config.json and model.safetensors")
    size: int = knob(224, "pixels of each side that pictures are brought to; a multiple of the patch, 14", low=14, high=1036)


class Dino(Features):
    """The first token of the last layer, (N, D) float64; D is 384 for the small model."""

    Config = DinoConfig
    modalities = ("image",)

    def fit(self, records: Records, labels: np.ndarray | None = None, seed: int = 0) -> "Dino":
        """Reads the weights; the reference settles nothing.

        Raises Incompatible FEATURES_MODALITY or FEATURES_NETWORK, MissingExtra EXTRA, BadConfig SETTING_RANGE, CorruptStore
        CKPT_MISSING, CKPT_FORMAT or CKPT_SHAPE, Refused PICKLE_REFUSED.
        """
        modality_of(records, self.modalities, "dino")
        self.network = _Transformer(placed(self.config.weights, "", "", "dino", HINT), self.config.size)
        self.resize = rule(self.config.size, self.config.size, 3)
        return self

    def __call__(self, records: Records) -> np.ndarray:
        """(N, D) float64."""
        modality_of(records, self.modalities, "dino")
        with torch.no_grad():
            return np.concatenate([self.network(seen(block, self.config.size)).double().numpy()
                                   for block in blocks(records, BATCH)])

    @property
    def hash(self) -> str:
        """Of the file of weights, its settings, and the size."""
        return hash_of("dino", self.network.weights.hash, self.network.told, self.network.epsilon, self.config.size)


class _Transformer:
    """The network, from a folder."""

    def __init__(self, place: Path, size: int):
        plain = json_of(place / "config.json")
        for name, wanted in (("model_type", "dinov2"), ("hidden_act", "gelu"), ("use_swiglu_ffn", False), ("num_channels", 3),
                             ("qkv_bias", True)):
            setting(plain, name, wanted, place / "config.json")
        self.told = tuple(_whole(plain, name, usual, place) for name, usual in (
            ("num_hidden_layers", 12), ("num_attention_heads", None), ("hidden_size", None), ("mlp_ratio", 4),
            ("patch_size", 14)))
        self.layers, self.heads, self.width, ratio, self.patch = self.told
        self.inner = ratio * self.width
        self.epsilon = float(plain.get("layer_norm_eps", 1e-6))
        if size % self.patch:
            raise BadConfig("SETTING_RANGE", f"'size' is {size}, and the network sees patches of {self.patch} pixels.",
                            f"Give a multiple of {self.patch}, such as {16 * self.patch}.")
        self.weights = tensors(place / "model.safetensors")
        start = "dinov2." if "dinov2.embeddings.cls_token" in self.weights else ""
        self.encoder = Encoder(self.weights, start, self.width, self.heads, self.epsilon)
        self.places = self._places(size // self.patch)

    def _places(self, side: int) -> Tensor:
        """Embeddings of places, of the first token and of side x side patches, (1, 1 + side^2, D)."""
        learned = self.encoder.take("embeddings.position_embeddings", 1, -1, self.width)
        first, patches = learned[:, :1], learned[:, 1:]
        own = round(patches.shape[1] ** 0.5)
        if own == side:
            return learned
        grid = patches.unflatten(1, (own, own)).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, (side, side), mode="bicubic", align_corners=False)
        return torch.cat([first, grid.flatten(2).transpose(1, 2)], dim=1)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, 3, size, size) to (B, D)."""
        D, p = self.width, self.patch
        place = "embeddings.patch_embeddings.projection"
        h = F.conv2d(x, self.encoder.take(f"{place}.weight", D, 3, p, p), self.encoder.take(f"{place}.bias", D), stride=p)
        h = h.flatten(2).transpose(1, 2)
        h = torch.cat([self.encoder.take("embeddings.cls_token", 1, 1, D).expand(len(h), -1, -1), h], dim=1) + self.places
        for layer in range(self.layers):
            h = self._layer(f"encoder.layer.{layer}", h)
        return self.encoder.norm("layernorm", h[:, 0])

    def _layer(self, place: str, h: Tensor) -> Tensor:
        D, own = self.width, self.encoder
        mixed = own.attended(f"{place}.attention.attention", own.norm(f"{place}.norm1", h))
        mixed = own.linear(f"{place}.attention.output.dense", mixed, D, D)
        h = h + own.take(f"{place}.layer_scale1.lambda1", D) * mixed
        wide = F.gelu(own.linear(f"{place}.mlp.fc1", own.norm(f"{place}.norm2", h), D, self.inner))
        return h + own.take(f"{place}.layer_scale2.lambda1", D) * own.linear(f"{place}.mlp.fc2", wide, self.inner, D)


def _whole(plain: dict, name: str, usual: int | None, place: Path) -> int:
    value = plain.get(name, usual)
    if not isinstance(value, int):
        raise CorruptStore("CKPT_FORMAT", f"{printable(place)}/config.json: '{name}' should be a whole number.",
                           "Give the folder of a DINOv2.")
    return value


MEMBER = Dino
