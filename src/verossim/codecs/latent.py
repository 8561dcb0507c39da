"""Latents in place of records: any codec followed by any autoencoder, so that a family may learn what the autoencoder found.

    x = E(codec(records)) / s            records = codec^-1(D(s x))

after Rombach et al., "High-resolution image synthesis with latent diffusion models", arXiv:2112.10752: the autoencoder learns
first and then stands still, and s, the root of the mean square of the latents of the data, brings them to unit scale.

The way there forgets what the decoder D does not bring back: many records share one x. So a density of latents is none of
records, and `log_volume` is NaN. (A bound would be E_q(z|x) [log p(x | z) - log q(z | x) + log p(z)], of latents drawn of q;
but what is learned here are their means, among which draws, wide where the encoder knows little, have no place.)

Latents of one level over axes keep them, so that a network over axes may learn them; others are laid out as a vector.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..config import plain
from ..errors import BadData, Incompatible
from ..sealed import packed, sha256, to_json
from ..spaces import Continuous, Problem, Records, Space
from . import Codec

__all__ = ["MEMBER", "Autoencoder", "Latent", "LatentConfig"]


class Autoencoder(Protocol):
    """What learned to go from x (B, *event) of a space to latents z (B, Z) and back."""

    @property
    def space(self) -> Space:
        """Where its x lies."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape that the Z numbers of a latent have, laid out; () of what has no latents to be learned."""

    def encode(self, x: Tensor) -> Tensor:
        """z (B, Z); NaN entries of x are unknown."""

    def decode(self, z: Tensor) -> Tensor:
        """x (B, *event)."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """All that it learned, by name."""


ROWS = 256  # records that go through the autoencoder at a time


@dataclass(frozen=True, kw_only=True)
class LatentConfig:
    """There are no settings: codec and autoencoder have their own."""


class Latent(Codec):
    """Records <-> latents, by a codec that is fitted and an autoencoder that has learned in its space.

    codec, autoencoder : of one space, else Incompatible SPACE. state : what `state` gave; without it `fit` measures the scale.
    Raises Incompatible AUTOENCODER for a model without latents. `config` and `modality` are those of the codec inside.
    """

    Config = LatentConfig
    lossy = True

    def __init__(self, codec: Codec, autoencoder: Autoencoder, state: dict[str, Any] | None = None):
        if autoencoder.space != codec.space:
            raise Incompatible("SPACE", f"The autoencoder learned in {autoencoder.space}; the codec gives {codec.space}.",
                               "Take the codec that the autoencoder was fitted with.")
        if not autoencoder.latent_shape:
            raise Incompatible("AUTOENCODER", f"{type(autoencoder).__name__} has no latents that could be learned in place of "
                               "records.", "Take a model of family vae.")
        self.config, self.notes, self.modality = codec.config, codec.notes, codec.modality
        self.codec, self.autoencoder = codec, autoencoder
        shape = autoencoder.latent_shape
        axes = ("latent",) if len(shape) == 1 else ("channel", *(f"axis {n}" for n in range(1, len(shape))))
        self.space: Continuous = Continuous(shape=shape, axes=axes)
        if state is not None:
            self.scale = state["scale"]

    @property
    def shelf(self) -> str:
        """Its name among the codecs."""
        return "latent"

    def fit(self, blocks: Iterable[Records]) -> "Latent":
        """Measures the scale of the latents; codec and autoencoder stay as they are. Raises BadData DATA_EMPTY without records,
        LATENT_FLAT where every record has the same latents, all zero."""
        squares, count = 0.0, 0
        for block in blocks:
            z = self._encoded(self.codec.parse(block, []))
            squares, count = squares + float(z.double().square().sum()), count + z.numel()
        if not count:
            raise BadData("DATA_EMPTY", "There is no record to measure the latents of.", "Give the data of the autoencoder.")
        if not squares:
            raise BadData("LATENT_FLAT", "The autoencoder gives all records the same latents: it has collapsed.",
                          "Fit it for longer, or with more free nats.")
        self.scale = (squares / count) ** 0.5
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
            decoded = [self.autoencoder.decode(part.flatten(1) * self.scale).cpu() for part in x.split(ROWS)]
        return self.codec.decode(torch.cat(decoded), first, known)

    def log_volume(self, x: Tensor) -> Tensor:
        """NaN, (B,) float64: records have no density that follows from that of their latents."""
        return torch.full((len(x),), torch.nan, dtype=torch.float64)

    def state(self) -> dict[str, Any]:
        """The scale of the latents, and a hash of the codec inside and of the autoencoder's weights, which are kept beside."""
        inside = to_json([plain(self.codec.config), self.codec.state()]) + packed(self.autoencoder.state_dict())
        return {"scale": self.scale, "inside": sha256(inside)}

    @classmethod
    def restore(cls, config: LatentConfig, state: dict[str, Any]) -> "Latent":
        """Raises Incompatible AUTOENCODER: the state is not enough; `Latent(codec, autoencoder, state)` is the way."""
        raise Incompatible("AUTOENCODER", "A latent codec cannot come back from its state alone.",
                           "Load the autoencoder and its codec, then Latent(codec, autoencoder, state).")

    def describe(self) -> list[dict[str, Any]]:
        """What the codec inferred."""
        return self.codec.describe()

    def _encoded(self, records: Records, unknown: bool = False) -> Tensor:
        """z (B, *latent), on the CPU as all that codecs encode."""
        x = self.codec.encode(records, unknown)
        with torch.no_grad():
            z = torch.cat([self.autoencoder.encode(part).cpu() for part in x.split(ROWS)])
        return z.view(len(x), *self.space.shape)


MEMBER = Latent
