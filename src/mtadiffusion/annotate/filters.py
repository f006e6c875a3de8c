"""Which images are worth annotating: size, shape, aesthetic score, the source's own flag, duplicates.

Every image keeps its row; a rejected one has the name of the first rule that it breaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from mtadiffusion.annotate.duplicates import Repeats
from mtadiffusion.annotate.stage import Inputs, ShardInputs
from mtadiffusion.data.tables import DECODED, KEPT, REJECTED
from mtadiffusion.engines.engine import Resources
from mtadiffusion.errors import UserError

SCHEMA = pa.schema([("image_id", pa.string()), ("status", pa.string()), ("reason", pa.string())])


@dataclass(kw_only=True)
class Filters:
    """Makes the table `filters` from the index."""

    min_resolution: int = 0
    """The shorter side's least length in pixels."""

    min_aesthetic: float | None = None
    """The least aesthetic score, the source's or else that of `aesthetics`; images without one stay. None: no
    such rule."""

    max_aspect: float = 3.0
    """The largest ratio of the longer side to the shorter."""

    duplicates: bool = True
    """Keep only the first of images that are equal byte for byte, or nearly so by perceptual hash."""

    scored: bool = False
    """Whether the table `aesthetics` has scores of images whose source gives none."""

    name: ClassVar[str] = "filters"
    resources: ClassVar[Resources] = Resources()
    _repeats: Repeats | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.min_resolution < 0:
            raise UserError("min_resolution", "must not be negative", self.min_resolution)
        if self.max_aspect < 1:
            raise UserError("max_aspect", "must be at least 1", self.max_aspect)

    @property
    def reads(self) -> tuple[str, ...]:
        """The facts, and the scores if there are any."""
        return ("index", "aesthetics") if self.scored else ("index",)

    def settings(self) -> Mapping[str, Any]:
        """The thresholds."""
        return {
            "min_resolution": self.min_resolution,
            "min_aesthetic": self.min_aesthetic,
            "max_aspect": self.max_aspect,
            "duplicates": self.duplicates,
        }

    def survey(self, inputs: Inputs) -> None:
        """Find the first of equal images over all shards."""
        self._repeats = Repeats.among(inputs) if self.duplicates else None

    def setup(self, inputs: Inputs) -> None:
        """Nothing to load."""

    def run(self, shard: ShardInputs) -> pa.Table:
        """One row an image of the index."""
        columns = ["image_id", "status", "reason", "width", "height", "aesthetic", "unsafe"]
        rows = shard.rows("index", columns).to_pylist()
        if self.scored:
            scores = shard.rows("aesthetics", ["score"])["score"].to_pylist()
            for row, score in zip(rows, scores, strict=True):
                row["aesthetic"] = score if row["aesthetic"] is None else row["aesthetic"]
        reasons = [self._reason(row, shard.number, i) for i, row in enumerate(rows)]
        return pa.table(
            {
                "image_id": [row["image_id"] for row in rows],
                "status": [REJECTED if reason else KEPT for reason in reasons],
                "reason": reasons,
            },
            schema=SCHEMA,
        )

    def _reason(self, row: Mapping[str, Any], shard: int, number: int) -> str | None:
        if row["status"] != DECODED:
            return row["status"]
        short, long = sorted((row["width"], row["height"]))
        if short < self.min_resolution:
            return "small"
        if long > self.max_aspect * short:
            return "aspect"
        if None not in (self.min_aesthetic, row["aesthetic"]) and row["aesthetic"] < self.min_aesthetic:
            return "aesthetic"
        if row["unsafe"]:
            return "unsafe"
        return self._repeats.reason(shard, number) if self._repeats else None
