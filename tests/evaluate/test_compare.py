"""Comparing finished evaluations: what they have in common, and what they have not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.compare import compare
from mtadiffusion.evaluate.run import Plan, evaluate

from .small import Brightness, Change, Noise, Squares


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch):
    monkeypatch.setattr("mtadiffusion.evaluate.report.write.write_plots", lambda results, out: [])


def run(out: Path, **fields) -> Path:
    given = {"benchmark": Squares(), "methods": [Noise()], "metrics": [Brightness(), Change()], **fields}
    evaluate(Plan(**given), out)
    return out


def test_runs_are_paired_over_the_items_that_both_have(tmp_path):
    first = run(tmp_path / "first", benchmark=Squares(count=5), methods=[Noise(level=60)])
    second = run(tmp_path / "second", limit=4, metrics=[Brightness()])
    found = compare(first, second)
    assert (found["common"], found["only_first"], found["only_second"], found["different"]) == (4, 1, 0, 0)
    assert found["left_out"] == {"change": "only in one of them"}
    (overall,) = [row for row in found["differences"] if row["group"] == "overall"]
    assert overall["difference"] == pytest.approx(-400)
    assert (overall["method"], overall["against"]) == ("first: noise", "second: noise")
    assert overall["wins"] == 0
    assert overall["n"] == 4


def test_items_of_one_name_but_another_picture_are_not_compared(tmp_path):
    class Other(Squares):
        def picture(self, item):
            shown = super().picture(item)
            return shown if item.item_id in ("item-0", "item-1") else np.zeros_like(shown)

    found = compare(run(tmp_path / "first"), run(tmp_path / "second", benchmark=Other(version="2")))
    assert (found["common"], found["different"]) == (2, 4)


def test_metrics_of_other_weights_are_left_out(tmp_path):
    found = compare(
        run(tmp_path / "first"), run(tmp_path / "second", metrics=[Brightness(version="2"), Change()])
    )
    assert found["left_out"] == {"brightness": "of other weights or options"}
    assert list(found["metrics"]) == ["change"]


def test_other_benchmarks_and_unfinished_runs_are_refused(tmp_path):
    first = run(tmp_path / "first")
    with pytest.raises(UserError, match=r"^--compare must name evaluations on one benchmark, got 'squ"):
        compare(first, run(tmp_path / "second", benchmark=Squares(name="circles")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"^--compare must name finished evaluations"):
        compare(first, tmp_path / "empty")
    (tmp_path / "second" / "summary.json").unlink()
    with pytest.raises(UserError, match=r"^--compare must name folders with a summary.json"):
        compare(first, tmp_path / "second")
