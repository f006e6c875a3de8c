"""The page of bar charts of a dataset."""

from __future__ import annotations

from collections import Counter

from browser import opened
from hypothesis import given
from hypothesis import strategies as st

from mtadiffusion.data.stats import Stats
from mtadiffusion.data.stats_page import charts, write_stats_page
from mtadiffusion.data.tables import KEPT, SKIPPED


def stats():
    """Some of everything."""
    return Stats(
        images=Counter({KEPT: 8, "small": 4}),
        objects={"masks": Counter({KEPT: 9, SKIPPED: 2, "tiny mask": 1})},
        objects_per_image=Counter({0: 1, 1: 5, 2: 2}),
        labels=Counter({"cat": 6, "<b>dog</b>": 3}),
        words=[3, 3, 4, 11],
        areas=[0.1, 0.2, 0.6],
    )


def test_bars_are_as_long_as_their_counts(tmp_path):
    write_stats_page(stats(), "photos", tmp_path / "stats.html")
    with opened(tmp_path / "stats.html") as page:
        titles = page.locator("h2").all_inner_texts()
        assert titles[:4] == ["Images", "Masks", "Objects an image", "Labels"]
        kept, small = page.locator("article").first.locator(".bar").all()
        assert abs(kept.bounding_box()["width"] / small.bounding_box()["width"] - 2) < 0.05
        assert page.locator("th", has_text="<b>dog</b>").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_figure_that_nothing_is_known_of_has_no_chart():
    assert [chart.title for chart in charts(Stats(images=Counter({KEPT: 1})))] == ["Images"]


def test_intervals_of_whole_numbers_are_named_by_what_they_hold():
    (words,) = (chart for chart in charts(Stats(words=[3, 3, 4, 40])) if chart.title.startswith("Words"))
    assert words.bars[0].name == "3 to 6"
    assert words.bars[0].count == 3


@given(st.lists(st.floats(0, 1), min_size=1) | st.lists(st.integers(0, 400), min_size=1))
def test_every_value_falls_into_one_interval(values):
    (chart,) = (chart for chart in charts(Stats(words=values)) if chart.title.startswith("Words"))
    assert sum(bar.count for bar in chart.bars) == len(values)
