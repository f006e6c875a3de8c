"""Metrics of the sticker world: the shipped judge's answers about holes.

Their names begin with `sticker_`, for they mean nothing on other pictures; `evaluate` knows just the names.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from mtadiffusion.evaluate.benchmark import Item
from mtadiffusion.evaluate.metrics.metric import Batch, Definition, Metric
from mtadiffusion.models.hub import file_digest
from mtadiffusion.stickers.judge import WEIGHTS, Judge, Verdict, load_judge


@dataclass(kw_only=True)
class JudgeRecogniser:
    """The judge as a recogniser of categories, for the metric `hit`."""

    _judge: Judge | None = field(default=None, init=False, repr=False)

    def identity(self) -> Mapping[str, Any]:
        """The judge."""
        return {"judge": judge_digest()}

    def setup(self, device: str) -> None:
        """Load the judge."""
        self._judge = load_judge().to(device)

    def finds(
        self, pictures: Sequence[np.ndarray], holes: Sequence[np.ndarray], labels: Sequence[str]
    ) -> list[bool]:
        """Whether the judge's category is the label."""
        assert self._judge is not None, "setup comes first"
        verdicts = verdicts_of(self._judge, pictures, holes)
        return [verdict.category == label for verdict, label in zip(verdicts, labels, strict=True)]


@dataclass(kw_only=True)
class JudgeAgrees:
    """1 where the judge sees in the hole what the item asks for, 0 where not; None where nothing is asked."""

    definition: Definition
    """Which of the judge's answers it is."""

    answer: Literal["category", "style", "colour"]
    """The answer compared."""

    _judge: Judge | None = field(default=None, init=False, repr=False)

    def identity(self) -> Mapping[str, Any]:
        """The judge."""
        return {"judge": judge_digest()}

    def setup(self, device: str) -> None:
        """Load the judge."""
        self._judge = load_judge().to(device)

    def score(self, batch: Batch) -> list[float | None]:
        """0 or 1."""
        verdicts = batch.once(("sticker verdicts", judge_digest()), lambda: self._verdicts(batch))
        wanted = [self._wanted(sample.item) for sample in batch.samples]
        return [
            None if want is None else float(getattr(verdict, self.answer) == want)
            for want, verdict in zip(wanted, verdicts, strict=True)
        ]

    def _wanted(self, item: Item) -> object:
        return item.label if self.answer == "category" else item.facts.get(self.answer)

    def _verdicts(self, batch: Batch) -> list[Verdict]:
        assert self._judge is not None, "setup comes first"
        samples = batch.samples
        return verdicts_of(self._judge, [s.result for s in samples], [s.hole for s in samples])


def sticker_category() -> Metric:
    """The judge sees the object asked for."""
    return JudgeAgrees(definition=_definition("category", "the object asked for"), answer="category")


def sticker_style() -> Metric:
    """The judge sees the scene's art style."""
    return JudgeAgrees(definition=_definition("style", "the scene's art style"), answer="style")


def sticker_colour() -> Metric:
    """The judge sees the colour asked for; None where no colour was."""
    return JudgeAgrees(definition=_definition("colour", "the colour asked for"), answer="colour")


def verdicts_of(judge: Judge, pictures: Sequence[np.ndarray], holes: Sequence[np.ndarray]) -> list[Verdict]:
    """The judge's verdicts of pictures of any sizes, those of one size together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, picture in enumerate(pictures):
        groups.setdefault(picture.shape, []).append(place)
    found: dict[int, Verdict] = {}
    for places in groups.values():
        stacked = np.stack([pictures[i] for i in places]), np.stack([holes[i] for i in places])
        found |= zip(places, judge.verdicts(*stacked), strict=True)
    return [found[place] for place in range(len(pictures))]


@functools.cache
def judge_digest() -> str:
    """Of the shipped judge's configuration and weights."""
    return " ".join(file_digest(path)[:16] for path in sorted(WEIGHTS.iterdir()) if path.is_file())


def _definition(answer: str, what: str) -> Definition:
    return Definition(
        name=f"sticker_{answer}", title=f"Sticker {answer}", better="higher", bounds=(0, 1), region="hole",
        resize="crop around the hole, 48, bilinear", scale=100,
        source=f"share of holes in which the shipped judge of stickers sees {what}",
    )  # fmt: skip
