"""A report's files: tables that say what the summary says, plots, and the page in a browser."""

from __future__ import annotations

import csv
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtadiffusion.evaluate.metrics import metric_named
from mtadiffusion.evaluate.report import tables
from mtadiffusion.evaluate.report.gallery import given
from mtadiffusion.evaluate.report.published import Published
from mtadiffusion.evaluate.run import Plan, evaluate

from ...browser import opened
from ..small import Brightness, Change, EdgesSeen, Foreseeing, Noise, Squares

PUBLISHED = (
    Published(
        method="noise & co", group="inside", figures={"brightness": 12.5}, source="A paper", note="20 steps"
    ),
    Published(method="elsewhere", group="unknown", figures={"brightness": 1.0}, source="A paper"),
    Published(method="other metric", group="inside", figures={"hps": 1.0}, source="A paper"),
)


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """A finished evaluation of two methods, one of which fails on an item."""
    folder = tmp_path_factory.mktemp("report") / "out"
    methods = [Noise(fails_on="a <b>thing</b> 2"), Noise(name="<i>dark</i> 50%", level=20, spread=60)]
    plan = Plan(benchmark=Squares(), methods=methods, metrics=[Brightness(), Change()], published=PUBLISHED)
    evaluate(plan, folder)
    return folder


@pytest.fixture(scope="module")
def summary(out) -> dict:
    return json.loads((out / "summary.json").read_text())


def test_the_csv_holds_the_figures_of_the_summary(out, summary):
    with (out / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 2
    for row, figure in zip(rows, summary["figures"], strict=True):
        assert {key: str(figure[key]) for key in row} == row
    with (out / "differences.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(summary["differences"]) == 3 * 2


def test_markdown_tables_are_whole_and_mark_what_is_published(out, summary):
    text = (out / "summary.md").read_text()
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    inside = text.split("## Inside")[1].split("##")[0]
    assert "| *noise & co (published)* | 12.50 | – |" in inside
    assert "other metric" not in text
    assert "elsewhere" not in text
    assert "**" not in next(line for line in inside.splitlines() if "published" in line)
    assert "noise: 1 of 6 items failed." in text
    assert "- A paper (20 steps)" in text


def test_the_best_is_bold_by_the_metrics_direction(out):
    overall = (out / "summary.md").read_text().split("## Overall")[1].split("##")[0]
    noise, dark = (line for line in overall.splitlines() if re.match(r"\| (noise|<i>)", line))
    assert noise.split("|")[2].strip().startswith("**")
    assert not dark.split("|")[2].strip().startswith("**")


def test_latex_escapes_names_and_rules_off_the_published(out):
    text = (out / "summary.tex").read_text()
    assert r"<i>dark</i> 50\%" in text
    assert r"\textit{noise \& co (published)}" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 3
    body = re.sub(r"\\.|%.*", "", text)
    assert body.count("{") == body.count("}")


def test_the_summary_says_where_figures_come_from(summary):
    method = summary["methods"][0]
    assert method["identity"] == {"name": "noise", "kind": "noise", "level": 100}
    assert method["versions"]["torch"]
    assert summary["scorers"]["brightness"]["identity"] == {"version": "1"}
    assert summary["settings"]["steps"] == 3
    assert summary["changed"] == {}
    assert summary["metrics"]["change"]["bounds"] == [0, None]


def test_plots_are_whole_files_that_the_page_names(out):
    page, metrics = (out / "index.html").read_text(), ("brightness", "change")
    plots = sorted((out / "plots").iterdir())
    names = {path.stem for path in plots}
    assert names == {f"{kind}-{of}" for kind in ("spread", "hole-size") for of in metrics} | {"wins-0"}
    for plot in plots:
        assert ET.parse(plot).getroot().tag.endswith("svg")
        assert f'src="plots/{plot.name}"' in page


def test_known_pixels_left_alone_are_said_in_words_and_not_plotted(tmp_path):
    methods = [Noise(), Noise(name="dark", level=20)]
    metrics = [metric_named(name) for name in ("psnr", "mse_brushnet", "colour_distance")]
    plan = Plan(benchmark=Squares(), methods=methods, metrics=metrics)
    summary = evaluate(plan, tmp_path)
    overall = (tmp_path / "summary.md").read_text().split("## Overall")[1].split("##")[0]
    assert re.search(r"^\| noise \| equal \| equal \| .*±", overall, re.MULTILINE)
    assert tables.EQUAL in (tmp_path / "summary.md").read_text()
    assert "noise & equal & equal & " in (tmp_path / "summary.tex").read_text()
    assert "every known pixel is as it was" in (tmp_path / "index.html").read_text()
    assert summary["figures"][0]["mean"] == 100
    names = {path.stem for path in (tmp_path / "plots").iterdir()}
    assert names == {"spread-colour_distance", "hole-size-colour_distance", "wins-0"}


def test_a_changed_pixel_is_a_figure_again():
    metric = {"equal": 100.0, "scale": 1.0}
    figure = {"mean": 100.0, "low": 100.0, "high": 100.0, "n": 3}
    assert tables._cell(figure, None, metric).text == "equal"
    assert tables._cell({**figure, "mean": 99.0, "low": 97.0}, None, metric).text == "99.00"
    assert tables._cell(figure, None, {"equal": None, "scale": 1.0}).text == "100.00"


def test_a_metric_that_one_method_alone_has_is_plotted_for_it(tmp_path):
    plan = Plan(benchmark=Squares(), methods=[Noise(), Foreseeing()], metrics=[EdgesSeen(), Change()])
    evaluate(plan, tmp_path)
    names = {path.stem for path in (tmp_path / "plots").iterdir()}
    assert {"spread-edges_seen", "hole-size-edges_seen", "wins-0"} <= names
    assert "Edges" not in (tmp_path / "plots" / "wins-0.svg").read_text()
    assert "Edges" not in (tmp_path / "summary.md").read_text().split("## Differences")[1]


def test_the_given_picture_is_the_original_but_for_stripes_in_the_hole():
    picture = np.full((48, 48, 3), 7, dtype=np.uint8)
    hole = np.zeros((48, 48), dtype=bool)
    hole[10:30, 5:40] = True
    shown = given(picture, hole)
    assert (shown[~hole] == 7).all()
    assert set(np.unique(shown[hole])) == {200, 236}


def test_every_picture_of_the_page_is_a_file_and_is_shown(out):
    with opened(out / "index.html") as page:
        page.locator("#gallery").scroll_into_view_if_needed()
        sources = page.eval_on_selector_all(
            "article img", "images => images.map(one => one.getAttribute('src'))"
        )
        assert len(sources) == 6 * 2 + 11
        for source in sources:
            with Image.open(out / source) as picture:
                assert picture.size == (24, 24)
        page.wait_for_function("document.querySelector('article img').naturalWidth === 24")
        assert "failed: RuntimeError: cannot draw this" in page.locator(".missing").text_content()
        assert page.locator("article h3").first.text_content() == "“a <b>thing</b> 0”"


def order(page) -> list[str]:
    return page.eval_on_selector_all("article:not([hidden])", "all => all.map(one => one.id)")


def test_sorting_works_from_the_keyboard_and_puts_failures_last(out):
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    scores = {row["item"]: row["scores"].get("change") for row in rows if row["method"] == "noise"}
    done = sorted((item for item in scores if scores[item] is not None), key=lambda item: scores[item])
    with opened(out / "index.html") as page:
        page.locator("#metric").focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        assert page.input_value("#metric") == "change"
        assert order(page) == [f"item-{item}" for item in [*done, "item-2"]]
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowDown")
        assert order(page) == [f"item-{item}" for item in [*reversed(done), "item-2"]]
        first = page.locator("article").first.locator(".chosen").first.text_content()
        assert first == f"Change {scores[done[-1]]:.2f}"


def test_differences_groups_and_failures_can_be_chosen(out):
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    found = {(row["method"], row["item"]): row["scores"].get("brightness") for row in rows}
    items = [item for method, item in found if method == "noise" and found[method, item] is not None]
    gaps = {item: found["noise", item] - found["<i>dark</i> 50%", item] for item in items}
    expected = sorted(items, key=lambda item: -gaps[item])
    with opened(out / "index.html") as page:
        page.select_option("#metric", "brightness")
        page.select_option("#method", "0-1")
        assert order(page)[:-1] == [f"item-{item}" for item in expected]
        page.select_option("#group", "outside")
        assert set(order(page)) == {"item-item-1", "item-item-3", "item-item-5"}
        page.select_option("#group", "")
        page.check("#failed")
        assert order(page) == ["item-item-2"]
        assert page.locator("#shown").inner_text() == "1 shown"


def test_a_picture_of_the_benchmark_that_cannot_be_read_is_said_on_the_page(tmp_path):
    class Torn(Squares):
        def picture(self, item):
            if item.item_id == "item-2":
                raise OSError("the file is torn")
            return super().picture(item)

    summary = evaluate(Plan(benchmark=Torn(), methods=[Noise()], metrics=[Change()]), tmp_path)
    assert [one["error"] for one in summary["failed"]] == ["the benchmark's files: OSError: the file is torn"]
    with opened(tmp_path / "index.html") as page:
        missing = page.locator("#item-item-2 .missing").all_text_contents()
    assert missing == ["cannot be read", "cannot be read", f"failed: {summary['failed'][0]['error']}"]
    assert not list((tmp_path / "items").glob("item-2-*"))
