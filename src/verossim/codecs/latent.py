"""Latents in place of records: any codec followed by any autoencoder, so that a family may learn what the autoencoder found.

    x = E(codec(records)) / s            records = codec^-1(D(s x))

after Rombach et al., "High-resolution image synthesis with latent diffusion models", arXiv:2112.10752: the autoencoder learns
first and then stands still, and s, the root of the mean square of the latents of the data, brings them to unit scale.

The way there forgets what the decoder D does not bring back: many records share one x. So a density of latents is none of
records, and `log_volume` raises NoLikelihood rather than name a number.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import BadData, Incompatible, NoLikelihood
from ..spaces import Continuous, Problem, Records, Space
from . import Codec

__all__ = ["MEMBER", "Autoencoder", "Latent", "LatentConfig"]


class Autoencoder(Protocol):
    """What learned to go from x (B, *event) of a space to latents z (B, *latent) and back."""

    @property
    def space(self) -> Space:
        """Where its x lies."""

    def encode(self, x: Tensor) -> Tensor:
        """z (B, *latent); NaN entries of x are unknown."""

    def decode(self, z: Tensor) -> Tensor:
        """x (B, *event)."""


@dataclass(frozen=True, kw_only=True)
class LatentConfig:
    """There are no settings: codec and autoencoder have their own."""


class Latent(Codec):
    """Records <-> latents, by a codec that is fitted and an autoencoder that has learned in its space.

    codec, autoencoder : of one space, else Incompatible SPACE. state : what `state` gave; without it `fit` measures the scale.
    """

    Config = LatentConfig
    modality = "latent"

    def __init__(self, codec: Codec, autoencoder: Autoencoder, state: dict[str, Any] | None = None):
        if autoencoder.space != codec.space:
            raise Incompatible("SPACE", f"The autoencoder learned in {autoencoder.space}; the codec gives {codec.space}.",
                               "Take the codec that the autoencoder was fitted with.")
        self.config, self.notes = LatentConfig(), codec.notes
        self.codec, self.autoencoder = codec, autoencoder
        if state is not None:
            self._lay_out(state["scale"], tuple(state["shape"]))

    def fit(self, blocks: Iterable[Records]) -> "Latent":
        """Measures the scale of the latents; codec and autoencoder stay as they are. Raises BadData DATA_EMPTY without records,
        LATENT_FLAT where every record has the same latents, all zero."""
        squares, count, shape = 0.0, 0, tuple[int, ...]()
        for block in blocks:
            z = self._encoded(self.codec.parse(block, []))
            squares, count, shape = squares + float(z.double().square().sum()), count + z.numel(), tuple(z.shape[1:])
        if not count:
            raise BadData("DATA_EMPTY", "There is no record to measure the latents of.", "Give the data of the autoencoder.")
        if not squares:
            raise BadData("LATENT_FLAT", "The autoencoder gives all records the same latents: it has collapsed.",
                          "Fit it for longer, or with more free nats.")
        self._lay_out((squares / count) ** 0.5, shape)
        return self

    def parse(self, records: Records, problems: list[Problem], unknown: bool = False) -> Records:
        """As the codec does."""
        return self.codec.parse(records, problems, unknown)

    def encode(self, records: Records, unknown: bool = False) -> Tensor:
        """Latents (B, *latent) at unit scale. What is unknown of a record the autoencoder guesses from the rest."""
        return self._encoded(records, unknown) / self.scale

    def decode(self, x: Tensor, first: int = 0, known: Records | None = None) -> Records:
        """Records of latents; what `encode` forgot does not come back."""
        with torch.no_grad():
            return self.codec.decode(self.autoencoder.decode(x * self.scale), first, known)

    def log_volume(self, x: Tensor) -> Tensor:
        """Raises NoLikelihood LATENT_DENSITY always: records have no density that follows from that of their latents."""
        raise NoLikelihood("LATENT_DENSITY", "How probable latents are does not say how probable records are: many records "
                           "share the same latents.", "Ask the autoencoder itself, or fit without latents.")

    def state(self) -> dict[str, Any]:
        """Scale and shape of the latents. The codec's state and the autoencoder's weights are kept by who made them."""
        return {"scale": self.scale, "shape": list(self.space.shape)}

    @classmethod
    def restore(cls, config: LatentConfig, state: dict[str, Any]) -> "Latent":
        """Raises Incompatible AUTOENCODER: the state is not enough; `Latent(codec, autoencoder, state)` is the way."""
        raise Incompatible("AUTOENCODER", "A latent codec cannot come back from its state alone.",
                           "Load the autoencoder and its codec, then Latent(codec, autoencoder, state).")

    def describe(self) -> list[dict[str, Any]]:
        """What the codec inferred."""
        return self.codec.describe()

    def _lay_out(self, scale: float, shape: tuple[int, ...]) -> None:
        self.scale = scale
        axes = ("latent",) if len(shape) == 1 else ("channel", *(f"axis {n}" for n in range(1, len(shape))))
        self.space: Continuous = Continuous(shape=shape, axes=axes)

    def _encoded(self, records: Records, unknown: bool = False) -> Tensor:
        with torch.no_grad():
            return self.autoencoder.encode(self.codec.encode(records, unknown))


MEMBER = Latent
