"""The plan of the house, kept by reading the source: which room may know which, and the manners inside."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "verossim"
FILES = sorted(SOURCE.rglob("*.py"))

#: A room may import rooms of a higher number only, itself, and what its line says besides.
FLOOR = {
    "cli": 0, "__main__": 0, "demo": 0, "server": 0,
    "uses": 1, "pages": 1,
    "sklearn": 2, "model": 2, "__init__": 0,
    "store": 3, "training": 3, "metrics": 3, "scores": 3, "safety": 3, "data": 3, "exchange": 3,
    "families": 4, "codecs": 4, "features": 4,
    "nn": 5,
    "spaces": 6, "config": 6, "shelves": 6, "seeds": 6, "errors": 6, "folders": 6, "sealed": 6, "intervals": 6,
}
REASON = {
    "families": "a family may not know where data comes from, or who trains it",
    "codecs": "a codec may not know who learns from it",
    "training": "training knows the contract of a family, never a member",
    "metrics": "a metric knows tensors and records, never a model",
    "scores": "a score knows what a model said, never the model",
    "nn": "networks turn tensors into tensors and know nothing else",
    "data": "data knows files and records, never who learns from them",
    "exchange": "an exchange knows the layouts of files and of one network, never a family or a model",
}
GROUND = {"spaces", "config", "shelves", "seeds", "errors", "folders", "sealed", "intervals"}
MODALITY = {"pixel", "pixels", "image", "images", "picture", "pictures", "frame", "frames", "word", "words", "hertz",
            "column", "columns"}


def room(path: Path) -> str:
    """The room that a file stands in: its folder's name, or its own."""
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def name(path: Path) -> str:
    """A file as the messages call it."""
    return str(path.relative_to(SOURCE))


def imports(path: Path, tree: ast.Module) -> set[str]:
    """The rooms of this package that a file imports, at any depth of the code."""
    package = ["verossim", *path.relative_to(SOURCE).parts[:-1]]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    parts = [dotted.split(".") for dotted in found if dotted.startswith("verossim.")]
    return {p[1] for p in parts if p[1] in FLOOR}


@pytest.fixture(params=FILES, ids=name)
def source(request) -> tuple[Path, ast.Module]:
    return request.param, ast.parse(request.param.read_text(encoding="utf-8"))


def test_a_room_imports_only_the_rooms_below(source):
    path, tree = source
    here = room(path)
    assert here in FLOOR, f"{name(path)} stands in a room that the house does not have"
    for there in imports(path, tree) - {here}:
        fine = FLOOR[there] > FLOOR[here] or (here in GROUND and there in GROUND) or FLOOR[here] == 0
        why = REASON.get(here, "a room may import only rooms below it")
        assert fine, f"{name(path)} imports {there}: {why}"


def test_the_ground_and_the_door_load_nothing_heavy():
    for ground in ("config", "shelves", "errors", "__init__"):
        tree = ast.parse((SOURCE / f"{ground}.py").read_text(encoding="utf-8"))
        for node in tree.body:
            heads = [a.name for a in node.names] if isinstance(node, ast.Import) else \
                [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {h.split(".")[0] for h in heads} & {"torch", "numpy", "pyarrow"}, f"{ground}.py loads {heads} at import"


def test_no_forbidden_word(source):
    path, tree = source
    for node in ast.walk(tree):
        where = f"{name(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = {a.name for a in node.names} | {getattr(node, "module", "") or ""}
            assert not modules & {"pickle", "cPickle", "dill", "shelve", "marshal"}, f"{where} uses pickle"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{where} has a bare except"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) != ("torch", "load"), f"{where} calls torch.load"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "hasattr", f"{where} asks hasattr: declare the attribute on the abstract class"
            assert node.func.id != "print" or room(path) in ("cli", "demo"), f"{where} prints outside the command line"
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("BatchNorm"), f"{where} uses {node.attr}: ranks would not agree"


def test_no_file_is_long(source):
    path, _ = source
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= 400, f"{name(path)} has {lines} lines; a file has at most 400"


def test_every_public_callable_says_what_it_does(source):
    path, tree = source
    assert ast.get_docstring(tree), f"{name(path)} has no docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name(path)}: {node.name} has no docstring"


def test_families_know_no_modality(source):
    path, tree = source
    if room(path) not in ("families", "nn"):
        return
    for node in ast.walk(tree):
        words = {node.id} if isinstance(node, ast.Name) else {node.arg} if isinstance(node, ast.arg) else set()
        assert not words & MODALITY, f"{name(path)}:{node.lineno} speaks of {words}: a family knows spaces, not modalities"


@pytest.mark.parametrize("shelf", ["families", "codecs"])
def test_every_shelf_file_names_its_member(shelf):
    from verossim.shelves import Shelf
    members = Shelf(shelf, shelf)
    assert members.names()
    for member in members.names():
        assert isinstance(members.load(member), type), f"{shelf}/{member} has no MEMBER"
