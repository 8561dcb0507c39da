"""A page: words, tables, charts and pictures as one HTML file that needs nothing else, online or off.

It asks for nothing from anywhere (its own policy forbids it), runs no script, reads well on a phone, in the light and in the
dark, and on paper. All words come in plain and are escaped here; the same calls give the same bytes.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Self

from PIL import Image

from ..errors import BadData
from ..safety.provenance import MADE_BY
from .cells import Cell, Column, Noted, best, rendered, said
from .pictures import EXACT, uri
from .style import STYLE

__all__ = ["Cell", "Column", "Noted", "Page", "Side"]

Side = Image.Image | str  #: of a pair: a picture, or a text

LONGEST = 4_000  # characters of a text that are shown
HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header>
<h1>{title}</h1>
{lead}</header>
"""


class Page:
    """A page under construction: each verb adds a part and returns the page, `html` gives the whole.

    title, lead : its heading, and a first paragraph. Words are plain text; an empty part adds nothing.
    """

    def __init__(self, title: str, lead: str = ""):
        self.title, self.lead = title, lead
        self.parts: list[str] = []
        self.headings: list[str] = []

    def section(self, heading: str, words: str = "") -> Self:
        """A section that lasts until the next, with a paragraph under its heading."""
        opened = "</section>\n" if self.headings else ""
        self.headings.append(heading)
        self.parts.append(f'{opened}<section id="part-{len(self.headings)}">\n<h2>{said(heading)}</h2>\n')
        return self.words(words)

    def words(self, *paragraphs: str) -> Self:
        """Paragraphs."""
        return self._add("".join(f"<p>{said(p)}</p>\n" for p in paragraphs if p))

    def points(self, words: Iterable[str]) -> Self:
        """A list of sentences."""
        items = "".join(f"<li>{said(w)}</li>\n" for w in words)
        return self._add(f"<ul>\n{items}</ul>\n" if items else "")

    def warning(self, words: str) -> Self:
        """A warning, set apart."""
        return self._add(f'<p class="warning" role="note"><strong>Warning.</strong> {said(words)}</p>\n' if words else "")

    def definitions(self, values: Mapping[str, Any]) -> Self:
        """Names with what they stand for; tables within tables are named by both, and what is None is left out."""
        rows = "".join(f"<div><dt>{said(name)}</dt><dd>{said(value)}</dd></div>\n" for name, value in _flat(values))
        return self._add(f"<dl>\n{rows}</dl>\n" if rows else "")

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], caption: str = "",
              aside: Collection[int] = ()) -> Self:
        """A table whose first column names the rows; the best of a column stands out where the intervals leave no doubt.

        aside : numbers of rows that do not compete, such as baselines. Raises BadData PAGE_TABLE where a row is not as long as
        the columns are many.
        """
        for number, row in enumerate(rows, 1):
            if len(row) != len(columns):
                raise BadData("PAGE_TABLE", f"Row {number} of a table has {len(row)} cells for {len(columns)} columns.",
                              "Give each row a cell a column; None leaves it empty.")
        if not rows or not columns:
            return self
        marked = {(i, j) for j, column in enumerate(columns)
                  for i in [best([None if i in aside else row[j] for i, row in enumerate(rows)], column)] if i is not None}
        heads = "".join(f'<th scope="col">{said(c.name)}{f"<small>{said(c.under)}</small>" if c.under else ""}</th>'
                        for c in columns)
        body = "".join(_row(row, columns, {j for i, j in marked if i == number}, number in aside)
                       for number, row in enumerate(rows))
        note = "Set bold: surely the best of its column, its 95 % interval lies apart from all others." if marked else ""
        title = f"<caption><span>{said(caption)}</span></caption>" if caption else ""
        region = f' role="region" aria-label="{said(caption)}"' if caption else ""
        legend = "".join(f"<div><dt>{said(c.name)}</dt><dd>{said(c.help)}</dd></div>\n" for c in columns if c.help)
        return self._add(
            f'<div class="scroll" tabindex="0"{region}>\n<table>{title}\n<thead><tr>{heads}</tr></thead>\n'
            f"<tbody>\n{body}</tbody>\n</table>\n</div>\n" + (f'<p class="quiet">{note}</p>\n' if note else "")
            + (f'<dl class="quiet">\n{legend}</dl>\n' if legend else ""))

    def figure(self, svg: str, caption: str) -> Self:
        """A chart of `plots`, whose caption is read aloud in its place."""
        chart = svg.replace("<svg ", f'<svg role="img" aria-label="{said(caption)}" ', 1)
        return self._add(f'<figure class="chart">\n{chart}<figcaption>{said(caption)}</figcaption>\n</figure>\n')

    def pictures(self, pictures: Iterable[tuple[Image.Image, str]], caption: str = "", columns: int = 10) -> Self:
        """A grid of pictures, each with words for those who do not see it; `columns` in a row where there is room."""
        shown = list(pictures)
        tiles = "".join(_picture(picture, alt) + "\n" for picture, alt in shown)
        if not tiles:
            return self
        widest = max(picture.width for picture, _ in shown)
        tile = min(max(4 * widest if widest < 16 else widest, 40), 128)
        return self._add(f'<figure>\n<div class="grid" style="--n: {columns}; --tile: {tile}px">\n{tiles}</div>\n'
                         f'{_caption(caption)}</figure>\n')

    def pairs(self, pairs: Iterable[tuple[Side, Side, str]], caption: str = "",
              sides: tuple[str, str] = ("made", "real")) -> Self:
        """Two things beside each other, pictures or texts, with words below: what was made and what it is nearest to."""
        cells = "".join(f'<div class="pair"><div>{_side(left, sides[0])}{_side(right, sides[1])}</div>'
                        f'<p>{said(words)}</p></div>\n' for left, right, words in pairs)
        return self._add(f'<figure>\n<div class="pairs">\n{cells}</div>\n{_caption(caption)}</figure>\n' if cells else "")

    def texts(self, texts: Iterable[str], caption: str = "") -> Self:
        """Texts as they are, each in a box; beyond LONGEST characters it is said how many more there are."""
        boxes = "".join(f"{_text(text)}\n" for text in texts)
        return self._add(f'<figure class="texts">\n{boxes}{_caption(caption)}</figure>\n' if boxes else "")

    def html(self) -> str:
        """The whole page."""
        links = "".join(f'<li><a href="#part-{i}">{said(heading)}</a></li>\n' for i, heading in enumerate(self.headings, 1))
        nav = f'<nav aria-label="Parts of this page">\n<ul>\n{links}</ul>\n</nav>\n' if len(self.headings) > 3 else ""
        lead = f'<p class="lead">{said(self.lead)}</p>\n' if self.lead else ""
        closed = "</section>\n" if self.headings else ""
        return (HEAD.format(title=said(self.title), style=STYLE, lead=lead) + nav + "".join(self.parts) + closed
                + f"</main>\n<footer><p>Made by {said(MADE_BY)}. Made things on this page are synthetic.</p></footer>\n"
                  "</body>\n</html>\n")

    def _add(self, part: str) -> Self:
        if part:
            self.parts.append(part)
        return self


def _row(row: Sequence[Cell], columns: Sequence[Column], marked: set[int], aside: bool) -> str:
    def kind(j: int, cell: Cell) -> str:
        return ' class="best"' if j in marked else ' class="words"' if isinstance(cell, str) and len(cell) > 20 else ""
    cells = "".join(f"<td{kind(j, cell)}>{rendered(cell, columns[j], j in marked)}</td>" for j, cell in enumerate(row) if j)
    mark = ' class="aside"' if aside else ""
    return f'<tr{mark}><th scope="row">{rendered(row[0], columns[0])}</th>{cells}</tr>\n'


def _picture(picture: Image.Image, alt: str) -> str:
    sharp = ' class="sharp"' if max(picture.size) <= EXACT else ""
    return f'<img{sharp} src="{uri(picture)}" width="{picture.width}" height="{picture.height}" alt="{said(alt)}">'


def _side(side: Side, name: str) -> str:
    return _text(side) if isinstance(side, str) else _picture(side, name)


def _text(text: str) -> str:
    cut = f"\n... and {len(text) - LONGEST:,} more characters" if len(text) > LONGEST else ""
    return f'<pre tabindex="0">{said(text[:LONGEST], lines=True)}{cut}</pre>'


def _caption(words: str) -> str:
    return f"<figcaption>{said(words)}</figcaption>\n" if words else ""


def _flat(values: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, str]]:
    """Names and words of a table and the tables in it."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif value is not None:
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            yield f"{before}{name}", {True: "yes", False: "no"}[shown] if isinstance(shown, bool) else str(shown)
