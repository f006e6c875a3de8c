"""Semantic alignment: does the hole show the object asked for? Judged from the hole's pixels alone."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from mtadiffusion.errors import UserError, nearest_name
from mtadiffusion.evaluate.metrics.metric import Batch, Definition, Metric
from mtadiffusion.evaluate.metrics.recognisers import Recogniser
from mtadiffusion.evaluate.specification import typed

_SOURCE = "share of holes in which a recogniser, seeing the hole alone, finds the label asked for"

RECOGNISERS = {
    "grounding-dino": "mtadiffusion.evaluate.metrics.recognisers:GroundingDinoRecogniser",
    "clip": "mtadiffusion.evaluate.metrics.recognisers:ClipRecogniser",
    "sticker": "mtadiffusion.stickers.metrics:JudgeRecogniser",
}
"""By name, where each lies."""

HIT = Definition(
    name="hit", title="Hit", better="higher", bounds=(0, 1), region="hole", resize="the recogniser's own",
    scale=100, source=_SOURCE,
)  # fmt: skip


@dataclass(kw_only=True)
class Hit:
    """1 where the recogniser finds the label in the hole, 0 where not; None for items without a label."""

    recogniser: Recogniser
    """Who says so."""

    definition: Definition = HIT
    """What it is."""

    def identity(self) -> Mapping[str, Any]:
        """The recogniser's."""
        return self.recogniser.identity()

    def setup(self, device: str) -> None:
        """Load the recogniser. Raises UserError where it cannot be had."""
        self.recogniser.setup(device)

    def score(self, batch: Batch) -> list[float | None]:
        """0 or 1."""
        asked = {
            place: (sample, sample.item.label)
            for place, sample in enumerate(batch.samples)
            if sample.item.label is not None and sample.hole.any()
        }
        if not asked:
            return [None] * len(batch.samples)
        chosen = [sample for sample, _ in asked.values()]
        found = self.recogniser.finds(
            [sample.result for sample in chosen],
            [sample.hole for sample in chosen],
            [label for _, label in asked.values()],
        )
        answers = dict(zip(asked, found, strict=True))
        return [float(answers[place]) if place in answers else None for place in range(len(batch.samples))]


def hit(recogniser: str = "grounding-dino", **options: Any) -> Metric:
    """Hits by a recogniser with options of its own.

    Raises:
        UserError: no recogniser of this name, or no such option of it.
    """
    if recogniser not in RECOGNISERS:
        raise UserError("hit.recogniser", "is unknown", recogniser, nearest_name(recogniser, RECOGNISERS))
    module, _, attribute = RECOGNISERS[recogniser].partition(":")
    make = getattr(import_module(module), attribute)
    known = inspect.signature(make).parameters
    for name in options:
        if name not in known:
            raise UserError(f"hit.{name}", f"is no option of {recogniser}", remedy=nearest_name(name, known))
    return Hit(recogniser=make(**typed(make, options, "hit.")))
