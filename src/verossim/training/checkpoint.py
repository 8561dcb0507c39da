"""What a run is resumed from: folders `samples-N` under state/, each sealed, the newest whole one of which counts.

    state.json            the format's number, samples seen and steps taken, guard, doctor, curve and the scale of fp16
    tensors.safetensors   raw weights, their average, buffers, and the state of optimizers and doctor, by name

What ships is another thing (see `store`), and so is what was asked for: settings.json, beside state/. A checkpoint never holds
a number that is not finite.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CannotWrite, CorruptStore, printable
from ..folders import cannot_write
from ..sealed import check_finite, packed, read, to_json, unpacked, write_sealed

__all__ = ["Checkpoint", "Checkpoints", "locked"]

STATE, TENSORS = "state.json", "tensors.safetensors"
FORMAT = 2  # of state.json; the first had no number, one guard for all turns and no doctor
KEPT = 2
NAME = "samples-"


@dataclass(frozen=True)
class Checkpoint:
    """Plain values and tensors of a run after `samples` records."""

    samples: int
    plain: dict[str, Any]
    tensors: dict[str, Tensor]


class Checkpoints:
    """The checkpoints of one run, in a folder."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.damaged: list[CorruptStore] = []  # what `newest` had to pass over

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint, and removes all but the last two up to it; what lies after it was passed over as damaged.

        Raises CannotWrite OUT_DENIED, DISK_FULL or IO_ERROR and CorruptStore CKPT_NONFINITE; older ones then stand.
        """
        place = self.folder / f"{NAME}{checkpoint.samples:015d}"
        check_finite(place, checkpoint.tensors)
        write_sealed(place, {STATE: to_json({"format": FORMAT, "samples": checkpoint.samples, **checkpoint.plain}),
                             TENSORS: packed(checkpoint.tensors)})
        up_to = [other for other in self.places() if other.name <= place.name]
        for other in {*self.places()} - {*up_to[:KEPT]}:
            shutil.rmtree(other, ignore_errors=True)

    def newest(self) -> Checkpoint | None:
        """The newest whole checkpoint, every byte verified; None where there is none. Raises CorruptStore where there are
        some and all of them are damaged, and CKPT_VERSION where one is whole but of another version."""
        self.damaged = []
        for place in self.places():
            try:
                return _loaded(place)
            except CorruptStore as error:
                if error.code == "CKPT_VERSION":
                    raise
                self.damaged.append(error)
        if self.damaged:
            raise self.damaged[0]
        return None

    def clear(self) -> None:
        """Removes every checkpoint. Raises CannotWrite."""
        try:
            for place in self.places():
                shutil.rmtree(place)
        except OSError as error:
            raise cannot_write(error, self.folder) from error

    def places(self) -> list[Path]:
        """The checkpoints' folders, newest first."""
        return sorted(self.folder.glob(f"{NAME}*"), reverse=True) if self.folder.is_dir() else []


def _loaded(place: Path) -> Checkpoint:
    def foreign(names: set[str]) -> CorruptStore:
        return CorruptStore("CKPT_FORMAT", f"{printable(place)} is not a checkpoint: it holds {', '.join(sorted(names)[:5])}.")
    contents = read(place, (STATE, TENSORS), place, foreign)
    plain: dict[str, Any] = json.loads(contents[STATE])
    number, samples = plain.pop("format", 1), plain.pop("samples")
    if number != FORMAT:
        later = isinstance(number, int) and number > FORMAT
        raise CorruptStore("CKPT_VERSION", f"{printable(place)} has format {printable(number)}; this version reads {FORMAT}.",
                           "Upgrade: pip install --upgrade verossim." if later else
                           "Go on with the version that began the run, begin anew with --restart, or choose another folder.")
    tensors = unpacked(contents[TENSORS], f"{printable(place)}/{TENSORS}")
    check_finite(place, tensors)
    return Checkpoint(samples, plain, tensors)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other trainers out of a run's folder while this one is in it. Raises CannotWrite RUN_LOCKED, OUT_DENIED."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise cannot_write(error, folder) from error
    with contextlib.closing(os.fdopen(descriptor, "rb")):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CannotWrite("RUN_LOCKED", f"Another process is training in {printable(folder)}.",
                              "Wait until it ends, stop it, or choose another folder.") from error
        yield
