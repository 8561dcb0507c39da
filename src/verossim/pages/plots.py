"""Charts as small inline SVG, drawn by matplotlib: learning curves, intervals side by side, calibration, histograms, ROC.

Each function returns one <svg> element to stand in a page. Its ink is currentColor, its other colours are the variables --c0
to --c7 and --paper, so that it follows the light or dark of the page around it; its words are text, not paths. The same
values give the same bytes. Where matplotlib is not installed, each raises MissingExtra EXTRA.
"""

import hashlib
import io
import math
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import MissingExtra, printable
from ..intervals import Interval

__all__ = ["COLOURS", "curve", "histogram", "intervals", "reliability", "require", "roc"]

INK, PAPER = "#010203", "#fdfeff"  # stand for the page's own until the chart is written
COLOURS = ("#0b62a8", "#b0450c", "#0b7459", "#8536a6", "#a3264d", "#5c6700", "#006b82", "#6b4f2a")  #: on light paper
VARIABLES = {INK: "currentColor", PAPER: "var(--paper, #fff)", **{c: f"var(--c{i}, {c})" for i, c in enumerate(COLOURS)}}
DASHES = ("-", "--", "-.", ":")
WIDTH, HEIGHT = 4.4, 2.9  # inches of 72 to a line: a chart is about as wide as a phone
POINTS = 300  # of a line, at most
BARS = 20  # categories of a histogram, at most
FONT = "font-family: system-ui, sans-serif"
SETTINGS: dict[Any, Any] = {
            "svg.fonttype": "none", "svg.hashsalt": "verossim", "text.parse_math": False, "font.size": 10,
            "font.family": ["DejaVu Sans"], "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK,
            "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.titlelocation": "left",
            "axes.titlesize": 10, "legend.frameon": False, "legend.fontsize": 9, "axes.unicode_minus": False}

Line = tuple[Sequence[float], Sequence[float]]


def require() -> None:
    """Raises MissingExtra EXTRA where matplotlib is not installed: to be asked before long work whose end is a page."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtra("EXTRA", "The charts of a page need the package 'matplotlib'.",
                           "Install it with: pip install 'verossim[report]'.") from error


def curve(series: Mapping[str, Line], x: str = "records seen", y: str = "loss", log: str = "") -> str:
    """Lines by name, each (xs, ys); points that are not finite are left out. log: axes on a log scale, "x", "y" or "xy"."""
    lines = {name: _finite(*line, log) for name, line in series.items()}

    def draw(ax: Any) -> None:
        for i, (name, (xs, ys)) in enumerate(lines.items()):
            marker = "o" if len(xs) == 1 else ""
            ax.plot(xs, ys, color=_colour(i), linestyle=_dash(i), marker=marker, markersize=4, label=_name(name))
        _scale(ax, "x", "x" in log, [xs for xs, _ in lines.values()])
        _scale(ax, "y", "y" in log, [ys for _, ys in lines.values()])
        _said(ax, x, y, legend=len(lines) > 1)
    return _svg(draw, HEIGHT + (0.17 * math.ceil(len(lines) / 2) if len(lines) > 1 else 0))


def intervals(names: Sequence[str], values: Sequence[Interval], unit: str = "", aside: Collection[int] = ()) -> str:
    """A dot a row with the whiskers of its interval, the first on top; rows whose number is in `aside` have a hollow dot. The
    axis is that of the others: what lies far outside is an arrow at the edge with its number."""
    rows = [(i, n, v) for i, (n, v) in enumerate(zip(names, values, strict=True)) if math.isfinite(v.value)]
    low, high = _reach([v for i, _, v in rows if i not in aside] or [v for *_, v in rows], [v for *_, v in rows])

    def draw(ax: Any) -> None:
        for place, (i, _, value) in enumerate(rows):
            at, face = value.value, PAPER if i in aside else _colour(0)
            if not low <= at <= high:
                left = at < low
                ax.plot([low if left else high], [place], marker="<" if left else ">", markersize=6, color=_colour(0),
                        markerfacecolor=face, clip_on=False)
                ax.annotate(_tick(at), (low if left else high, place), (8 if left else -8, 0), textcoords="offset points",
                            va="center", ha="left" if left else "right", fontsize=9)
                continue
            ax.plot(_whiskers(value), [place, place], color=_colour(0), linewidth=2, solid_capstyle="butt")
            ax.plot([at], [place], marker="o", markersize=6, color=_colour(0), markerfacecolor=face)
        ax.set_yticks(range(len(rows)), [_name(name) for _, name, _ in rows])
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_xlim(low, high)
        ax.tick_params(axis="y", length=0, pad=8)
        ax.spines["left"].set_visible(False)
        _scale(ax, "x", False, [])
        _said(ax, unit, "", legend=False)
    return _svg(draw, 0.75 + 0.3 * max(len(rows), 1))


def _whiskers(value: Interval) -> list[float]:
    """The ends of an interval that can be drawn; its value twice where it has none."""
    ends = [value.low, value.high]
    return [e for e in ends if e is not None] if all(e is not None and math.isfinite(e) for e in ends) else [value.value] * 2


def _reach(own: Sequence[Interval], every: Sequence[Interval]) -> tuple[float, float]:
    """The ends of an axis over `own` intervals, and those of `every` that lie within twice their breadth beside them."""
    def over(values: Sequence[Interval]) -> tuple[float, float]:
        ends = [e for value in values for e in _whiskers(value)] or [0.0]
        return min(ends), max(ends)
    low, high = over(own)
    breadth = (high - low) or abs(high) or 1.0
    low, high = over([v for v in every if v in own or (v.value >= low - 2 * breadth and v.value <= high + 2 * breadth)])
    margin = 0.06 * ((high - low) or abs(high) or 1.0)
    return low - margin, high + margin


def reliability(points: Iterable[Sequence[float]], x: str = "probability said", y: str = "share that came true") -> str:
    """A curve of calibration: points (said, true) or (said, true, records), beside the line of one that is calibrated; the
    area of a dot grows with its records."""
    dots = np.array([[*p[:2], p[2] if len(p) > 2 else 1.0] for p in points], dtype=float).reshape(-1, 3)
    dots = dots[np.isfinite(dots).all(axis=1)]

    def draw(ax: Any) -> None:
        ax.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=":", label="calibrated")
        ax.plot(dots[:, 0], dots[:, 1], color=_colour(0), linewidth=1.5, label="the model")
        ax.scatter(dots[:, 0], dots[:, 1], s=12 + 60 * dots[:, 2] / max(dots[:, 2].max(initial=0.0), 1e-300), color=_colour(0))
        ax.set_xlim(-0.03, 1.03)
        ax.set_ylim(-0.03, 1.03)
        _said(ax, x, y, legend=True)
    return _svg(draw, HEIGHT + 0.17)


def histogram(real: Sequence[Any], made: Sequence[Any], x: str = "", bins: int = 30) -> str:
    """The shares of two sets of numbers in bins over both, or of categories where any is text: the most frequent, and the rest
    as one."""
    if any(isinstance(v, str) for v in (*real, *made)):
        return _categories(list(map(str, real)), list(map(str, made)), x)
    sides = [v[np.isfinite(v)] for v in (np.asarray(side, dtype=float).ravel() for side in (real, made))]
    both = np.concatenate(sides)
    edges = np.histogram_bin_edges(both, bins) if len(both) else np.linspace(0, 1, bins + 1)

    def draw(ax: Any) -> None:
        for i, (side, name) in enumerate(zip(sides, ("real", "made"), strict=True)):
            shares = np.histogram(side, edges)[0] / max(len(side), 1)
            ax.stairs(shares, edges, color=_colour(i), fill=i == 0, alpha=0.45 if i == 0 else 1.0, linewidth=1.6, label=name)
        _scale(ax, "x", False, [])
        _scale(ax, "y", False, [])
        _said(ax, x, "share of records", legend=True)
    return _svg(draw, HEIGHT + 0.17)


def _categories(real: list[str], made: list[str], x: str) -> str:
    """Horizontal bars, two a category: the most frequent of the real first, at most BARS of them and the rest."""
    counts = {name: real.count(name) for name in sorted({*real, *made})}
    order = sorted(counts, key=lambda name: -counts[name])
    shown = order if len(order) <= BARS else order[: BARS - 1]
    shares = [[side.count(name) / max(len(side), 1) for name in shown] for side in (real, made)]
    names = [_name(name) for name in shown]
    if len(shown) < len(order):
        names.append(f"{len(order) - len(shown)} others")
        shares = [[*side, max(0.0, 1 - sum(side))] for side in shares]

    def draw(ax: Any) -> None:
        at = np.arange(len(names))
        for i, (side, name) in enumerate(zip(shares, ("real", "made"), strict=True)):
            ax.barh(at + 0.2 * (2 * i - 1), side, 0.38, color=_colour(i), alpha=0.55 if i == 0 else 1.0, label=name)
        ax.set_yticks(at, names)
        ax.set_ylim(len(names) - 0.4, -0.6)
        _scale(ax, "x", False, [])
        _said(ax, f"{x}: share of records" if x else "share of records", "", legend=True)
    return _svg(draw, 1.0 + 0.32 * len(names))


def roc(lines: Mapping[str, Line], log: bool = False, x: str = "false positives", y: str = "true positives") -> str:
    """Curves by name, each (rates of false positives, rates of true positives), beside chance. log: both axes from 0.001, where
    few false positives are what matters (Carlini et al., arXiv:2112.03570)."""
    def draw(ax: Any) -> None:
        chance = np.geomspace(1e-3, 1, 3) if log else np.linspace(0, 1, 3)
        ax.plot(chance, chance, color=INK, linewidth=1, linestyle=":", label="chance")
        for i, (name, line) in enumerate(lines.items()):
            ax.plot(*_finite(*line, "xy" if log else ""), color=_colour(i), linestyle=_dash(i), label=_name(name))
        for which, limits in (("x", ax.set_xlim), ("y", ax.set_ylim)):
            _scale(ax, which, log, [chance])
            limits((1e-3, 1.05) if log else (-0.02, 1.02))
        _said(ax, x, y, legend=True)
    return _svg(draw, HEIGHT + 0.17 * math.ceil((len(lines) + 1) / 2))


def _colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def _dash(i: int) -> str:
    return DASHES[(i // 2) % len(DASHES)]


def _name(name: object) -> str:
    """A name from outside as it stands in a chart: one line, at most 28 characters."""
    return printable(name, 28)


def _finite(xs: Sequence[float], ys: Sequence[float], log: str) -> tuple[np.ndarray, np.ndarray]:
    """The points of a line that can be drawn, at most POINTS of them, the last included."""
    a, b = (np.array([math.nan if v is None else v for v in side], dtype=float) for side in (xs, ys))
    kept = np.isfinite(a) & np.isfinite(b) & ((a > 0) | ("x" not in log)) & ((b > 0) | ("y" not in log))
    a, b = a[kept], b[kept]
    if len(a) > POINTS:
        chosen = np.linspace(0, len(a) - 1, POINTS).round().astype(int)
        a, b = a[chosen], b[chosen]
    return a, b


def _tick(value: float, _: Any = None) -> str:
    """A number on an axis: 0.5, 2,500, 60k, 2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.4g}{letter}"
    return f"{value:,.4g}" if abs(value) >= 1000 else f"{value:.4g}"


def _scale(ax: Any, which: str, log: bool, values: Sequence[np.ndarray]) -> None:
    """Ticks of the axis "x" or "y" in plain figures; a log scale where asked, and where the values span enough to be read."""
    from matplotlib import ticker
    axis, scale = (ax.xaxis, ax.set_xscale) if which == "x" else (ax.yaxis, ax.set_yscale)
    flat = np.concatenate([np.asarray(v) for v in values]) if values else np.zeros(0)
    span = flat.max() / flat.min() if log and len(flat) and flat.min() > 0 else 1.0
    if span >= 3:
        scale("log")
        axis.set_major_locator(ticker.LogLocator(subs=(1.0,) if span > 100 else (1.0, 2.0, 5.0), numticks=6))
        axis.set_minor_locator(ticker.NullLocator())
    else:
        axis.set_major_locator(ticker.MaxNLocator(5))
    axis.set_major_formatter(ticker.FuncFormatter(_tick))


def _said(ax: Any, x: str, y: str, *, legend: bool) -> None:
    """What the axes are, and which line is whose: below, where it hides nothing."""
    ax.set_xlabel(printable(x, 60))
    ax.set_title(printable(y, 60))
    ax.grid(True, color=INK, alpha=0.14, linewidth=0.6)
    ax.set_axisbelow(True)
    if legend:
        ax.figure.legend(loc="outside lower left", ncols=2, handlelength=2.4)


def _svg(draw: Callable[[Any], None], height: float) -> str:
    """One chart as an <svg> element: nothing in it but what is drawn, in the colours of the page."""
    require()
    import matplotlib
    from matplotlib.figure import Figure
    out = io.StringIO()
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)  # the reader's fonts draw it
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        ax = figure.add_subplot()
        for patch in (figure.patch, ax.patch):
            patch.set_visible(False)
        draw(ax)
        figure.savefig(out, format="svg", metadata={"Date": None})
    return _inlined(out.getvalue())


def _inlined(text: str) -> str:
    """The <svg> element of a file: without prolog, metadata and names that nothing refers to; the others made its own. Only
    tags are rewritten, never the words between them."""
    text = text[text.index("<svg"):]
    text = re.sub(r"<metadata>.*?</metadata>|<style .*?</style>|<!--.*?-->", "", text, flags=re.S)
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text).groups()  # type: ignore[union-attr]
    used = set(re.findall(r'<[^>]*(?:url\(#|href="#)([\w.]+)', text))
    own = hashlib.sha256(text.encode()).hexdigest()[:6]

    def tag(found: re.Match[str]) -> str:
        said = re.sub(r" font-family: [^;\"]*;| transform=\"rotate\(-0 [^)]*\)\"", "", found[0]).replace("xlink:href", "href")
        said = re.sub(r"#[0-9a-f]{6}\b", lambda m: VARIABLES.get(m[0], m[0]), said)
        said = re.sub(r' id="([\w.]+)"', lambda m: f' id="{own}-{m[1]}"' if m[1] in used else "", said)
        return re.sub(r'(url\(#|href="#)', rf"\g<1>{own}-", said)
    text = re.sub(r"<[^>]*>", tag, text)
    text = re.sub(r"<svg[^>]*>", f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
                  f'style="stroke-linejoin: round; {FONT}">', text, count=1)
    text = re.sub(r"\s*\n\s*", " ", re.sub(r"<defs>\s*</defs>", "", text))
    return text.replace("> <", "><").strip() + "\n"
