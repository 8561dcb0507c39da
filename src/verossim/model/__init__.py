"""What people hold: `Model`, a codec and a family under one set of verbs, and `fit`, which makes one of somebody's data.

verbs: sample, log_prob, predict_proba, complete, encode, decode, interpolate; storing: a model as what is saved of it; fitting:
from a source to a model; running: a fit by gradient in a folder, from which it goes on after any interruption.
"""

from .fitting import fit, learning_of, usual_family
from .verbs import Model, Scored

__all__ = ["Model", "Scored", "fit", "learning_of", "usual_family"]
