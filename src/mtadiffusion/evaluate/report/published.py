"""Figures that others published, as a report shows them: beside measured ones, and marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published row of a table."""

    method: str
    """As the publication calls it, or as the methods' registry does."""

    group: str
    """Part of the benchmark that it is about."""

    figures: Mapping[str, float]
    """Metric -> figure in the tables' scaling."""

    source: str
    """The publication."""

    note: str = ""
    """Protocol, and what has to be known before comparing."""


def rows_for(rows: Sequence[Published], group: str, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """JSON-ready rows of a group, with the metrics that the report has; rows without any are left out."""
    found = []
    for row in rows:
        figures = {name: row.figures[name] for name in metrics if name in row.figures}
        if row.group == group and figures:
            kept = {"method": row.method, "figures": figures, "source": row.source, "note": row.note}
            found.append(kept)
    return found
