"""The summary: every figure of an evaluation in the tables' scaling, as plain data that JSON can hold.

It says nothing of time or place, so that a run that was killed and resumed has the same summary as an
undisturbed one, byte for byte.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from mtadiffusion.evaluate.metrics.metric import Definition
from mtadiffusion.evaluate.report.results import Outcome, Results, in_group
from mtadiffusion.evaluate.report.statistics import (
    LEVEL,
    RESAMPLES,
    SEED,
    Difference,
    Estimate,
    compared,
    estimate,
)

_DIGITS = 6


def summarise(results: Results) -> dict[str, Any]:
    """Figures, paired differences and failures.

    Returns:
        `counts`: items asked and drawn, a row a method and group; `figures`: a row a method, group and
        metric; `differences`: a row a pair of methods, group and metric; `failed`: items without a picture;
        `faults`: pictures without some score.
    """
    return {
        "interval": {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED, "method": "percentile bootstrap"},
        "metrics": {name: described(one) for name, one in results.metrics.items()},
        "counts": list(_counts(results)),
        "figures": list(_figures(results)),
        "differences": list(_differences(results)),
        "failed": [
            {"method": one.method, "item": one.item, "error": one.error}
            for one in results.outcomes
            if one.error
        ],
        "faults": [
            {"method": one.method, "item": one.item, "metric": metric, "error": error}
            for one in results.outcomes
            for metric, error in one.faults.items()
        ],
    }


def described(definition: Definition) -> dict[str, Any]:
    """A metric's definition, JSON-ready: an infinite bound is None."""
    bounds = [bound if math.isfinite(bound) else None for bound in definition.bounds]
    return {**asdict(definition), "bounds": bounds}


def defined(values: Mapping[str, Any]) -> Definition:
    """The inverse of `described`."""
    low, high = values["bounds"]
    bounds = (-math.inf if low is None else low, math.inf if high is None else high)
    return Definition(**{**values, "bounds": bounds})


def scores_by_item(outcomes: Iterable[Outcome], metric: str) -> dict[str, float]:
    """Item -> score, where there is one."""
    found = ((one.item, one.scores.get(metric)) for one in outcomes)
    return {item: score for item, score in found if score is not None}


def scaled(figure: Estimate, scale: float, name: str = "mean") -> dict[str, Any]:
    """An estimate as a table shows it."""
    ends = {name: figure.mean, "low": figure.low, "high": figure.high}
    return {"n": figure.n, **{key: rounded(value, scale) for key, value in ends.items()}}


def rounded(value: float | None, scale: float = 1.0) -> float | None:
    """Scaled, to as many decimals as anyone could want."""
    return None if value is None else round(value * scale, _DIGITS)


def difference_row(difference: Difference, definition: Definition) -> dict[str, Any]:
    """A paired difference as a table shows it, and the share of wins with its interval."""
    wins = difference.wins
    return {
        **scaled(difference.difference, definition.scale, "difference"),
        "wins": rounded(wins.mean),
        "wins_low": rounded(wins.low),
        "wins_high": rounded(wins.high),
    }


def _counts(results: Results) -> Iterator[dict[str, Any]]:
    for group in results.groups:
        for method in results.methods:
            outcomes = in_group(results.of(method), group)
            drawn = sum(one.error is None for one in outcomes)
            yield {"method": method, "group": group, "items": len(outcomes), "drawn": drawn}


def _figures(results: Results) -> Iterator[dict[str, Any]]:
    for group in results.groups:
        for method in results.methods:
            outcomes = in_group(results.of(method), group)
            for name, definition in results.metrics.items():
                scores = list(scores_by_item(outcomes, name).values())
                figure = estimate(scores, f"{group}/{name}")
                row = scaled(figure, definition.scale)
                yield {"method": method, "group": group, "metric": name, "items": len(outcomes), **row}


def _differences(results: Results) -> Iterator[dict[str, Any]]:
    for group in results.groups:
        for first, second in combinations(results.methods, 2):
            pair = [in_group(results.of(method), group) for method in (first, second)]
            for name, row in _pair_rows(pair, results.metrics, group):
                yield {"method": first, "against": second, "group": group, "metric": name, **row}


def _pair_rows(
    pair: Sequence[Sequence[Outcome]], metrics: Mapping[str, Definition], group: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, definition in metrics.items():
        first, second = (scores_by_item(outcomes, name) for outcomes in pair)
        yield name, difference_row(compared(first, second, definition.better, f"{group}/{name}"), definition)
