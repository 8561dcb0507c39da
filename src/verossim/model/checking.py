"""Do a model's numbers come from a distribution? Its log_prob over its own space, summed, integrated or sampled."""

import torch
from torch import Tensor

from ..errors import Incompatible, NoLikelihood
from ..scores.normalisation import Normalisation, check
from ..seeds import Noise, check_seed
from ..spaces import Likelihood
from .verbs import Model

__all__ = ["normalised"]

DRAWN = {"exact": 20_000, "bound": 4_000}  # points of importance sampling, by what one costs
EXAMPLES = 1_000


def normalised(model: Model, seed: int = 0) -> Normalisation:
    """Whether the probabilities of all records add up to one: see `scores.normalisation.check`. Raises NoLikelihood from
    models over latents, Incompatible NORMALISATION_SHAPE for spaces that cannot be gone through, or not by estimates."""
    if model.codec.lossy:
        raise NoLikelihood("LATENT_DENSITY", "A model over an autoencoder has no probabilities of records to add up.",
                           "Ask the model that it was fitted over.")
    kind = model.likelihood_kind
    if kind == "estimate" and model.codec.space.coordinates > 2:
        numbers = model.codec.space.coordinates
        raise Incompatible("NORMALISATION_SHAPE", f"Estimates of records of {numbers} numbers cost too much for the thousands "
                           "of points that their sum would take.", "Families gmm and vae can be checked.")

    def log_prob(x: Tensor) -> Likelihood:
        with torch.inference_mode():
            return model.family.log_prob(x.to(model.family.device), None, Noise(seed, len(x)))
    noise = Noise(check_seed(seed), EXAMPLES)
    with torch.inference_mode():
        examples = model.family.sample(noise, model._condition(None, noise)).cpu()
    return check(log_prob, model.codec.space, examples, kind=kind, draws=DRAWN.get(kind, 0), seed=seed)
