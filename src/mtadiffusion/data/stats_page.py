"""A dataset's figures as a page of bar charts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from mtadiffusion.data.files import whole_file
from mtadiffusion.data.stats import Stats
from mtadiffusion.data.tables import KEPT, SKIPPED
from mtadiffusion.pages import page

_LABELS = 40
_BINS = 12


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A row of a chart."""

    name: str
    """What is counted."""

    count: int
    """How many."""

    width: float
    """Of the bar, in per cent of the longest."""

    kind: str = ""
    """`kept`, `rejected`, or neither."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Counts of one thing."""

    title: str
    """What it is about."""

    note: str
    """How many in all, or on average."""

    bars: tuple[Bar, ...]
    """In the order shown."""


def write_stats_page(stats: Stats, source: str, out: Path) -> None:
    """Write a page of a dataset's figures; everything is in the one file."""
    text = page("stats.html", facts=f"Made of {source}", charts=charts(stats))
    with whole_file(out) as file:
        file.write(text.encode())


def charts(stats: Stats) -> list[Chart]:
    """A chart of each figure that there is something of."""
    outcomes = {"images": stats.images} | stats.objects
    found = [_outcomes(name, counts) for name, counts in outcomes.items()]
    per_image = [(str(objects), images) for objects, images in sorted(stats.objects_per_image.items())]
    found.append(_counts("Objects an image", per_image, "images with so many objects"))
    note = f"{len(stats.labels)} in all, the most frequent first"
    found.append(_counts("Labels", stats.labels.most_common(_LABELS), note))
    found.append(_histogram("Words a description", stats.words))
    found.append(_histogram("Area of a mask, share of its image", stats.areas))
    found.append(_histogram("Likeness of description and crop, cosine", stats.similarities))
    return [chart for chart in found if chart.bars]


def _outcomes(name: str, counts: Counter[str]) -> Chart:
    kept, total = counts[KEPT], sum(counts.values())
    kinds = {KEPT: "kept", SKIPPED: ""}
    return Chart(
        title=name.capitalize(),
        note=f"{kept} of {total} kept",
        bars=_bars(counts.most_common(), {reason: kinds.get(reason, "rejected") for reason in counts}),
    )


def _counts(title: str, counts: Iterable[tuple[str, int]], note: str) -> Chart:
    return Chart(title=title, note=note, bars=_bars(counts))


def _histogram(title: str, values: Sequence[float]) -> Chart:
    if not values:
        return Chart(title=title, note="", bars=())
    whole = all(isinstance(value, int) for value in values)
    counts, edges = np.histogram(values, _edges(min(values), max(values), whole))
    names = [_interval(low, high, whole) for low, high in pairwise(edges.tolist())]
    note = f"mean {np.mean(values):.3g}, median {np.median(values):.3g}"
    return Chart(title=title, note=note, bars=_bars(zip(names, counts.tolist(), strict=True)))


def _edges(low: float, high: float, whole: bool) -> np.ndarray:
    """At most `_BINS` intervals that hold all values; whole numbers are not divided."""
    if whole:
        return np.unique(np.ceil(np.linspace(low, high + 1, _BINS + 1)))
    return np.linspace(low, high, _BINS + 1) if low < high else np.array([low, high])


def _interval(low: float, high: float, whole: bool) -> str:
    if whole:
        return f"{low:.0f}" if high - low <= 1 else f"{low:.0f} to {high - 1:.0f}"
    return f"{low:.3f} to {high:.3f}"


def _bars(counts: Iterable[tuple[str, int]], kinds: Mapping[str, str] | None = None) -> tuple[Bar, ...]:
    rows, kinds = list(counts), kinds or {}
    longest = max((count for _, count in rows), default=0) or 1
    return tuple(
        Bar(name=name, count=count, width=round(100 * count / longest, 2), kind=kinds.get(name, ""))
        for name, count in rows
    )
