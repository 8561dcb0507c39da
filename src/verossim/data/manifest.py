"""What a model was made from: files and their digests, columns, counts, the split. It goes with the model as JSON."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .reader import FileEntry

__all__ = ["Manifest"]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The account of one preparation.

    files : name, bytes and sha256 of each, in the order of their names; columns: those of the source, in order.
    records : learned or held out = train + held_out; skipped: passed over, with a problem each.
    duplicates : records whose content (label and weight aside) had occurred before.
    share : the share of records held out, chosen by the hash of the record. read : how texts were asked to be read.
    """

    origin: str
    modality: str
    columns: tuple[str, ...]
    label: str | None
    weight: str | None
    share: float
    files: tuple[FileEntry, ...]
    read: tuple[tuple[str, str], ...] = ()
    records: int = 0
    train: int = 0
    held_out: int = 0
    duplicates: int = 0
    skipped: int = 0

    @property
    def hash(self) -> str:
        """sha256, in hexadecimal, over the files' names and digests and what was asked of them, not over where they lie."""
        digest = hashlib.sha256(json.dumps([self.modality, self.columns, self.label, self.weight, self.share]).encode())
        digest.update(json.dumps(self.read).encode() if self.read else b"")
        for entry in sorted(self.files):
            digest.update(json.dumps(entry).encode())
        return digest.hexdigest()

    def plain(self) -> dict[str, Any]:
        """JSON-ready values, the hash among them; `from_plain` reads them back."""
        files = [entry._asdict() for entry in self.files]
        return {**vars(self), "columns": list(self.columns), "files": files, "read": dict(self.read), "hash": self.hash}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Manifest":
        """The manifest that `plain` wrote down."""
        values = {name: value for name, value in plain.items() if name != "hash"}
        files = tuple(FileEntry(**entry) for entry in plain["files"])
        return cls(**{**values, "columns": tuple(plain["columns"]), "files": files,
                      "read": tuple(plain.get("read", {}).items())})
