"""What leaves the house, and under which marks: the gate that every output passes, and the provenance that goes with it."""

from .gate import Release, Verified, contact_sheet, release, release_file, verify
from .provenance import Provenance

__all__ = ["Provenance", "Release", "Verified", "contact_sheet", "release", "release_file", "verify"]
