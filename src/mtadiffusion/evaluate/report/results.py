"""Results as reports see them: what each method made of each item, with its scores, read back from disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mtadiffusion.data.files import whole_file
from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.benchmark import Benchmark, Item
from mtadiffusion.evaluate.folder import MethodFolder
from mtadiffusion.evaluate.metrics.metric import Definition, Metric
from mtadiffusion.evaluate.score import scores_of

SCORES = "scores.jsonl"
OVERALL = "overall"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a method made of an item."""

    method: str
    """Its name."""

    item: str
    """The item's id."""

    group: str
    """The item's."""

    prompt: str
    """The item's."""

    hole_share: float
    """The hole's part of the picture, in [0, 1]."""

    asked: str | None
    """Digest of prompt, picture and hole; None where the benchmark's files could not be read."""

    picture: str | None
    """The result's file, relative to the evaluation's folder; None where there is none."""

    error: str | None
    """Why there is no picture."""

    scores: Mapping[str, float | None]
    """Metric -> score, unscaled; None where the metric does not apply."""

    faults: Mapping[str, str]
    """Metric -> why it has no score of this picture."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """All outcomes of an evaluation, and what the scores mean."""

    outcomes: Sequence[Outcome]
    """Method by method, items in the benchmark's order."""

    metrics: Mapping[str, Definition]
    """Name -> definition, in the order of tables; those that were computed."""

    methods: Sequence[str]
    """Names in the order of tables."""

    def of(self, method: str) -> list[Outcome]:
        """A method's outcomes."""
        return [outcome for outcome in self.outcomes if outcome.method == method]

    @property
    def groups(self) -> list[str]:
        """`overall`, and the benchmark's groups where there are several."""
        names = list(dict.fromkeys(outcome.group for outcome in self.outcomes))
        return [OVERALL, *names] if len(names) > 1 else [OVERALL]


def in_group(outcomes: Iterable[Outcome], group: str) -> list[Outcome]:
    """Those of a group, or all for `overall`."""
    return [outcome for outcome in outcomes if group in (OVERALL, outcome.group)]


def gather(
    benchmark: Benchmark,
    items: Sequence[Item],
    folders: Mapping[str, MethodFolder],
    metrics: Mapping[str, Metric],
) -> Results:
    """Read back what generation and scoring wrote.

    Args:
        benchmark: whose holes' sizes are noted.
        items: those of this evaluation.
        folders: method's name -> its folder.
        metrics: key -> metric.
    """
    shares = {item.item_id: round(float(benchmark.hole(item).mean()), 6) for item in items}
    outcomes = [
        outcome
        for name, folder in folders.items()
        for outcome in _outcomes(name, folder, items, metrics, shares)
    ]
    definitions = {metric.definition.name: metric.definition for metric in metrics.values()}
    return Results(outcomes=outcomes, metrics=definitions, methods=list(folders))


def write_scores(results: Results, out: Path) -> None:
    """One line for each method and item."""
    lines = [json.dumps(asdict(outcome), ensure_ascii=False, sort_keys=True) for outcome in results.outcomes]
    with whole_file(out / SCORES) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())


def read_scores(out: Path) -> list[Outcome]:
    """The inverse of `write_scores`.

    Raises:
        UserError: the folder holds no finished evaluation.
    """
    try:
        lines = (out / SCORES).read_text(encoding="utf-8").splitlines()
        return [Outcome(**json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError):
        remedy = f"it must hold a {SCORES}; run mta evaluate --out {out} to its end"
        raise UserError("--compare", "must name finished evaluations", str(out), remedy) from None


def _outcomes(
    name: str,
    folder: MethodFolder,
    items: Sequence[Item],
    metrics: Mapping[str, Metric],
    shares: Mapping[str, float],
) -> Iterator[Outcome]:
    hashes, lines = folder.whole_pictures(items), folder.pictures.latest()
    scored = {metric.definition.name: scores_of(folder, key, hashes) for key, metric in metrics.items()}
    for item in items:
        line: Mapping[str, Any] = lines.get(item.item_id, {})
        there = item.item_id in hashes
        rows = {metric: rows[item.item_id] for metric, rows in scored.items() if item.item_id in rows}
        yield Outcome(
            method=name,
            item=item.item_id,
            group=item.group,
            prompt=item.prompt,
            hole_share=shares[item.item_id],
            asked=line.get("asked"),
            picture=folder.picture(item.item_id).relative_to(folder.out).as_posix() if there else None,
            error=None if there else line.get("error", "the picture was lost"),
            scores={metric: row["score"] for metric, row in rows.items() if "score" in row},
            faults={metric: row["error"] for metric, row in rows.items() if "error" in row},
        )
