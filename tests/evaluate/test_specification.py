"""Specifications: names, options, values by the types of what they make, and mistakes in one line."""

from __future__ import annotations

import re

import pytest

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.benchmarks import BENCHMARKS, benchmark
from mtadiffusion.evaluate.metrics import METRICS, metric_named
from mtadiffusion.evaluate.specification import split, typed


def make(
    count: int = 1,
    share: float = 0.5,
    exact: bool = True,
    area: tuple[float, float] = (0, 1),
    groups: tuple[str, ...] = (),
    label: str | None = None,
    limit: int | None = None,
) -> None:
    """Something with options of every type."""


def test_values_are_read_by_the_types_of_their_options():
    _, texts = split("x:count=3,share=2,exact=False,area=0.1,0.4,groups=a, b,label=12,limit=5", "--benchmark")
    assert typed(make, texts) == {
        "count": 3, "share": 2.0, "exact": False, "area": (0.1, 0.4), "groups": ("a", "b"), "label": "12",
        "limit": 5,
    }  # fmt: skip
    assert isinstance(typed(make, {"share": "2"})["share"], float)


def test_what_is_no_text_or_not_known_stays_as_it_is():
    given = {"count": "1.5", "area": (0, 2), "else": "3"}
    assert typed(make, {name: given[name] for name in ("area", "else")}) == {"area": (0, 2), "else": "3"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x:count", "--benchmark x must have its options as option=value, got 'count'"),
        ("x:,count=1", "--benchmark x must have its options as option=value"),
        ("x:=3", "--benchmark x must have its options as option=value"),
        ("x:count=", "x:count must have a value"),
        ("x:count=1,count=2", "--benchmark x has an option twice, got 'count'"),
        ("x:count=1.5", "count must be a whole number, got '1.5'"),
        ("x:count=1,2", "count must be a whole number, got '1,2'"),
        ("x:share=half", "share must be a number"),
        ("x:exact=maybe", "exact must be true or false"),
        ("x:area=1,b", "area must be a number, got 'b'"),
    ],
)
def test_a_mistake_names_the_option(text, message):
    with pytest.raises(UserError, match=re.escape(message)):
        typed(make, split(text, "--benchmark")[1])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("brushbench", {"groups": "1"}, "groups is unknown"),
        ("brushbench", {"allow_missing": "yes"}, "allow_missing must be true or false"),
        ("object-holes", {"area": "0.3"}, "area must be two rising shares"),
        ("object-holes", {"count": "many"}, "count must be a whole number"),
    ],
)
def test_a_benchmarks_options_as_texts_are_checked(tmp_path, name, options, message):
    with pytest.raises(UserError, match=message):
        benchmark(name, tmp_path, **options)


def test_a_metrics_options_as_texts_reach_its_recogniser():
    assert metric_named("hit", recogniser="clip", vocabulary="cat,dog").recogniser.vocabulary == (
        "cat",
        "dog",
    )
    with pytest.raises(UserError, match=r"^hit\.threshold must be a number"):
        metric_named("hit", threshold="high")


@pytest.mark.parametrize("name", METRICS)
def test_every_metrics_options_can_be_read(name):
    assert metric_named(name).definition.name == name


def test_every_benchmarks_options_can_be_read(tmp_path):
    for name in BENCHMARKS:
        assert benchmark(name, None if name == "stickerbench" else tmp_path).name == name
