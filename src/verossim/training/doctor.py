"""Watches how learning goes, says when it goes wrong and why, and does something about it.

Every `examined` steps a family looks at a probe of records, always the same, and tells signs: numbers that each have bounds. A
sign that is out of its bounds at PATIENCE exams in a row, once WARM steps have been taken, is an alarm: an event in the journal
with its cause, the numbers behind it and what was done. What can be done is a ladder that the sign names, climbed a rung an
alarm; after each, GRACE exams give none:

    penalty, augmentation   the family presses them
    rate                    is a quarter of what it was
    rollback                weights go back to the last healthy exam, or to the beginning, moments are forgotten, and the
                            rate is a quarter of what it was; as the last rung it may be climbed again and again

Exams are counted in steps and made with the same noise, so that a run resumed does the same; of several ranks, the first one's
signs decide.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..families import LearnsByGradient
from ..seeds import Noise
from .engine import Engine
from .journal import Journal
from .statistics import Split, subsample

__all__ = ["Doctor"]

PROBE = 256  # records on each side
FEWEST = 8  # records held out, below which those learned from are looked at alone
WARM, PATIENCE = 100, 3  # steps before alarms, and exams in a row
GRACE = 5  # exams after a remedy, before the next alarm
STREAM = 1 << 61  # of the noise of exams


@dataclass(frozen=True)
class Found:
    """What an exam came to: signs by name, and the sign that gives alarm, if any."""

    signs: dict[str, float]
    alarm: str | None


class Doctor:
    """The watch over one run. Its state is `plain()` and `tensors`; both go into checkpoints."""

    def __init__(self, family: LearnsByGradient, data: Split, held: Split | None, seed: int, engine: Engine):
        self.family, self.engine = family, engine
        self.seen = subsample(data, seed, most=PROBE, least=1)
        few = held is None or len(held) < FEWEST
        self.unseen = None if held is None or few else subsample(held, seed, most=PROBE, least=1)
        self.seed = (seed + STREAM) % (1 << 63)
        self.out: dict[str, int] = {}  # exams in a row that a sign was out of its bounds
        self.rung: dict[str, int] = {}  # of a sign's ladder, the next
        self.quiet = 0  # exams until there may be an alarm again
        self.alarms = 0
        self.goes_back = any("rollback" in sign.remedies for sign in family.signs)
        self.tensors: dict[str, Tensor] = {}  # "made" at the last exam, and "healthy/..." weights

    def due(self, steps: int) -> bool:
        """Whether there is an exam after so many steps."""
        return self.family.examined > 0 and steps % self.family.examined == 0

    def examine(self, steps: int, parameters: Mapping[str, Tensor]) -> Found:
        """The signs now; where all is well the weights are remembered."""
        count = len(self.seen.x if self.unseen is None else self.unseen.x)
        seen, unseen = self.engine.placed(self.seen), None if self.unseen is None else self.engine.placed(self.unseen)
        self.family.eval()
        exam = self.family.examine(seen, unseen, Noise(self.seed, count))
        self.family.train()
        signs = dict(exam.signs)
        if exam.made is not None:
            before = self.tensors.get("made")
            if before is not None:
                signs["movement"] = float((exam.made - before).square().mean().sqrt())
            self.tensors["made"] = exam.made.nan_to_num(0.0, 0.0, 0.0)
        signs = self.engine.tell(lambda: signs)  # floats of ranks may differ by rounding: one decides for all
        self.family.adapt(signs)
        alarm = self._alarm(signs) if steps >= WARM else None
        if steps >= WARM and not any(self.out.values()):
            self.keep(parameters)
        return Found(signs, alarm)

    def keep(self, parameters: Mapping[str, Tensor]) -> None:
        """Remembers weights as healthy, where some sign may ask for them: those of the beginning, and of exams since."""
        if self.goes_back:
            self.tensors |= {f"healthy/{name}": self.engine.whole(p.detach()).clone() for name, p in parameters.items()}

    def _alarm(self, signs: Mapping[str, float]) -> str | None:
        """Counts signs out of bounds; the first that was so for too long, unless a remedy is still to show what it does."""
        for sign in self.family.signs:
            value = signs.get(sign.name)
            self.out[sign.name] = self.out.get(sign.name, 0) + 1 if value is not None and not sign.holds(value) else 0
        if self.quiet:
            self.quiet -= 1
            return None
        return next((sign.name for sign in self.family.signs if self.out[sign.name] >= PATIENCE), None)

    def remedy(self, name: str) -> str | None:
        """The next rung of a sign's ladder that there is something to do on: "rate", "rollback", or what the family did; at its
        end None, or again the rollback that it ends in."""
        remedies = next(sign.remedies for sign in self.family.signs if sign.name == name)
        self.alarms += 1
        self.quiet = GRACE
        while (rung := self.rung.get(name, 0)) < len(remedies):
            self.rung[name] = rung + 1
            if remedies[rung] in ("rate", "rollback"):
                return remedies[rung]
            done = self.family.treat(remedies[rung])
            if done is not None:
                return done
        return "rollback" if remedies and remedies[-1] == "rollback" else None

    def healthy(self) -> dict[str, Tensor]:
        """The weights that were remembered, by name."""
        return {name.removeprefix("healthy/"): value for name, value in self.tensors.items() if name.startswith("healthy/")}

    def report(self, journal: Journal, samples: int, found: Found, action: str | None) -> None:
        """Tells the journal of an exam, and of its alarm with cause, evidence and what was done."""
        journal.event("health", samples=samples, signs=found.signs)
        if found.alarm is None:
            return
        sign = next(sign for sign in self.family.signs if sign.name == found.alarm)
        bounds = " and ".join([*([f"at least {sign.low:g}"] if sign.low is not None else []),
                               *([f"at most {sign.high:g}"] if sign.high is not None else [])])
        journal.event("alarm", samples=samples, sign=sign.name, cause=sign.cause, value=found.signs[sign.name], bounds=bounds,
                      exams=self.out[sign.name], signs=found.signs, action=action)

    def plain(self) -> dict[str, Any]:
        """The state that is not tensors."""
        return {"out": self.out, "rung": self.rung, "quiet": self.quiet, "alarms": self.alarms}

    def restore(self, plain: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Sets the state from what a checkpoint holds."""
        self.out, self.rung = dict(plain["out"]), dict(plain["rung"])
        self.quiet, self.alarms = plain["quiet"], plain["alarms"]
        self.tensors = {name: value.to(self.engine.device, copy=True) for name, value in tensors.items()}
