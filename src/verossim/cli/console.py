"""How a verb speaks: results to standard output, the rest to standard error, errors in two lines, nothing from other ranks.

Text that came from outside is never read as markup, and what a terminal would act on is escaped.
"""

import errno
import json
import math
import os
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ..errors import VerossimError, printable

__all__ = ["Voice", "failed", "first_rank", "told"]

WIDTH = 170  # of tables that are not for a terminal: a tour has twelve columns
USAGE = 64
UNWRITABLE = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
USAGE_ERROR: Any = typer.BadParameter.__bases__[0]  # which typer has, and older ones take from click


def first_rank() -> bool:
    """Whether this process is the one that speaks and writes; under `torchrun` there are others."""
    return int(os.environ.get("RANK", 0)) == 0


def failed(error: BaseException, as_json: bool, trace: bool) -> int:
    """Says what went wrong and returns the exit status."""
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit would complain once more
    if isinstance(error, BrokenPipeError):
        return 1
    code, message, hint, status = _explained(error)
    if trace:
        traceback.print_exception(error)
    err = _console(stderr=True)
    err.print(Text.assemble((f"error {code}: ", "bold red"), _visible(message)), soft_wrap=True)
    if hint:
        err.print(_visible(hint), soft_wrap=True)
    if as_json and first_rank():
        print(json.dumps({"error": {"code": code, "message": message, "hint": hint, "status": status}}))
    return status


def _explained(error: BaseException) -> tuple[str, str, str, int]:
    if isinstance(error, VerossimError):
        return error.code, error.message, error.hint, error.status
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "INTERRUPTED", "Stopped by the keyboard.", "Nothing half-written was left.", 130
    if isinstance(error, USAGE_ERROR):
        return "USAGE", error.format_message(), "See: verossim --help, or verossim VERB --help.", USAGE
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return "IO_ERROR", f"Something cannot be read or written: {error.strerror}.", \
            "Look whether there is room where standard output goes and in the folder for temporary files.", 74
    if isinstance(error, MemoryError):
        return "MEMORY", "There is not enough memory.", "Use fewer components, smaller pictures or fewer columns.", 71
    return "INTERNAL", f"internal error: {type(error).__name__}: {printable(error, 300)}", \
        "This is a fault of verossim. Add --trace to see where; please report it with that.", 70


class Voice:
    """What one verb says. As JSON, tables and words are left out and `answer` prints the document."""

    def __init__(self, as_json: bool):
        self.as_json = as_json
        self.out = _console(quiet=as_json)
        self.err = _console(stderr=True)
        self.progress = Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"),
                                 TimeElapsedColumn(), console=self.err, transient=True)
        self.bars: dict[str, Any] = {}

    def __enter__(self) -> "Voice":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.quiet_bars()

    def say(self, text: str) -> None:
        """A line of the result."""
        self.out.print(_visible(text), soft_wrap=True)

    def note(self, text: str, style: str = "") -> None:
        """A line beside the result."""
        self.err.print(Text(_visible(text), style), soft_wrap=True)

    def more(self, count: int, rest: str) -> None:
        """That a table shows not all; as JSON there is no table."""
        if count > 0 and not self.as_json:
            self.note(f"... and {count:,} more{rest}")

    def warn(self, text: str) -> None:
        """A line that should not be overlooked."""
        self.note(f"warning: {text}", "yellow")

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], beside: bool = False) -> None:
        """A table of the result, or beside it; numbers are set right."""
        table = Table(header_style="bold", box=None, pad_edge=False, show_header=any(columns))
        written = [[value if isinstance(value, int | float) else told(value) for value in row] for row in rows]
        for place, name in enumerate(columns):
            numbers = all(isinstance(row[place], int | float) for row in written)
            table.add_column(_visible(name), justify="right" if numbers and written else "left", overflow="fold")
        for row in written:
            table.add_row(*(_visible(told(value)) for value in row))
        console = self.err if beside else self.out
        if title:
            console.print(Text(_visible(title), "bold"))
        console.print(table)

    def bar(self, name: str, done: float, of: float, said: str = "") -> None:
        """How far something is, on a terminal."""
        if self.err.is_terminal and not self.err.quiet:
            self.progress.start()
            if name not in self.bars:
                self.bars[name] = self.progress.add_task(name, total=of, said=said)
            self.progress.update(self.bars[name], completed=done, total=of, said=said)

    def quiet_bars(self) -> None:
        """Takes the bars away, so that lines can follow."""
        if self.bars:
            self.progress.stop()
        for task in self.bars.values():
            self.progress.remove_task(task)
        self.bars.clear()

    def problems(self, problems: Sequence[Any], count: int | None = None, shown: int = 10) -> None:
        """What was passed over: the first, then how many more."""
        total = len(problems) if count is None else count
        for problem in problems[:shown]:
            where = "" if problem.where in problem.message else f"{printable(problem.where)}: "
            self.note(f"passed over {problem.code}: {where}{problem.message} {problem.hint}".rstrip(), "yellow")
        if total > shown:
            self.note(f"... and {total - min(shown, len(problems)):,} more records were passed over.", "yellow")

    def answer(self, document: Mapping[str, Any]) -> None:
        """Ends the verb: as JSON, the document is printed."""
        self.quiet_bars()
        if self.as_json and first_rank():
            print(json.dumps(_plain(document), ensure_ascii=True, allow_nan=False))


def told(value: Any) -> str:
    """A value in a cell of a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}" if 1e-3 <= abs(value) < 1e5 else f"{value:.5g}"
    return f"{value:,}" if isinstance(value, int) else printable(value)


def _console(stderr: bool = False, quiet: bool = False) -> Console:
    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False, quiet=quiet or not first_rank())
    if not console.is_terminal:
        console.width = WIDTH
    return console


def _visible(text: str) -> str:
    """Text whose control and bidi characters are escaped, whole."""
    return printable(text, limit=max(len(text) * 10, 1))


def _plain(value: Any) -> Any:
    """JSON-ready values: numbers of other libraries as Python's, null for those that are not finite, the rest as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
