"""Means with intervals: bootstrap over items, paired where two methods are compared on the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mtadiffusion.seeding import numpy_generator

LEVEL = 0.95
RESAMPLES = 2000
SEED = 0
_AT_ONCE = 100
"""Resamples in memory at the same time."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over items."""

    n: int
    """Items."""

    mean: float | None
    """None where there are no items."""

    low: float | None
    """Lower end of the 95 % interval; None with fewer than two items."""

    high: float | None
    """Upper end."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A method against another on their common items."""

    difference: Estimate
    """Of the first's scores less the second's."""

    wins: Estimate
    """Share of items where the first is better; a tie counts half."""


def estimate(values: Sequence[float], stream: str) -> Estimate:
    """The mean and its percentile bootstrap interval (Efron 1979).

    Args:
        values: one an item.
        stream: names the resamples, so that an interval depends on nothing else that is computed.
    """
    if len(values) < 2:
        return Estimate(n=len(values), mean=values[0] if values else None, low=None, high=None)
    from scipy.stats import bootstrap

    array = np.asarray(values, dtype=np.float64)
    found = bootstrap(
        (array,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=_AT_ONCE,
        confidence_level=LEVEL,
        method="percentile",
        rng=numpy_generator(SEED, f"evaluate/bootstrap/{stream}"),
    ).confidence_interval
    return Estimate(n=len(values), mean=float(array.mean()), low=float(found.low), high=float(found.high))


def compared(
    first: Mapping[str, float],
    second: Mapping[str, float],
    better: Literal["higher", "lower"],
    stream: str,
) -> Difference:
    """Paired: item by item, over the items that both have (item -> score)."""
    common = [item for item in first if item in second]
    gaps = [first[item] - second[item] for item in common]
    sign = 1 if better == "higher" else -1
    wins = [0.5 + 0.5 * float(np.sign(sign * gap)) for gap in gaps]
    return Difference(
        difference=estimate(gaps, f"{stream}/difference"), wins=estimate(wins, f"{stream}/wins")
    )
