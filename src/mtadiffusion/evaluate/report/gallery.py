"""The page of an evaluation: its tables and plots, and every item with all results, sorted by any metric.

Pictures stay files beside the page, loaded when they come into view.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from mtadiffusion.data.files import whole_file
from mtadiffusion.evaluate.benchmark import Benchmark, Item
from mtadiffusion.evaluate.report import tables
from mtadiffusion.evaluate.report.plots import Plot
from mtadiffusion.evaluate.report.results import OVERALL, Outcome, Results
from mtadiffusion.pages import page

PAGE = "index.html"
FOLDER = "items"
_STRIPES = 24
"""Stripes in a picture's width that mark a hole."""
_LOSSLESS = 256
"""Pictures up to this side are kept exactly: every pixel of them is seen."""

_KINDS = (
    ("spread", "How scores are spread", "Dot and line: mean and its 95 % interval."),
    ("wins", "Who wins how often", "Share of items with its 95 % interval; a tie counts half."),
    ("hole-size", "What large holes do", "A dot an item; the line joins means of equally many items."),
)


def write_gallery(
    results: Results,
    benchmark: Benchmark,
    items: Sequence[Item],
    summary: Mapping[str, Any],
    plots: Sequence[Plot],
    out: Path,
) -> None:
    """Write the page and the items' pictures that it shows."""
    for item in tqdm(items, desc="page", unit="item"):
        _write_pictures(benchmark, item, out)
    made = tables.tables(summary)
    text = page(
        "evaluation.html",
        summary=summary,
        tables=made,
        equal=tables.EQUAL if tables.any_equal(made) else "",
        heading=tables.heading,
        number=tables.number,
        interval=tables.interval,
        signed=tables.signed,
        differences=_pairs(summary),
        protocol=tables.protocol(summary),
        plots=[(title, note, [one for one in plots if one.kind == kind]) for kind, title, note in _KINDS],
        methods=results.methods,
        metrics=[{"name": name, **one} for name, one in summary["metrics"].items()],
        items=list(_cards(results, items, out)),
        provenance=json.dumps(_provenance(summary), ensure_ascii=False, indent=1),
    )
    with whole_file(out / PAGE) as file:
        file.write(text.encode())


def given(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The picture, uint8 (H, W, 3) RGB, with slanting stripes in the hole, bool (H, W)."""
    height, width = hole.shape
    period = max(4, 2 * round(width / _STRIPES))
    rows, columns = np.mgrid[:height, :width]
    stripes = np.where((rows + columns) % period < period // 2, 236, 200).astype(np.uint8)
    return np.where(hole[..., None], stripes[..., None], picture)


def _write_pictures(benchmark: Benchmark, item: Item, out: Path) -> None:
    paths = [out / path for path in _pictures(item).values()]
    if all(path.exists() for path in paths):
        return
    try:
        picture, hole = benchmark.picture(item), benchmark.hole(item)
    except Exception:  # every method has failed at this item, and says why
        return
    for path, content in zip(paths, (given(picture, hole), picture), strict=True):
        buffer = BytesIO()
        lossless = max(content.shape) <= _LOSSLESS
        Image.fromarray(content).save(buffer, "WEBP", lossless=lossless, quality=88)
        with whole_file(path) as file:
            file.write(buffer.getvalue())


def _pictures(item: Item) -> dict[str, str]:
    """Title -> file, relative to the evaluation's folder."""
    return {
        "Given": f"{FOLDER}/{item.item_id}-given.webp",
        "Original": f"{FOLDER}/{item.item_id}-original.webp",
    }


def _pairs(summary: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """`A − B` -> the rows of their overall differences."""
    pairs: dict[str, list[Mapping[str, Any]]] = {}
    for row in summary["differences"]:
        if row["group"] == OVERALL and row["difference"] is not None:
            pairs.setdefault(f"{row['method']} − {row['against']}", []).append(row)
    return pairs


def _cards(results: Results, items: Sequence[Item], out: Path) -> Iterator[dict[str, Any]]:
    by_item: dict[str, list[Outcome]] = {}
    for outcome in results.outcomes:
        by_item.setdefault(outcome.item, []).append(outcome)
    for item in items:
        outcomes = by_item[item.item_id]
        yield {
            "id": item.item_id,
            "prompt": item.prompt,
            "group": item.group,
            "facts": _facts(item, outcomes[0]),
            "hole": outcomes[0].hole_share,
            "failed": any(one.error for one in outcomes),
            "pictures": {
                title: path if (out / path).exists() else None for title, path in _pictures(item).items()
            },
            "results": [_result(one, results) for one in outcomes],
        }


def _result(outcome: Outcome, results: Results) -> dict[str, Any]:
    scores = {name: outcome.scores.get(name) for name in results.metrics}
    return {
        "method": outcome.method,
        "picture": outcome.picture,
        "error": outcome.error,
        "scores": {
            name: None if score is None else score * results.metrics[name].scale
            for name, score in scores.items()
        },
    }


def _facts(item: Item, outcome: Outcome) -> str:
    told = {name.replace("_", " "): value for name, value in item.facts.items() if value is not False}
    facts = [name if value is True else f"{name} {value}" for name, value in told.items()]
    return " · ".join([item.item_id, item.group, f"hole {100 * outcome.hole_share:.0f} %", *facts])


def _provenance(summary: Mapping[str, Any]) -> dict[str, Any]:
    names = ("benchmark", "settings", "changed", "methods", "scorers", "unusable", "interval")
    return {name: summary[name] for name in names}
