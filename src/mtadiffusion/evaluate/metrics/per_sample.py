"""A metric without weights: a function of one sample, under its definition."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mtadiffusion.evaluate.metrics.metric import Batch, Definition, Sample


@dataclass(kw_only=True)
class PerSample:
    """Scores each sample alone, with nothing to load."""

    definition: Definition
    """What it is."""

    of: Callable[[Sample], float | None]
    """Its value of one sample; a function of a module, so that it can be pickled."""

    def identity(self) -> Mapping[str, Any]:
        """Nothing but the definition decides the scores."""
        return {}

    def setup(self, device: str) -> None:
        """Nothing is loaded."""

    def score(self, batch: Batch) -> list[float | None]:
        """One number a sample."""
        return [self.of(sample) for sample in batch.samples]
