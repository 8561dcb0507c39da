"""A family whose exams say what a test has written for them, by their number."""

from collections.abc import Callable, Mapping

import torch
from slopes import SPACE, Denoiser

from verossim.families import Exam, Sign

Script = Mapping[str, Callable[[int], float]]


class Patient(Denoiser):
    """Learns as Denoiser does; how many exams it has had is part of its state."""

    examined = 10
    signs = (Sign(name="heat", low=-1.0, high=1.0, cause="it has a fever",
                  remedies=("penalty", "augmentation", "rate", "rollback")),
             Sign(name="movement", high=1e6, cause="it runs about"),
             Sign(name="pulse", high=1.0, cause="it has seen a ghost", remedies=("rollback",)))

    def __init__(self, script: Script, treats: tuple[str, ...] = ("penalty",)):
        torch.manual_seed(0)
        Denoiser.__init__(self, Denoiser.Config(), SPACE)
        self.script, self.treats = script, treats
        self.register_buffer("exams", torch.zeros((), dtype=torch.int64))
        self.treated, self.weights, self.probes = [], [], []  # remedies, weights at each exam, records looked at

    def examine(self, seen, unseen, noise):
        assert not self.training
        self.weights.append(torch.cat([p.detach().flatten() for p in self.parameters()]))
        self.probes.append((len(seen.x), None if unseen is None else len(unseen.x), len(noise)))
        self.exams += 1
        with torch.no_grad():
            made = self.networks["net"](noise.normal(self.space.dims))
        return Exam({name: value(int(self.exams)) for name, value in self.script.items()}, made)

    def treat(self, remedy):
        self.treated.append(remedy)
        return "pressed" if remedy in self.treats else None


def ill(first: int, last: int = 10**6) -> Callable[[int], float]:
    """2 from one exam to another, both of them included, else 0."""
    return lambda exam: 2.0 if first <= exam <= last else 0.0
