"""docs/metrics.md says of every quantity what the shelf says of it."""

from pathlib import Path

from verossim.shelves import FEATURES, METRICS

PAGE = Path(__file__).parent.parent.parent / "docs" / "metrics.md"


def test_every_quantity_is_on_the_page_in_the_words_of_the_shelf():
    page = PAGE.read_text(encoding="utf-8")
    for name in METRICS.names():
        for q in METRICS.load(name).gives:
            assert f"| `{q.name}` | {name} | {q.better} | {q.means} | {q.misses} |" in page, q.name
    assert page.count("\n| `") == sum(len(METRICS.load(name).gives) for name in METRICS.names())


def test_features_that_the_page_names_are_on_the_shelf():
    page = PAGE.read_text(encoding="utf-8")
    assert {"classifier", "sentences"} <= set(FEATURES.names()) and "`classifier`" in page and "`sentences`" in page
