"""JSON lines: one object a line, in bounded memory."""

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from ..errors import BadData, printable
from .reader import Report, problem

__all__ = ["json_lines"]


def json_lines(file: BinaryIO, origin: str, most: int, decode: Callable[[str], Any],
               report: Report) -> Iterator[tuple[str, Any]]:
    """The place and the value of each line of a file in UTF-8 that is not blank; lines that are no JSON are reported.

    most : bytes of a line. decode : what makes a value of a line. Raises BadData TAB_CELL for a longer one.
    """
    number = 0
    while line := file.readline(most):
        number += 1
        where = f"{origin}, line {number}"
        if len(line) == most:
            raise BadData("TAB_CELL", f"{where} is longer than {most:,} bytes.", "Write one object a line.")
        if not line.strip():
            continue
        try:
            value = decode(line.decode())
        except (ValueError, RecursionError) as error:
            report(problem("TAB_CORRUPT", where, f"it is not JSON: {printable(error)}.", "Write one JSON object a line."))
            continue
        yield where, value
