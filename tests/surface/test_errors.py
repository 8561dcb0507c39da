"""The page of error codes tells of every code that the source raises, with the status that it has."""

import ast
import re
from pathlib import Path

from verossim import errors

ROOT = Path(__file__).parent.parent.parent
SPOKEN = {"BadConfig", "BadData", "BadValue", "CannotWrite", "CorruptStore", "Diverged", "Fault", "Incompatible",
          "MissingExtra", "NoLikelihood", "NotInvertible", "Problem", "Refusal", "Refused", "problem", "warn"}


def raised() -> dict[str, set[str]]:
    """Code -> the classes that it is raised as, over the whole source."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "src" / "verossim").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                for argument in node.args[:2] if called in SPOKEN else []:
                    if isinstance(argument, ast.Constant) and re.fullmatch(r"[A-Z]{2,}(_[A-Z]+)*", str(argument.value)):
                        found.setdefault(argument.value, set()).add(called)
    return found


def told() -> dict[str, list[str]]:
    """Code -> the statuses of its line on the page."""
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", (ROOT / "docs" / "errors.md").read_text(encoding="utf-8"), re.M)
    return {code: re.split(r", ", statuses.strip()) for codes, statuses in rows for code in re.findall(r"`([A-Z_]+)`", codes)}


def test_every_code_is_on_the_page():
    assert not set(raised()) - set(told())


def test_the_statuses_are_those_of_the_errors():
    for code, classes in raised().items():
        for name in classes:
            kind = getattr(errors, name, None)
            if kind is not None:
                assert str(kind(code, "").status) in told()[code], f"{code} exits with {kind(code, '').status}"
