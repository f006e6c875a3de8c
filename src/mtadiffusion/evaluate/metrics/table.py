"""The definitions of all metrics as a Markdown table: `python -m mtadiffusion.evaluate.metrics.table`.

It prints `docs/metrics.md` with its table renewed, given the file on standard input.
"""

from __future__ import annotations

import math
import sys

from mtadiffusion.evaluate.metrics import METRICS, metric_named
from mtadiffusion.evaluate.metrics.metric import Definition

START, END = "<!-- definitions -->", "<!-- end of definitions -->"
_HEAD = ("Name", "In tables", "Better", "Range", "Looks at", "Resize", "Times", "Source")


def markdown_table() -> str:
    """One row a metric, in the registry's order."""
    definitions = (metric_named(name).definition for name in METRICS)
    rows = [_HEAD, ("---",) * len(_HEAD), *map(_row, definitions)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def renewed(document: str) -> str:
    """A document with the table between its two marks."""
    before, _, rest = document.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{markdown_table()}\n{END}{after}"


def _row(one: Definition) -> tuple[str, ...]:
    bounds = f"{_number(one.bounds[0])} to {_number(one.bounds[1])}"
    source = one.source.replace("|", "\\|")
    return f"`{one.name}`", one.title, one.better, bounds, one.region, one.resize, f"{one.scale:g}", source


def _number(value: float) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.4g}"


if __name__ == "__main__":
    sys.stdout.write(renewed(sys.stdin.read()))
