"""An evaluation from beginning to end: draw with every method, score with every metric, report.

What an earlier run did in the same folder stays; what it did not, or what was damaged since, is done now.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from mtadiffusion.data.dataset import writing
from mtadiffusion.engines.engine import Engine
from mtadiffusion.engines.local import Local
from mtadiffusion.errors import UserError, nearest_name
from mtadiffusion.evaluate import folder as folders
from mtadiffusion.evaluate.benchmark import Benchmark, Item, Settings
from mtadiffusion.evaluate.folder import MethodFolder
from mtadiffusion.evaluate.generate import Drawer, Place, generate
from mtadiffusion.evaluate.methods.method import Method, hands_over_edges
from mtadiffusion.evaluate.metrics.metric import Metric
from mtadiffusion.evaluate.report.provenance import versions
from mtadiffusion.evaluate.report.published import Published
from mtadiffusion.evaluate.report.results import gather
from mtadiffusion.evaluate.report.write import Made, write_report
from mtadiffusion.evaluate.score import score, usable_scorers

DRAWN_TOGETHER = 8
"""Pictures that a method draws at once, where it can."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is evaluated, and how it differs from the benchmark's own protocol."""

    benchmark: Benchmark
    """The items."""

    methods: Sequence[Method]
    """In the order of tables; their names differ."""

    metrics: Sequence[Metric]
    """In the order of tables."""

    limit: int | None = None
    """How many items, the first of each group in turn; None: all."""

    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Settings` that take the place of the benchmark's."""

    place: Place = field(default_factory=Place)
    """What models run on."""

    batch: int = DRAWN_TOGETHER
    """Pictures that a method draws at once, where it can."""

    published: Sequence[Published] = ()
    """Figures of others to be shown beside ours, and marked."""

    @property
    def settings(self) -> Settings:
        """The benchmark's, changed."""
        return changed(self.benchmark.settings, self.changes)

    def items(self) -> list[Item]:
        """Those that are drawn."""
        return limited(self.benchmark.items(), self.limit)


def evaluate(plan: Plan, out: Path, engine: Engine | None = None) -> dict[str, Any]:
    """Draw, score and report into the folder `out`, from wherever an earlier run there was stopped.

    Args:
        plan: what is evaluated.
        out: a new or empty folder, or that of an earlier evaluation on the same benchmark.
        engine: where pictures are drawn and scored; by default in this process.

    Returns:
        The summary (`docs/evaluation.md`).

    Raises:
        UserError: the folder holds something else or is in use, a benchmark that is not one, a method that
            cannot be set up, a full disk.
    """
    out, engine = out.absolute(), engine or Local()
    _check_names([method.name for method in plan.methods])
    folders.check_usable(out)
    items = plan.items()
    folders.check_items(items)
    made_by = {method.name: _made_by(plan, method) for method in plan.methods}
    parts = {
        name: MethodFolder(out=out, key=folders.key_of(name, identity)) for name, identity in made_by.items()
    }
    with writing(out):
        folders.claim(out, plan.benchmark)
        for method in plan.methods:
            parts[method.name].describe({**made_by[method.name], "versions": versions(plan.place.device)})
            _draw(plan, method, parts[method.name], items, engine)
        named = usable_scorers(plan.metrics)
        scorers = score(plan.benchmark, named, plan.place, engine, list(parts.values()), items)
        results = gather(plan.benchmark, items, parts, scorers.metrics)
        made = Made(
            benchmark=plan.benchmark,
            items=items,
            settings=plan.settings,
            folders=parts,
            scorers=scorers,
            published=plan.published,
        )
        return write_report(results, made, out)


def changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """The settings with some fields replaced.

    Raises:
        UserError: no such field.
    """
    for name in changes:
        if name not in asdict(settings):
            raise UserError(name, "is no setting of a benchmark", remedy=nearest_name(name, asdict(settings)))
    return replace(settings, **changes)


def limited(items: Sequence[Item], limit: int | None) -> list[Item]:
    """At most `limit` items in the benchmark's order: the first of each group, the second of each, and so on.

    A greater limit keeps all items of a smaller one.
    """
    if limit is None or limit >= len(items):
        return list(items)
    groups: dict[str, list[str]] = {}
    for item in items:
        groups.setdefault(item.group, []).append(item.item_id)
    turns = chain.from_iterable(zip_longest(*groups.values()))
    chosen = set([item_id for item_id in turns if item_id is not None][:limit])
    return [item for item in items if item.item_id in chosen]


def _check_names(names: Sequence[str]) -> None:
    if not names:
        raise UserError("--method", "must be given at least once")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        remedy = "give them names of their own: NAME:label=OTHER"
        raise UserError("--method", "must have different names", min(twice), remedy)


def _made_by(plan: Plan, method: Method) -> dict[str, Any]:
    """All that a method's pictures depend on: what its folder's fingerprint stands for."""
    return {
        "benchmark": {"name": plan.benchmark.name, "fingerprint": plan.benchmark.fingerprint()},
        "method": {"name": method.name, **method.identity(), **_kept(method)},
        "settings": asdict(plan.settings),
        "device": plan.place.kind,
        "dtype": plan.place.dtype,
    }


def _kept(method: Method) -> dict[str, Any]:
    """What is kept beside the pictures; pictures without it must be drawn again."""
    return {"kept": ["edges"]} if hands_over_edges(method) else {}


def _draw(plan: Plan, method: Method, folder: MethodFolder, items: Sequence[Item], engine: Engine) -> None:
    """The method that is set up is a copy: its weights go when it has drawn everything."""
    drawer = Drawer(
        benchmark=plan.benchmark,
        method=copy.deepcopy(method),
        settings=plan.settings,
        place=plan.place,
        folder=folder,
        parts=(),
    )
    generate(drawer, engine, items, plan.batch)
