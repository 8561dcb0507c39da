"""Pages: whole without anything else, safe with hostile words, the same bytes twice, honest about what is best."""

import base64
import functools
import io
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from verossim.errors import BadData
from verossim.intervals import Interval
from verossim.metrics import Measured, Quantity, Report, Stamp
from verossim.pages import Column, Noted, Page, plots
from verossim.pages.report import COLUMNS, Row, advise, curves_of, evaluation, tour
from verossim.pages.style import DARK, STYLE

VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = '<script>alert(1)</script>"\'&\u202eevil\x00\x1b[31m $x^2$ id="q" #010203 日本'
DIGITS = [Image.fromarray(np.minimum(x * 16, 255).astype(np.uint8)) for x in datasets.load_digits().images[:64]]
BITS = Column("bits per dimension", "lower")


class Tree(HTMLParser):
    """Every tag with its attributes; the words between them; refuses what is not nested."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, {k: v or "" for k, v in attributes}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, {k: v or "" for k, v in attributes}))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def said(self) -> str:
        return " ".join(" ".join(self.words).split())

    def every(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def rows(pictures: int = 64, name: str = "gmm") -> list[Row]:
    """Six rows of a tour, with pictures, neighbours and, of the first, a curve."""
    shown = DIGITS[:pictures]
    curve = {"loss": (list(range(0, 60_000, 60)), [3 / (1 + i) + 0.5 for i in range(1000)])}
    models = [Row(name=name if i == 0 else f"model {i}", words="A model.", numbers={
        "bits per dimension": Noted(Interval(3 + i, 2.9 + i, 3.1 + i), "exact"), "distance": Interval(30 + i, 20, 40),
        "copy rate": Interval(0.01, 0.0, 0.02), "train": 12.5 + i, "size": 0.25}, made=shown, curves=curve if i == 0 else {},
        neighbours=[(p, p, "distance 0") for p in shown[:4]]) for i in range(4)]
    return [*models, Row(name="real against real", baseline=True, numbers={"distance": Interval(1, 0.5, 1.5)}),
            Row(name="noise", baseline=True, floor=True, numbers={"distance": Interval(900, 880, 920)})]


def report() -> Report:
    stamps = [Stamp(metric=name, settings={"k": 5}, features="pixels 0123", reference="abcd", real=40, made=50, seed=seed)
              for name, seed in (("one", 0), ("other", 3))]
    first = Quantity("distance", "lower", "how far it is", "copies")
    return Report((Measured(first, Interval(3.214, 3.102, 3.351, 0.0001), stamps[0], ("Few records.",)),
                   Measured(Quantity("share", "higher", "how much", "much"), Interval(0.5), stamps[1])),
                  {"model": "runs/a"}, ("Three records are in both.",))


def full_evaluation(hostile: str = "plain") -> str:
    return evaluation(report(), lead=hostile, real=DIGITS[:8], made=DIGITS[8:16],
                      neighbours=[(DIGITS[0], DIGITS[1], hostile), (hostile, hostile, "texts")],
                      curves={hostile: ([1, 2, 3], [3.0, float("nan"), 1.0]), "loss": ([1, 2], [2, 1])},
                      reliability=[(0.1, 0.2, 5), (0.9, 0.8, 50)], unusual=([0, 0.1, 1], [0, 0.2, 1]),
                      columns={hostile: ([1.0, 2.0, float("nan")], [2.0, 3.0]), "kind": ([hostile, "a"], ["a"])},
                      provenance={hostile: {"inner": hostile}}, warnings=[hostile])


PAGES = {"tour": lambda: tour(rows(), lead="Digits.", real=DIGITS, protocol={"seed": 0}, provenance={"data": "abcd"}),
         "evaluation": full_evaluation, "hostile": lambda: full_evaluation(HOSTILE), "hostile tour":
         lambda: tour(rows(4, HOSTILE), title=HOSTILE, lead=HOSTILE, warnings=[HOSTILE]), "empty": lambda: tour([])}


@functools.cache
def made(name: str) -> str:
    return PAGES[name]()


@pytest.fixture(params=PAGES)
def page(request) -> str:
    return made(request.param)


def test_a_page_is_balanced_and_asks_for_nothing(page):
    tree = Tree(page)
    assert not {tag for tag, _ in tree.tags} & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in tree.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), f"<{tag} {name}> would run a script"
            if name in ("src", "href", "srcset", "data", "action", "xlink:href"):
                assert value.startswith("data:image/" if tag == "img" else "#"), f"<{tag} {name}={value[:40]!r}>"
    assert "default-src 'none'" in next(m["content"] for m in tree.every("meta") if "content-security" in m.get(
        "http-equiv", "").lower())
    assert "@import" not in page and not re.search(r"url\((?!#)", page)


def test_what_refers_within_a_page_is_there_once(page):
    tree = Tree(page)
    names = [attributes["id"] for _, attributes in tree.tags if "id" in attributes]
    wanted = {m for _, a in tree.tags for v in a.values() for m in re.findall(r"^#([\w.-]+)$|url\(#([\w.-]+)\)", v)}
    assert {a or b for a, b in wanted} <= set(names)
    assert len([n for n in names if n.startswith("part-")]) == len(tree.every("h2"))


def test_every_picture_table_and_chart_can_be_read_aloud(page):
    tree = Tree(page)
    assert all(image["alt"] and image["width"] for image in tree.every("img"))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in tree.every("svg"))
    assert all(cell["scope"] in ("col", "row") for cell in tree.every("th"))
    assert len(tree.every("h1")) == 1 and 'lang="en"' in page and 'content="width=device-width' in page


@pytest.mark.parametrize("name", ["hostile", "hostile tour"])
def test_hostile_words_stay_words(name):
    text = made(name)
    assert not {"\u202e", "\x00", "\x1b"} & set(text)
    said = Tree(text).said()
    assert r"<script>alert(1)</script>" in said and r"\u202eevil\x00\x1b[31m" in said


def test_a_name_in_a_chart_is_text_and_not_a_formula():
    words = Tree(plots.curve({'$x$ #010203 id="q"': ([1, 2], [1, 2]), "日本": ([1, 2], [2, 1])})).said()
    assert '$x$ #010203 id="q"' in words and "日本" in words


@pytest.mark.parametrize("name", ["tour", "evaluation"])
def test_the_same_values_give_the_same_bytes(name):
    assert made(name) == PAGES[name]()


def test_the_reader_s_own_settings_of_charts_change_nothing_and_are_left():
    import matplotlib
    usual = plots.intervals(["a"], [Interval(1, 0, 2)])
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "svg.fonttype": "path"}):
        assert plots.intervals(["a"], [Interval(1, 0, 2)]) == usual
        assert matplotlib.rcParams["font.size"] == 30


def test_a_tour_stays_small():
    noise = np.random.default_rng(0).integers(0, 256, (64, 200, 300, 3), dtype=np.uint8)
    large = [Image.fromarray(pixels) for pixels in noise]
    many = [Row(name=f"m{i}", numbers={}, made=large, neighbours=[(large[0], large[1], "")] * 100)
            for i in range(6)]
    assert len(tour(many, real=large)) < 16e6  # of noise, which nothing packs
    assert len(made("tour")) < 0.4e6
    charts = [plots.curve({f"line {i}": (range(100_000), np.sin(np.arange(100_000))) for i in range(6)}),
              plots.histogram(np.arange(10_000), np.arange(10_000)), plots.histogram([str(i) for i in range(999)], ["1"])]
    assert max(map(len, charts)) < 60_000


def test_small_pictures_are_kept_pixel_by_pixel_without_what_their_files_said():
    picture = DIGITS[0].copy()
    picture.info = {"comment": "at home", "exif": b"Exif\x00\x00secret"}
    source = Tree(Page("t").pictures([(picture, "a digit")]).html()).every("img")[0]
    raw = base64.b64decode(source["src"].split(",")[1])
    assert source["class"] == "sharp" and "pixelated" in STYLE
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(raw))), np.asarray(DIGITS[0]))
    assert b"home" not in raw and b"secret" not in raw


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "F", "I;16", "CMYK"])
@pytest.mark.parametrize("side", [8, 300])
def test_pictures_of_any_mode_are_shown(mode, side):
    picture = Image.new(mode, (side, side)) if mode == "I;16" else Image.new("L", (side, side), 99).convert(mode)
    source = Tree(Page("t").pictures([(picture, "one")]).html()).every("img")[0]["src"]
    shown = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))
    assert shown.width == min(side, 128)


def best_of(cells, better="lower", aside=()):
    text = Page("t").table([Column("model"), Column("x", better)], [[f"m{i}", c] for i, c in enumerate(cells)],
                           aside=aside).html()
    return [i for i, row in enumerate(text.split("<tr")[2:]) if 'class="best"' in row]


def test_the_best_is_marked_only_where_the_intervals_leave_no_doubt():
    apart = [Interval(1, 0.9, 1.1), Interval(2, 1.8, 2.2), Interval(5, 4, 6)]
    assert best_of(apart) == [0] and best_of(apart, "higher") == [2]
    assert best_of(apart, None) == []
    assert best_of([Interval(1, 0.5, 1.9), *apart[1:]]) == [], "they overlap"
    assert best_of([*apart, None, "none"]) == [0], "an empty cell does not compete"
    assert best_of([*apart, Interval(3)]) == [] == best_of([1.0, 2.0]), "a number alone proves nothing"
    assert best_of(apart, aside=[0]) == [1], "a baseline does not compete"
    assert best_of(apart[:1]) == [] and best_of([Interval(float("nan")), apart[0]]) == []
    assert best_of([apart[0], Noted(apart[1], "bound", bound=True)]) == [], "the truth behind a bound may be better"
    assert best_of([Noted(apart[0], "bound", bound=True), apart[1]]) == [0]


@pytest.mark.parametrize("cell,column,said", [
    (Interval(3.214, 3.102, 3.351), Column("x"), "3.21 3.10 to 3.35"),
    (Interval(3.214), Column("x"), "3.21"), (1234567, Column("x"), "1,234,567"), (0.000012345, Column("x"), "1.23e-05"),
    (Interval(0.1234, 0.1, 0.15), Column("x", unit="%"), "12.3 % 10.0 to 15.0 %"), (float("nan"), Column("x"), "not a number"),
    (float("inf"), Column("x"), "infinite"), (np.float32(0.5), Column("x"), "0.500"), (-0.0, Column("x"), "0"),
    (True, Column("x"), "yes"), (Noted(Interval(-0.001, -0.04, 0.04), "exact"), Column("x"), "-0.001 -0.040 to 0.040 exact"),
    (Interval(1e9, 0.9e9, 1.1e9), Column("x"), "1,000,000,000 900,000,000 to 1,100,000,000")])
def test_numbers_are_said_with_as_many_figures_as_they_are_worth(cell, column, said):
    tree = Tree(Page("t").table([Column("model"), column], [["row", cell]]).html())
    assert f"row {said} " in tree.said()


def test_a_row_of_the_wrong_length_is_refused():
    with pytest.raises(BadData, match="Row 2 of a table has 1 cells for 2 columns") as caught:
        Page("t").table([Column("a"), Column("b")], [["x", 1], ["y"]])
    assert caught.value.code == "PAGE_TABLE"


def model(name, bits, **more):
    return Row(name=name, numbers={"bits per dimension": Interval(*bits), **more.pop("numbers", {})}, **more)


def test_the_advice_is_no_stronger_than_the_intervals():
    good, fair, bad = model("good", (1, 0.9, 1.1)), model("fair", (2, 1.8, 2.3)), model("bad", (9, 8, 9.9))
    alike = model("alike", (1.05, 0.95, 1.2))
    assert advise([good, fair], [BITS])[0] == "Use good: no other model is surely better in 1 of 1 measure of quality."
    assert "Bits per dimension: good is surely the best." in advise([good, fair, bad], [BITS])
    assert "good and alike stand equal" in advise([good, alike], [BITS])[0]
    assert "Bits per dimension: good and alike cannot be told apart." in advise([good, alike], [BITS])
    assert "Bits per dimension: bad is surely worse than the best of the others." in advise([good, alike, bad], [BITS])
    assert advise([], [BITS]) == [] and "do not say which" in advise([good], [BITS])[0]


def test_the_advice_breaks_ties_by_cost_and_leaves_copiers_out():
    train = Column("train", unit="s", cost=True)
    quick, slow = (model(n, (1, 0.9, 1.1), numbers={"train": s}) for n, s in (("quick", 2.0), ("slow", 9.0)))
    assert "Use quick, which has the lowest train of these: 2.00 s." in advise([slow, quick], [BITS, train])[0]
    copier = model("copier", (0.1, 0.09, 0.11), flagged=True)
    told = advise([copier, quick, model("fair", (2, 1.8, 2.3))], [BITS])
    assert told[0].startswith("Use quick") and "copying or remembering records learned from: copier." in told[1]
    assert "None of these models should be used" in advise([copier], [BITS])[-1]
    floor = Row(name="one Gaussian", baseline=True, floor=True, numbers={"bits per dimension": Interval(1.05, 0.95, 1.2)})
    assert advise([quick, slow, floor], [BITS])[1].startswith("quick and slow are not surely better than the baseline")
    assert advise([quick, slow, floor], [BITS])[1].endswith("'one Gaussian' in anything measured.")
    bound = Row(name="one Gaussian", baseline=True, floor=True,
                numbers={"bits per dimension": Noted(Interval(5.0, 4.9, 5.1), "bound", bound=True)})
    assert advise([quick, slow, bound], [BITS])[1].endswith("measured, whose bounds are taken for what they may be at best.")
    assert "one Gaussian" not in " ".join(advise([copier, quick, slow], [BITS]))


def test_empty_parts_are_left_out():
    table = tour([Row(name="gmm", numbers={"bits per dimension": Interval(1, 0.9, 1.1)})])
    tree = Tree(table)
    assert not tree.every("img") and not tree.every("svg") and not tree.every("figure")
    assert {"Samples", "Learning", "Protocol", "Provenance", "Nearest neighbours"}.isdisjoint(tree.words)
    assert "coverage" not in tree.said() and "None" not in tree.said()
    assert Tree(evaluation(Report())).every("h2")


def test_an_evaluation_says_the_numbers_the_protocol_and_what_they_mean():
    said = Tree(evaluation(report())).said()
    assert "distance 3.21 3.10 to 3.35 lower below 0.001" in said
    assert "How far it is. It misses: copies." in said and "distance: Few records." in said
    assert "Warning. Three records are in both." in said
    assert "features pixels 0123" in said and "one.seed 0" in said and "other.seed 3" in said and "one.settings.k 5" in said
    assert "one.features" not in said, "what is common is said once"


def test_a_report_read_from_json_gives_the_same_numbers():
    import json
    plain = json.loads(json.dumps(report().plain()))
    plain["measured"].append({"name": "unfinished", "value": None})
    said = Tree(evaluation(plain)).said()
    assert "unfinished not a number" in said and "distance 3.21 3.10 to 3.35" in said
    assert "other.seed 3" in said and "Three records are in both." in said


def test_texts_are_shown_as_they_are_and_cut_where_they_are_long():
    text = Tree(tour([Row(name="gpt", numbers={}, made=["one\n  two\t<b>\u3000\u202e", "y" * 5000])]))
    pre = [w for w in text.words if "one" in w]
    assert pre == ["one\n  two <b> \\u202e"] and "1,000 more characters" in text.said()


def test_curves_of_a_journal_begin_anew_where_the_run_did():
    events = [{"event": "progress", "samples": s, "loss": loss} for s, loss in ((10, 3.0), (20, 2.0), (30, None), (10, 2.5))]
    assert curves_of([*events, {"event": "saved"}]) == {"loss": ([10.0], [2.5])}
    assert curves_of([{"event": "sweep", "sweep": 1, "objective": -2.0}]) == {"objective": ([1.0], [-2.0])}


def test_an_outlying_baseline_does_not_squeeze_the_models():
    models = [Interval(1, 0.9, 1.1), Interval(2, 1.9, 2.1)]
    far = plots.intervals(["a", "b", "noise"], [*models, Interval(900, 890, 910)], "x", {2})
    assert "1.5" in Tree(plots.intervals(["a", "b"], models, "x")).said()
    assert "900" in Tree(far).said() and "1.5" in Tree(far).said(), "its number at the edge, the axis still that of the models"


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    channels = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette,lines", [(0, plots.COLOURS), (1, DARK)])
def test_words_and_lines_stand_out_in_light_and_dark(palette, lines):
    found = dict(re.findall(r"--(\w+): (#\w{6})", re.findall(r":root \{([^}]*)\}", STYLE)[palette]))
    for paper in (found["paper"], found["soft"]):
        for ink in ("ink", "quiet", "link"):
            assert contrast(found[ink], paper) >= 4.5, f"{ink} on {paper}"
    assert min(contrast(found["alarm"], found["alarmed"]), contrast(found["ink"], found["alarmed"])) >= 4.5
    assert min(contrast(line, found["paper"]) for line in lines) >= 4.5 and len(set(lines)) == len(plots.COLOURS)


def test_without_matplotlib_the_way_out_is_said_and_words_need_none():
    code = ("import sys; sys.modules['matplotlib'] = None\n"
            "from verossim.pages import Page, plots\n"
            "from verossim.errors import MissingExtra\n"
            "assert '<h1>t</h1>' in Page('t').section('s', 'w').html()\n"
            "for chart in (plots.require, lambda: plots.curve({'a': ([1], [1])})):\n"
            "    try: chart()\n"
            "    except MissingExtra as error: print(error.code, error.hint)\n")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines() == ["EXTRA Install it with: pip install 'verossim[report]'."] * 2


def test_the_columns_of_a_tour_are_explained():
    assert all(column.help for column in COLUMNS) and len({c.name for c in COLUMNS}) == len(COLUMNS)
