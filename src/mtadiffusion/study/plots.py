"""The report's plots, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mtadiffusion.study.questions import QUESTIONS, TIE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#0a6b5d", "#d98032", "#4a6fa5", "#a14d7a", "#7a8f2a", "#5b4a8a", "#b23b3b", "#2f8fa3", "#8a6d3b")
_TIE_COLOUR = "#9a9aa2"
_DPI = 150


def shares_plot(questions: Sequence[Mapping[str, Any]]) -> bytes:
    """Bars of each choice's share, question by question, with the bootstrap's interval."""
    from matplotlib.figure import Figure

    names = [choice["choice"] for choice in questions[0]["choices"]]
    width = 0.8 / len(names)
    figure = Figure(figsize=(2.2 + 2.2 * len(questions), 3.6), layout="constrained")
    axes = figure.add_subplot()
    for index, name in enumerate(names):
        choices = [question["choices"][index] for question in questions]
        shares = [100 * (choice["share"] or 0) for choice in choices]
        ends = [choice["interval"] or (0, 0) for choice in choices]
        reach = [
            [max(share - 100 * low, 0) for share, (low, _) in zip(shares, ends, strict=True)],
            [max(100 * high - share, 0) for share, (_, high) in zip(shares, ends, strict=True)],
        ]
        places = [number + (index - (len(names) - 1) / 2) * width for number in range(len(questions))]
        error = {"capsize": 3, "elinewidth": 1, "ecolor": "#1d1d1f"}
        axes.bar(
            places, shares, 0.9 * width, yerr=reach, label=name, color=_colour(index, name), error_kw=error
        )
    axes.set_xticks(range(len(questions)), [QUESTIONS[question["name"]].title for question in questions])
    axes.set_ylabel("share of votes, %")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper left", ncols=min(len(names), 4), frameon=False)
    return _png(figure)


def items_plot(rows: Sequence[Mapping[str, Any]], question: str, choices: Sequence[str]) -> bytes:
    """Votes on each item, one column an item, sorted by the votes for the first choice."""
    from matplotlib.figure import Figure

    counts = sorted(([row[f"{question}.{choice}"] for choice in choices] for row in rows), reverse=True)
    figure = Figure(figsize=(max(6.5, 1.5 + 0.11 * len(rows)), 2.8), layout="constrained")
    axes = figure.add_subplot()
    floor = [0] * len(counts)
    for index, name in enumerate(choices):
        heights = [count[index] for count in counts]
        axes.bar(range(len(counts)), heights, 0.9, bottom=floor, label=name, color=_colour(index, name))
        floor = [low + height for low, height in zip(floor, heights, strict=True)]
    axes.set_title(f"{QUESTIONS[question].title}: votes on each image", loc="left", fontsize=11)
    axes.set_xticks([])
    axes.set_xlabel("images")
    axes.set_ylabel("votes")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower left", ncols=min(len(choices), 4), frameon=False, fontsize=9)
    return _png(figure)


def _colour(index: int, name: str) -> str:
    return _TIE_COLOUR if name == TIE else _COLOURS[index % len(_COLOURS)]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()
