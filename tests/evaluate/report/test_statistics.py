"""Intervals against a bootstrap of our own and against theory; paired comparisons and wins."""

from __future__ import annotations

import numpy as np
import pytest

from mtadiffusion.evaluate.report.statistics import compared, estimate


def test_an_interval_agrees_with_theory_and_with_a_bootstrap_written_out():
    values = np.random.default_rng(3).normal(5, 2, 400)
    found = estimate(values.tolist(), "x")
    assert found.mean == pytest.approx(values.mean())
    half = 1.96 * values.std(ddof=1) / 20
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=0.06)
    picks = np.random.default_rng(9).integers(0, 400, (4000, 400))
    expected = np.percentile(values[picks].mean(1), [2.5, 97.5])
    assert [found.low, found.high] == pytest.approx(expected.tolist(), abs=0.04)


def test_an_interval_depends_on_its_stream_alone():
    values = [1.0, 2.0, 4.0, 8.0]
    assert estimate(values, "a") == estimate(values, "a")
    assert estimate(values, "a") != estimate([1.0, 2.0, 4.0, 9.0], "a")


@pytest.mark.parametrize(("values", "mean"), [([], None), ([3.0], 3.0)])
def test_too_few_items_have_no_interval(values, mean):
    found = estimate(values, "x")
    assert (found.n, found.mean, found.low, found.high) == (len(values), mean, None, None)


def test_equal_values_have_an_interval_of_no_width():
    found = estimate([2.0] * 9, "x")
    assert (found.low, found.high) == (2.0, 2.0)


def test_a_paired_difference_is_sharper_than_its_parts():
    rng = np.random.default_rng(1)
    level = rng.normal(0, 10, 200)
    first = {str(n): float(v) + 1 for n, v in enumerate(level + rng.normal(0, 0.1, 200))}
    second = {str(n): float(v) for n, v in enumerate(level)}
    found = compared(first, second, "higher", "x").difference
    assert found.low > 0.9
    assert found.high < 1.1


@pytest.mark.parametrize(("better", "wins"), [("higher", (1 + 1 + 0.5) / 4), ("lower", (1 + 0.5) / 4)])
def test_wins_are_counted_over_common_items_and_ties_are_halved(better, wins):
    first = {"a": 2.0, "b": 3.0, "c": 1.0, "d": 0.0, "only": 9.0}
    second = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 5.0}
    found = compared(first, second, better, "x")
    assert found.wins.mean == wins
    assert found.difference.n == 4
    assert found.difference.mean == pytest.approx((1 + 2 + 0 - 5) / 4)
