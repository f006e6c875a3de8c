"""Plots of an evaluation as SVG: how each metric is spread, who wins how often, and what large holes do."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtadiffusion.data.files import whole_file
from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.metrics.metric import Definition
from mtadiffusion.evaluate.report.results import Results
from mtadiffusion.evaluate.report.statistics import Estimate, compared, estimate
from mtadiffusion.evaluate.report.summary import scores_by_item
from mtadiffusion.evaluate.report.tables import ARROWS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLDER = "plots"
_COLOURS = ("#0a6b5d", "#c2571a", "#3f6fb5", "#a4408f", "#8a7a1c", "#5b5b66", "#2a9d8f", "#9b2226")
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "mtadiffusion",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9a9aa2",
    "xtick.color": "#63636b",
    "ytick.color": "#1d1d1f",
}
_WIDTH = 5.4
_FEWEST = 5
"""Different values that a curve of their density needs."""
_BINS = 6


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot that was written."""

    kind: str
    """`spread`, `wins` or `hole-size`."""

    title: str
    """What it shows."""

    file: str
    """Relative to the evaluation's folder."""


def check_plotting() -> None:
    """Whether plots can be drawn here.

    Raises:
        UserError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        remedy = "pip install 'mtadiffusion[evaluate]'"
        raise UserError("mta evaluate", "needs the package matplotlib for its plots", remedy=remedy)


def write_plots(results: Results, out: Path) -> list[Plot]:
    """All plots, each a file of its own in `out/plots`."""
    import matplotlib

    plots = []
    with matplotlib.rc_context(_STYLE):
        for name, definition in results.metrics.items():
            if _differ(results, name, definition):
                title = f"{definition.title} {ARROWS[definition.better]}"
                plots += [
                    _write(_spread(results, name, definition), "spread", title, name, out),
                    _write(_by_hole(results, name, definition), "hole-size", title, name, out),
                ]
        for number, pair in enumerate(combinations(results.methods, 2)):
            title = f"{pair[0]} against {pair[1]}"
            plots.append(_write(_wins(results, *pair), "wins", title, str(number), out))
    return plots


def _differ(results: Results, name: str, definition: Definition) -> bool:
    """Whether there is anything to be seen: some score, and not only that of known pixels left alone."""
    scores = {score for method in results.methods for score in _scores(results, method, name).values()}
    return bool(scores - {definition.equal})


def _scores(results: Results, method: str, name: str) -> dict[str, float]:
    return scores_by_item(results.of(method), name)


def _write(figure: Figure, kind: str, title: str, name: str, out: Path) -> Plot:
    file = f"{FOLDER}/{kind}-{name}.svg"
    with whole_file(out / file) as handle:
        figure.savefig(handle, format="svg", dpi=200, metadata={"Date": None})
    return Plot(kind=kind, title=title, file=file)


def _figure(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _spread(results: Results, name: str, definition: Definition) -> Figure:
    """A violin a method that has scores, with its mean and the mean's interval."""
    colours = dict(zip(results.methods, _colours(results.methods), strict=True))
    methods = [method for method in results.methods if _scores(results, method, name)]
    figure, axes = _figure(0.9 + 0.62 * len(methods))
    places = range(len(methods), 0, -1)
    for place, method in zip(places, methods, strict=True):
        colour = colours[method]
        scores = [score * definition.scale for score in _scores(results, method, name).values()]
        if len(set(scores)) >= _FEWEST:
            _violin(axes, scores, place, colour)
        _mark(axes, estimate(scores, f"overall/{name}"), place, colour)
    axes.set_yticks(list(places), methods)
    axes.set_ylim(0.4, len(methods) + 0.6)
    axes.set_title(_title(definition))
    return figure


def _violin(axes: Axes, scores: Sequence[float], place: float, colour: str) -> None:
    parts: Any = axes.violinplot(scores, [place], orientation="horizontal", widths=0.8, showextrema=False)
    parts["bodies"][0].set(facecolor=colour, alpha=0.25)


def _by_hole(results: Results, name: str, definition: Definition) -> Figure:
    """Scores against the hole's share of the picture, and their means over equally full bins."""
    figure, axes = _figure(3.1)
    shares = {one.item: 100 * one.hole_share for one in results.outcomes}
    for method, colour in zip(results.methods, _colours(results.methods), strict=True):
        scores = _scores(results, method, name)
        if not scores:
            continue
        xs = np.array([shares[item] for item in scores])
        ys = np.array([score * definition.scale for score in scores.values()])
        if len(set(ys.tolist())) >= _FEWEST:
            axes.scatter(xs, ys, s=11, color=colour, alpha=0.35, linewidths=0, rasterized=True)
        axes.plot(*_binned(xs, ys), color=colour, marker="o", markersize=4, linewidth=1.8, label=method)
    axes.set_xlabel("hole, % of the picture")
    axes.set_title(_title(definition))
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
    return figure


def _wins(results: Results, first: str, second: str) -> Figure:
    """For each metric that both have, the share of items on which the first is better, ties halved."""
    wins = {}
    for name, definition in results.metrics.items():
        mine, theirs = (_scores(results, method, name) for method in (first, second))
        if mine.keys() & theirs.keys():
            wins[definition.title] = compared(mine, theirs, definition.better, f"overall/{name}").wins
    figure, axes = _figure(0.9 + 0.36 * len(wins))
    axes.axvline(50, color="#9a9aa2", linewidth=1, linestyle="--")
    places = range(len(wins), 0, -1)
    for place, share in zip(places, wins.values(), strict=True):
        _mark(axes, share, place, _COLOURS[0], scale=100)
    axes.set_yticks(places, list(wins))
    axes.set_ylim(0.4, len(wins) + 0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"% of items on which {first} is better than {second}")
    return figure


def _mark(axes: Axes, figure: Estimate, place: float, colour: str, scale: float = 1) -> None:
    """A mean as a dot, its interval as a line."""
    if figure.mean is None:
        return
    if figure.low is not None and figure.high is not None:
        ends = [figure.low * scale, figure.high * scale]
        axes.plot(ends, [place, place], color=colour, linewidth=2.4, clip_on=False)
    axes.plot([figure.mean * scale], [place], color=colour, marker="o", markersize=5.5, clip_on=False)


def _binned(xs: np.ndarray, ys: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean x and y of bins that hold equally many points (n,), float64."""
    order = np.argsort(xs, kind="stable")
    bins = [part for part in np.array_split(order, min(_BINS, len(xs))) if len(part)]
    return [float(xs[part].mean()) for part in bins], [float(ys[part].mean()) for part in bins]


def _title(definition: Definition) -> str:
    scale = "" if definition.scale == 1 else f"×{definition.scale:g}"
    return f"{definition.title}{scale} {ARROWS[definition.better]}"


def _colours(methods: Sequence[str]) -> list[str]:
    return [_COLOURS[number % len(_COLOURS)] for number in range(len(methods))]
