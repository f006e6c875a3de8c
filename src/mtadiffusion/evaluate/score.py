"""Scoring: every picture looked at by every metric, in batches whose features the metrics share.

A metric that cannot be set up is left out with its reason, a sample that a metric fails on has a line that
says so, and the rest goes on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from mtadiffusion.engines.engine import Engine, Resources
from mtadiffusion.evaluate.benchmark import Benchmark, Item
from mtadiffusion.evaluate.folder import MethodFolder, key_of
from mtadiffusion.evaluate.generate import Place, one_line, read_edges
from mtadiffusion.evaluate.journal import Row
from mtadiffusion.evaluate.metrics.metric import Batch, Metric, Sample

BATCH = 16
"""Pictures that are scored together."""


@dataclass(frozen=True, kw_only=True)
class Scorers:
    """The metrics that can be asked, and why the others cannot."""

    metrics: Mapping[str, Metric]
    """Key (`key_of` name and identity) -> metric, in the order of the tables."""

    identities: Mapping[str, Mapping[str, Any]]
    """Name -> identity, as it went into the key."""

    unusable: Mapping[str, str]
    """Name -> reason."""

    def after(self, identities: Mapping[str, Mapping[str, Any]], unusable: Mapping[str, str]) -> Scorers:
        """The metrics that were usable in the end, under the keys that their scores have."""
        known = {**self.identities, **identities}
        usable = [metric for metric in self.metrics.values() if metric.definition.name not in unusable]
        return Scorers(
            metrics={key_of(m.definition.name, known[m.definition.name]): m for m in usable},
            identities={m.definition.name: known[m.definition.name] for m in usable},
            unusable={**self.unusable, **unusable},
        )


@dataclass(frozen=True, kw_only=True)
class Part:
    """Pictures of one method, and which metrics are to look at them."""

    folder: MethodFolder
    items: Sequence[Item]
    hashes: Sequence[str]
    """Of the pictures, one an item."""

    keys: Sequence[str]
    """Of the metrics that have not seen all of them."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What became of a part."""

    part: int
    rows: Mapping[str, Sequence[Row]]
    """Key of a metric -> lines for its journal, one an item."""

    identities: Mapping[str, Mapping[str, Any]]
    """Name of a metric -> its identity since its weights are there."""

    unusable: Mapping[str, str]
    """Name of a metric that could not be set up -> reason."""


@dataclass(kw_only=True)
class Scorer:
    """A worker that scores batches with every metric, each of them set up when it is first needed."""

    benchmark: Benchmark
    metrics: Mapping[str, Metric]
    place: Place
    parts: Sequence[Part]
    _identities: dict[str, Mapping[str, Any]] = field(default_factory=dict, init=False)
    _unusable: dict[str, str] = field(default_factory=dict, init=False)

    @property
    def name(self) -> str:
        """For messages."""
        return "scores"

    @property
    def resources(self) -> Resources:
        """The place's."""
        return self.place.resources

    def make(self, part: int) -> Scored:
        """Score one part by the metrics that have not seen it."""
        self.place.take()
        chosen = self.parts[part]
        usable = [key for key in chosen.keys if self._usable(key)]
        batch = Batch(samples=list(self._samples(chosen))) if usable else Batch(samples=())
        rows = {self._key(key): self._rows(key, batch, chosen) for key in usable}
        return Scored(part=part, rows=rows, identities=dict(self._identities), unusable=dict(self._unusable))

    def give_up(self, part: int, reason: str, attempts: int) -> Scored:
        """Lines for a part that cost its workers their lives."""
        chosen = self.parts[part]
        pairs = list(zip(chosen.items, chosen.hashes, strict=True))
        rows = [{"item": item.item_id, "sha256": digest, "error": reason} for item, digest in pairs]
        return Scored(part=part, rows=dict.fromkeys(chosen.keys, rows), identities={}, unusable={})

    def _usable(self, key: str) -> bool:
        """Whether the metric is set up; only then all of its weights are sure to be there to be hashed."""
        metric, name = self.metrics[key], self.metrics[key].definition.name
        if name not in self._identities and name not in self._unusable:
            try:
                metric.setup(self.place.device)
                self._identities[name] = metric.identity()
            except Exception as error:  # weights that are not there, or do not load, in whatever way
                self._unusable[name] = one_line(error)
        return name in self._identities

    def _key(self, key: str) -> str:
        name = self.metrics[key].definition.name
        return key_of(name, self._identities[name])

    def _samples(self, part: Part) -> Iterator[Sample]:
        for item in part.items:
            with Image.open(part.folder.picture(item.item_id)) as picture:
                result = np.array(picture.convert("RGB"))
            original, hole = self.benchmark.picture(item), self.benchmark.hole(item)
            file = part.folder.edges(item.item_id)
            edges = read_edges(file) if file.exists() else None
            yield Sample(item=item, original=original, hole=hole, result=result, edges=edges)

    def _rows(self, key: str, batch: Batch, part: Part) -> list[Row]:
        outcomes = _outcomes(self.metrics[key], batch)
        known = zip(part.items, part.hashes, outcomes, strict=True)
        return [{"item": item.item_id, "sha256": digest, **found} for item, digest, found in known]


def usable_scorers(metrics: Sequence[Metric]) -> Scorers:
    """The metrics under the keys that name their scores; what cannot be identified cannot be used."""
    keys, identities, unusable = dict[str, Metric](), dict[str, Mapping[str, Any]](), dict[str, str]()
    for metric in metrics:
        name = metric.definition.name
        try:
            identities[name] = metric.identity()
        except Exception as error:  # weights that cannot be had
            unusable[name] = one_line(error)
        else:
            keys[key_of(name, identities[name])] = metric
    return Scorers(metrics=keys, identities=identities, unusable=unusable)


def score(
    benchmark: Benchmark,
    scorers: Scorers,
    place: Place,
    engine: Engine,
    folders: Sequence[MethodFolder],
    items: Sequence[Item],
) -> Scorers:
    """Score every picture that has no score yet.

    Returns:
        The metrics that were usable, under the keys of their scores: those whose weights came only now have
        others than before.
    """
    parts = [part for folder in folders for part in _parts(folder, items, list(scorers.metrics))]
    scorer = Scorer(benchmark=benchmark, metrics=scorers.metrics, place=place, parts=parts)
    identities: dict[str, Mapping[str, Any]] = {}
    unusable: dict[str, str] = {}
    total = sum(len(part.items) for part in parts)
    with tqdm(total=total, desc=scorer.name, unit="image", disable=not total) as bar:
        for scored in engine.make(scorer, range(len(parts))) if total else ():
            part = parts[scored.part]
            for key, rows in scored.rows.items():
                part.folder.scores(key).append(rows)
            identities |= scored.identities
            unusable |= scored.unusable
            bar.update(len(part.items))
    return scorers.after(identities, unusable)


def scores_of(folder: MethodFolder, key: str, hashes: Mapping[str, str]) -> dict[str, Row]:
    """Item -> the metric's line about the picture that is there now."""
    rows = folder.scores(key).latest()
    return {item: row for item, row in rows.items() if row.get("sha256") == hashes.get(item)}


def _parts(folder: MethodFolder, items: Sequence[Item], keys: Sequence[str]) -> Iterator[Part]:
    """Batches are cut the same way whatever is scored already, so that scores do not depend on it."""
    hashes = folder.whole_pictures(items)
    drawn = [item for item in items if item.item_id in hashes]
    seen = {key: _with_score(scores_of(folder, key, hashes)) for key in keys}
    for start in range(0, len(drawn), BATCH):
        batch = drawn[start : start + BATCH]
        ids = {item.item_id for item in batch}
        unseen = [key for key in keys if not ids <= seen[key]]
        if unseen:
            yield Part(
                folder=folder, items=batch, hashes=[hashes[item.item_id] for item in batch], keys=unseen
            )


def _with_score(rows: Mapping[str, Row]) -> set[str]:
    return {item for item, row in rows.items() if "score" in row}


def _outcomes(metric: Metric, batch: Batch) -> list[Row]:
    """`score` or `error` of each sample. What fails as a batch is tried one by one."""
    try:
        return [_outcome(score) for score in _counted(metric.score(batch), batch)]
    except Exception as error:
        if len(batch.samples) == 1:
            return [{"error": one_line(error)}]
    return [_outcomes(metric, Batch(samples=[sample]))[0] for sample in batch.samples]


def _counted(scores: Sequence[float | None], batch: Batch) -> Sequence[float | None]:
    if len(scores) != len(batch.samples):
        raise ValueError(f"{len(scores)} scores for {len(batch.samples)} samples")
    return scores


def _outcome(score: float | None) -> Row:
    if score is None:
        return {"score": None}
    number = float(score)
    return {"score": number} if math.isfinite(number) else {"error": f"the score is {number}"}
