"""Two finished evaluations against each other: paired over the items that both asked in the same way.

An item is common where its id, prompt, picture and hole are the same, and a metric where its weights are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.report.results import OVERALL, Outcome, read_scores
from mtadiffusion.evaluate.report.statistics import compared
from mtadiffusion.evaluate.report.summary import defined, difference_row, scores_by_item
from mtadiffusion.evaluate.report.write import SUMMARY


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished evaluation, read back."""

    path: Path
    summary: Mapping[str, Any]
    outcomes: Sequence[Outcome]

    @classmethod
    def read(cls, path: Path) -> Finished:
        """The evaluation in a folder.

        Raises:
            UserError: there is none, or it did not reach its end.
        """
        outcomes = read_scores(path)
        try:
            summary = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise UserError("--compare", f"must name folders with a {SUMMARY}", str(path)) from None
        return cls(path=path, summary=summary, outcomes=outcomes)

    @property
    def methods(self) -> list[str]:
        """Names."""
        return [method["name"] for method in self.summary["methods"]]

    def of(self, method: str) -> dict[str, Outcome]:
        """Item -> outcome of a method."""
        return {one.item: one for one in self.outcomes if one.method == method}

    def asked(self) -> dict[str, str]:
        """Item -> digest of what was asked."""
        return {one.item: one.asked for one in self.outcomes if one.asked is not None}


def compare(first: Path, second: Path) -> dict[str, Any]:
    """Every method of the first evaluation against every method of the second.

    Returns:
        `common`, `only_first`, `only_second`, `different`: numbers of items (`different`: the same id, but
        another prompt, picture or hole); `metrics`: definitions of the common ones; `left_out`: metrics that
        are not common, with the reason; `differences`: rows as in a summary, by group and overall.

    Raises:
        UserError: a folder without a finished evaluation, other benchmarks, nothing in common.
    """
    one, other = Finished.read(first), Finished.read(second)
    names = [run.summary["benchmark"]["name"] for run in (one, other)]
    if names[0] != names[1]:
        raise UserError("--compare", "must name evaluations on one benchmark", " and ".join(names))
    asked = one.asked(), other.asked()
    both = [item for item in asked[0] if item in asked[1]]
    common = {item for item in both if asked[0][item] == asked[1][item]}
    if not common:
        raise UserError("--compare", "must name evaluations with common items", f"{first} and {second}")
    metrics, left_out = _common_metrics(one.summary, other.summary)
    return {
        "benchmark": names[0],
        "runs": [str(first), str(second)],
        "common": len(common),
        "only_first": len(asked[0]) - len(both),
        "only_second": len(asked[1]) - len(both),
        "different": len(both) - len(common),
        "metrics": metrics,
        "left_out": left_out,
        "differences": list(_differences(one, other, common, metrics)),
    }


def _common_metrics(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    metrics, left_out = {}, {}
    for name in dict.fromkeys([*first["metrics"], *second["metrics"]]):
        keys = [run["scorers"].get(name, {}).get("key") for run in (first, second)]
        if keys[0] == keys[1]:
            metrics[name] = first["metrics"][name]
        else:
            left_out[name] = "only in one of them" if None in keys else "of other weights or options"
    return metrics, left_out


def _differences(
    one: Finished, other: Finished, common: set[str], metrics: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    groups = list(dict.fromkeys(outcome.group for outcome in one.outcomes if outcome.item in common))
    for group in [OVERALL, *groups] if len(groups) > 1 else [OVERALL]:
        for first, second in ((a, b) for a in one.methods for b in other.methods):
            pair = [_chosen(run.of(name), common, group) for run, name in ((one, first), (other, second))]
            for name, values in metrics.items():
                definition = defined(values)
                scores = [scores_by_item(outcomes, name) for outcomes in pair]
                found = compared(scores[0], scores[1], definition.better, f"{group}/{name}")
                named = {"method": f"{one.path.name}: {first}", "against": f"{other.path.name}: {second}"}
                yield {**named, "group": group, "metric": name, **difference_row(found, definition)}


def _chosen(outcomes: Mapping[str, Outcome], common: set[str], group: str) -> list[Outcome]:
    return [
        outcome for item, outcome in outcomes.items() if item in common and group in (OVERALL, outcome.group)
    ]
