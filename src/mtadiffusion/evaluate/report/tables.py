"""Tables of a summary as text: CSV for programs, Markdown for readers, LaTeX for papers.

Figures are in the papers' scaling. `±` is half the width of the 95 % interval, whose ends are in the CSV and
the JSON. The best of the measured methods is bold; what was published is marked and never bold.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DIFFERENCE_TITLES = ("Methods", "Group", "Metric", "n", "Difference", "95 % interval", "Wins")
EQUAL = "“equal”: every known pixel is as it was, so that this says nothing of how good the results are."
ARROWS = {"higher": "↑", "lower": "↓"}
_LATEX_ARROWS = {"higher": r"$\uparrow$", "lower": r"$\downarrow$"}
_LATEX_TIMES = r"$\times$"
_LATEX_SPECIAL = re.compile(r"[\\&%$#_{}~^Δ]")
_LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "Δ": r"$\Delta$",
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A figure in a table."""

    value: float
    """In the table's scaling."""

    half: float | None = None
    """Half the interval's width."""

    best: bool = False
    """Whether it is the best measured one of its column."""

    n: int | None = None
    """Items that have the score; None for published figures."""

    equal: bool = False
    """Whether every score is that of known pixels which are as they were (`Definition.equal`)."""

    @property
    def text(self) -> str:
        """The figure, or `equal`."""
        return "equal" if self.equal else number(self.value)

    @property
    def half_text(self) -> str | None:
        """Half the interval's width, where there is something to be said of it."""
        return None if self.half is None or self.equal else number(self.half)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A method's figures, one a metric; None where there is none."""

    method: str
    """The method's name."""

    cells: Sequence[Cell | None]
    """In the order of the table's metrics."""

    drawn: int | None = None
    """How many items it has pictures of; None for published figures."""

    source: str = ""
    """The publication, for published figures."""

    note: str = ""
    """What it says of its protocol."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Methods against metrics, for one group of items."""

    group: str
    """`overall`, or the group."""

    metrics: Sequence[Mapping[str, Any]]
    """Definitions."""

    rows: Sequence[Row]
    """Measured ones, then published ones."""


def files(summary: Mapping[str, Any]) -> dict[str, str]:
    """File's name -> content."""
    return {
        "summary.csv": _csv(summary["figures"], _FIGURE_COLUMNS),
        "differences.csv": _csv(summary["differences"], _DIFFERENCE_COLUMNS),
        "summary.md": markdown(summary),
        "summary.tex": latex(summary),
    }


def tables(summary: Mapping[str, Any]) -> list[Table]:
    """One table a group."""
    metrics = list(summary["metrics"].values())
    return [
        Table(group=group, metrics=metrics, rows=[*_measured(summary, group), *_published(summary, group)])
        for group in summary["groups"]
    ]


def any_equal(made: Iterable[Table]) -> bool:
    """Whether a table says `equal` anywhere."""
    return any(cell.equal for table in made for row in table.rows for cell in row.cells if cell)


def heading(metric: Mapping[str, Any]) -> str:
    """`CLIP ↑`, `IR×10 ↑`."""
    return f"{metric['title']}{_scale(metric, '×')}\N{NO-BREAK SPACE}{ARROWS[metric['better']]}"


def number(value: float) -> str:
    """Two decimals, more where they would hide a small figure."""
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def markdown(summary: Mapping[str, Any]) -> str:
    """All tables, one below the other, with what a reader has to know."""
    parts = [f"# {summary['benchmark']['title']}", "", *_facts(summary)]
    made = tables(summary)
    for table in made:
        parts += ["", f"## {table.group.capitalize()}", "", *_markdown_table(table)]
    if any_equal(made):
        parts += ["", EQUAL]
    parts += ["", "## Differences", "", *_markdown_differences(summary), *_sources(summary), ""]
    return "\n".join(parts)


def latex(summary: Mapping[str, Any]) -> str:
    r"""The tables for `\input`; they need the package booktabs."""
    return "\n".join(line for table in tables(summary) for line in _latex_table(table, summary))


_FIGURE_COLUMNS = ("method", "group", "metric", "items", "n", "mean", "low", "high")
_DIFFERENCE_COLUMNS = (
    "method", "against", "group", "metric", "n", "difference", "low", "high", "wins", "wins_low", "wins_high",
)  # fmt: skip


def _csv(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _measured(summary: Mapping[str, Any], group: str) -> list[Row]:
    figures = {(f["method"], f["metric"]): f for f in summary["figures"] if f["group"] == group}
    metrics = summary["metrics"]
    best = {name: _best(name, metric, figures) for name, metric in metrics.items()}
    rows = []
    for count in (one for one in summary["counts"] if one["group"] == group):
        method = count["method"]
        cells = [_cell(figures[method, name], best[name], metrics[name]) for name in metrics]
        rows.append(Row(method=method, cells=cells, drawn=count["drawn"]))
    return rows


def _best(name: str, metric: Mapping[str, Any], figures: Mapping[Any, Mapping[str, Any]]) -> float | None:
    means = [f["mean"] for (_, of), f in figures.items() if of == name and f["mean"] is not None]
    choose = max if metric["better"] == "higher" else min
    return choose(means) if len(set(means)) > 1 else None


def _cell(figure: Mapping[str, Any], best: float | None, metric: Mapping[str, Any]) -> Cell | None:
    mean, low, high = figure["mean"], figure["low"], figure["high"]
    if mean is None:
        return None
    half = None if low is None else (high - low) / 2
    equal = metric["equal"] is not None and not half and mean == metric["equal"] * metric["scale"]
    return Cell(value=mean, half=half, best=mean == best, n=figure["n"], equal=equal)


def _published(summary: Mapping[str, Any], group: str) -> list[Row]:
    rows = []
    for row in summary["published"].get(group, ()):
        values = [row["figures"].get(metric) for metric in summary["metrics"]]
        cells = [None if value is None else Cell(value=value) for value in values]
        rows.append(Row(method=row["method"], cells=cells, source=row["source"], note=row["note"]))
    return rows


def _facts(summary: Mapping[str, Any]) -> list[str]:
    benchmark = summary["benchmark"]
    lines = [f"{benchmark['items']} of {benchmark['of']} items. {protocol(summary)}"]
    lines += [f"{name}: {failed} of {items} items failed." for name, failed, items in failures(summary)]
    lines += [f"{metric}: not computed ({reason})." for metric, reason in summary["unusable"].items()]
    return [part for line in lines for part in (line, "")][:-1]


def failures(summary: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """(method, items without a picture, items) of the methods that have some."""
    counts = [(one["name"], one["failed"], one["failed"] + one["drawn"]) for one in summary["methods"]]
    return [row for row in counts if row[1]]


def protocol(summary: Mapping[str, Any]) -> str:
    """The settings in a sentence, and which of them are not the benchmark's own."""
    used = summary["settings"]
    seeds = "each item's own, from " if used["seed_per_item"] else ""
    text = (
        f"{used['size']} pixels, {used['scheduler']}, {used['steps']} steps, "
        f"guidance {used['guidance_scale']:g}, seed {seeds}{used['seed']}, blending {used['blend']}."
    )
    changes = [f"{name} {change['own']} → {change['used']}" for name, change in summary["changed"].items()]
    return f"{text} Changed from the benchmark's protocol: {', '.join(changes)}." if changes else text


def _markdown_table(table: Table) -> list[str]:
    titles = ["Method", *(_plain(heading(metric)) for metric in table.metrics)]
    lines = [_pipes(titles), _pipes(["---", *["---:"] * len(table.metrics)])]
    for row in table.rows:
        name = f"*{_plain(row.method)} (published)*" if row.source else _plain(row.method)
        lines.append(_pipes([name, *map(_markdown_cell, row.cells)]))
    return lines


def plain_cells(row: Row) -> list[str]:
    """A row for a terminal: method, pictures, figures."""
    name = f"{row.method} (published: {row.source})" if row.source else row.method
    return [name, "" if row.drawn is None else str(row.drawn), *map(_plain_cell, row.cells)]


def _plain_cell(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    return cell.text if cell.half_text is None else f"{cell.text} ± {cell.half_text}"


def _markdown_cell(cell: Cell | None) -> str:
    text = _plain_cell(cell)
    return f"**{text}**" if cell and cell.best else text


def _markdown_differences(summary: Mapping[str, Any]) -> list[str]:
    if not summary["differences"]:
        return ["There is one method."]
    lines = [_pipes(DIFFERENCE_TITLES), _pipes(["---", "---", "---", "---:", "---:", "---:", "---:"])]
    rows = [row for row in summary["differences"] if row["difference"] is not None]
    cells = [difference_cells(row, summary["metrics"]) for row in rows]
    return lines + [_pipes(list(map(_plain, row))) for row in cells]


def difference_cells(row: Mapping[str, Any], metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Methods, group, metric, n, difference, interval, wins."""
    return [
        f"{row['method']} − {row['against']}",
        row["group"],
        heading(metrics[row["metric"]]),
        str(row["n"]),
        signed(row["difference"]),
        interval(row),
        f"{100 * row['wins']:.0f} %",
    ]


def interval(row: Mapping[str, Any]) -> str:
    """`[low, high]` of a difference."""
    return "–" if row["low"] is None else f"[{signed(row['low'])}, {signed(row['high'])}]"


def signed(value: float) -> str:
    """Three decimals and a sign."""
    return f"{value:+.3f}".replace("-", "−")


def _sources(summary: Mapping[str, Any]) -> list[str]:
    rows = [row for group in summary["published"].values() for row in group]
    notes = dict.fromkeys(
        f"- {row['source']}" + (f" ({_plain(row['note'])})" if row["note"] else "") for row in rows
    )
    return ["", "## Published figures", "", *notes] if notes else []


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _latex_table(table: Table, summary: Mapping[str, Any]) -> list[str]:
    titles = [
        f"{_tex(metric['title'])}{_scale(metric, _LATEX_TIMES)} {_LATEX_ARROWS[metric['better']]}"
        for metric in table.metrics
    ]
    measured = [row for row in table.rows if not row.source]
    published = [row for row in table.rows if row.source]
    about = f"{summary['benchmark']['title']}, {table.group}, {summary['benchmark']['items']} items"
    return [
        rf"\begin{{tabular}}{{l{'r' * len(titles)}}} % {_tex(about)}",
        r"\toprule",
        " & ".join(["Method", *titles]) + r" \\",
        r"\midrule",
        *map(_latex_row, measured),
        *([r"\midrule", *map(_latex_row, published)] if published else []),
        r"\bottomrule",
        r"\end{tabular}",
        "",
    ]


def _latex_row(row: Row) -> str:
    name = rf"\textit{{{_tex(row.method)} (published)}}" if row.source else _tex(row.method)
    return " & ".join([name, *map(_latex_cell, row.cells)]) + r" \\"


def _latex_cell(cell: Cell | None) -> str:
    if cell is None:
        return "--"
    value = rf"\textbf{{{cell.text}}}" if cell.best else cell.text
    return value if cell.half_text is None else rf"{value} {{\scriptsize$\pm${cell.half_text}}}"


def _tex(text: str) -> str:
    return _LATEX_SPECIAL.sub(lambda match: _LATEX_ESCAPES.get(match[0], f"\\{match[0]}"), text)


def _scale(metric: Mapping[str, Any], times: str) -> str:
    return "" if metric["scale"] == 1 else f"{times}{metric['scale']:g}"
