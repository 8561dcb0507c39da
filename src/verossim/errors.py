"""What can go wrong, as a tree of exceptions whose messages are written for the reader.

Every error carries a stable `code` (programs match on it), a message that says what happened and where, and a hint that
says what to do. The exit status of the command line follows from the code (sysexits: 64 usage, 65 bad data, 66 missing
input, 71 out of resources, 73 cannot create, 74 input/output, 77 refused, 78 configuration).
"""

import difflib
from collections.abc import Iterable

__all__ = [
    "STATUS", "BadConfig", "BadData", "CannotWrite", "CorruptStore", "Diverged", "Incompatible", "Interrupted", "MissingExtra",
    "NoLikelihood", "NotInvertible", "Refused", "VerossimError", "near", "printable",
]

#: The exit status where a code does not share the one of its class.
STATUS = {
    "DATA_EMPTY": 66, "DATA_MISSING": 66, "CKPT_MISSING": 66, "CKPT_BASE": 66,
    "GMM_K": 64, "LABEL_UNKNOWN": 64, "SEED_RANGE": 64, "SETTING_RANGE": 64, "USAGE": 64, "SHELF_UNKNOWN": 64,
    "OUT_EXISTS": 73, "OUT_DENIED": 73, "RUN_LOCKED": 73, "DISK_FULL": 74, "IO_DENIED": 74, "IO_GONE": 74, "IO_ERROR": 74,
    "PICKLE_REFUSED": 77, "INTERRUPTED": 130,
}


class VerossimError(Exception):
    """The root. `code` is stable, `hint` says the way out, `status` is the exit status of the command line."""

    default_status = 70

    def __init__(self, code: str, message: str, hint: str = ""):
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint

    @property
    def status(self) -> int:
        """Exit status: the code's own where `STATUS` lists one, else that of the class."""
        return STATUS.get(self.code, self.default_status)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class BadConfig(VerossimError):
    """A setting is unknown, of the wrong type or out of its bounds."""

    default_status = 78


class BadData(VerossimError):
    """The data cannot be read, or cannot be learned from."""

    default_status = 65


class Incompatible(VerossimError):
    """Two parts that do not fit: a family and a space, a model and the records it is asked about."""

    default_status = 65


class NoLikelihood(VerossimError):
    """The family cannot say how probable a record is."""

    default_status = 64


class NotInvertible(VerossimError):
    """The family has no way back from a record to its latents."""

    default_status = 64


class Diverged(VerossimError):
    """Learning left the finite numbers and did not come back."""

    default_status = 70


class Interrupted(VerossimError):
    """Learning was asked to stop by a signal, and stopped with all saved."""

    def __init__(self, signal: int, samples: int, total: int):
        super().__init__("INTERRUPTED", f"Stopped after {samples:,} of {total:,} records; all is saved.",
                         "The same command goes on from here.")
        self.signal = signal

    @property
    def status(self) -> int:
        """128 + the signal's number: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal


class CorruptStore(VerossimError):
    """A saved model is damaged, from a newer version, or not one of ours."""

    default_status = 65


class CannotWrite(VerossimError):
    """The place for the output cannot be created or is full."""

    default_status = 73


class MissingExtra(VerossimError):
    """An optional package is needed; the hint is the command that installs it."""

    default_status = 69


class Refused(VerossimError):
    """Something that could be done and will not be: unpickling, leaving the target folder."""

    default_status = 77


def near(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: up to three near names, then what exists."""
    known = sorted(known)
    if not known:
        return "There are none."
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    meant = f"Did you mean {' or '.join(repr(c) for c in close)}? " if close else ""
    shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    return f"{meant}Known: {shown}."


def printable(name: object, limit: int = 120) -> str:
    """A name that came from outside, safe to print: control, bidi and undecodable characters escaped, long ones cut."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(name))
    return text if len(text) <= limit else text[: limit // 2 - 2] + "..." + text[-(limit // 2 - 1):]
