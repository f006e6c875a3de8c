"""A report's files, each written whole: scores, summary, tables, plots, and the page of all results."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mtadiffusion.data.files import whole_file, write_json
from mtadiffusion.evaluate.benchmark import Benchmark, Item, Settings
from mtadiffusion.evaluate.folder import FORMAT, MethodFolder, key_of
from mtadiffusion.evaluate.report import tables
from mtadiffusion.evaluate.report.gallery import write_gallery
from mtadiffusion.evaluate.report.plots import write_plots
from mtadiffusion.evaluate.report.published import Published, rows_for
from mtadiffusion.evaluate.report.results import OVERALL, Results, write_scores
from mtadiffusion.evaluate.report.summary import summarise
from mtadiffusion.evaluate.score import Scorers

SUMMARY = "summary.json"


@dataclass(frozen=True, kw_only=True)
class Made:
    """How results came about."""

    benchmark: Benchmark
    """What was asked."""

    items: Sequence[Item]
    """Those that were asked."""

    settings: Settings
    """The protocol that was followed."""

    folders: Mapping[str, MethodFolder]
    """Method's name -> where its pictures and scores lie."""

    scorers: Scorers
    """The metrics that were computed, and why others were not."""

    published: Sequence[Published]
    """Figures of others."""


def write_report(results: Results, made: Made, out: Path) -> dict[str, Any]:
    """Write all files of a report into the evaluation's folder.

    Returns:
        The summary, as in `summary.json`.
    """
    summary = {**_about(results, made), **summarise(results)}
    write_scores(results, out)
    write_json(out / SUMMARY, summary)
    write_json(out / "timing.json", _timing(made))
    for name, text in tables.files(summary).items():
        with whole_file(out / name) as file:
            file.write(text.encode())
    plots = write_plots(results, out)
    write_gallery(results, made.benchmark, made.items, summary, plots, out)
    return summary


def _about(results: Results, made: Made) -> dict[str, Any]:
    """What a reader needs to reproduce the figures."""
    own, used = asdict(made.benchmark.settings), asdict(made.settings)
    return {
        "format": FORMAT,
        "benchmark": {
            "name": made.benchmark.name,
            "title": made.benchmark.title,
            "fingerprint": made.benchmark.fingerprint(),
            "items": len(made.items),
            "of": len(made.benchmark.items()),
        },
        "settings": used,
        "changed": {name: {"own": own[name], "used": used[name]} for name in used if own[name] != used[name]},
        "groups": results.groups,
        "methods": [_method(name, folder, results) for name, folder in made.folders.items()],
        "scorers": {
            name: {"key": key_of(name, identity), "identity": dict(identity)}
            for name, identity in made.scorers.identities.items()
        },
        "unusable": dict(made.scorers.unusable),
        "published": {group: rows for group in results.groups if (rows := _published(results, made, group))},
    }


def _method(name: str, folder: MethodFolder, results: Results) -> dict[str, Any]:
    made_by, outcomes = folder.made_by(), results.of(name)
    return {
        "name": name,
        "key": folder.key,
        "identity": made_by["method"],
        "device": made_by["device"],
        "dtype": made_by["dtype"],
        "versions": made_by["versions"],
        "drawn": sum(one.error is None for one in outcomes),
        "failed": sum(one.error is not None for one in outcomes),
    }


def _published(results: Results, made: Made, group: str) -> list[dict[str, Any]]:
    """Those of a group; a benchmark of one group has its figures under that group's name."""
    names = {item.group for item in made.items}
    wanted = next(iter(names)) if group == OVERALL and len(names) == 1 else group
    return rows_for(made.published, wanted, list(results.metrics))


def _timing(made: Made) -> dict[str, Any]:
    """Seconds a picture of each method, of those that are there; the first has the model's warming up."""
    found = {}
    for name, folder in made.folders.items():
        lines = folder.pictures.latest()
        seconds = [
            lines[item.item_id]["seconds"] for item in made.items if "seconds" in lines.get(item.item_id, {})
        ]
        median = round(statistics.median(seconds), 4) if seconds else None
        found[name] = {
            "pictures": len(seconds),
            "median_seconds": median,
            "sum_seconds": round(sum(seconds), 2),
        }
    return found
