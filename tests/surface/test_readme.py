"""What the README and the pages of docs/ tell a person to type, typed."""

import io
import json
import re
import shlex
from pathlib import Path

import pytest

from verossim.cli import main

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def snippets(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    for snippet in snippets(page, "python"):
        exec(compile(snippet, str(page), "exec"), scope)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_commands_run(page, tmp_path, monkeypatch):
    from verossim.demo import write_data
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    header, *rows = (tmp_path / "wine.csv").read_text().splitlines()
    (tmp_path / "wine.csv").write_text("\n".join([header, *rows[::2]]))
    (tmp_path / "held-out.csv").write_text("\n".join([header, *rows[1::2]]))
    chat = {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day."}]}
    (tmp_path / "chats.jsonl").write_text("\n".join([json.dumps(chat)] * 20))
    (tmp_path / "reviews.csv").write_text("text,stars\n" + "A fine book,good\nA dull one,bad\n" * 20)
    (tmp_path / "pairs.csv").write_text("en,pt\n" + "Open the file,Abra o arquivo\nClose it,Feche-o\n" * 20)
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\n"))
    for snippet in snippets(page, "sh"):
        for line in snippet.replace("\\\n", " ").splitlines():
            command = shlex.split(line, comments=True)
            if command and command[0] == "verossim":
                with pytest.raises(SystemExit) as end:
                    main(command[1:])
                assert end.value.code in (0, None), f"{page.name}: {line}"


def test_the_tree_of_the_readme_is_the_tree():
    told = set(re.findall(r"^ {4,}([a-z_]+(?:\.py|/))", (ROOT / "README.md").read_text(encoding="utf-8"), re.M))
    rooms = {p.name + ("/" if p.is_dir() else "") for p in (ROOT / "src" / "verossim").iterdir()}
    missing = {r for r in rooms if not r.startswith("__") and r != "py.typed"} - told
    assert not missing, f"the README's tree does not show {missing}"
