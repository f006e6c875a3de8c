"""Stage: how beautiful people would find an image, where its source does not say (`aesthetic_head`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from mtadiffusion.annotate.stage import Inputs, ShardInputs
from mtadiffusion.annotate.verify import Scorer
from mtadiffusion.annotate.walk import batches, spread, views
from mtadiffusion.data.tables import DECODED
from mtadiffusion.engines.engine import Resources
from mtadiffusion.models.aesthetic_head import head_digest, load_head

SCHEMA = pa.schema([("image_id", pa.string()), ("score", pa.float32())])
"""`score` is null where the source has a score, or the image cannot be decoded."""


@dataclass(kw_only=True)
class Aesthetic:
    """Makes the table `aesthetics` of the decoded images without a score of their own."""

    scorer: Scorer
    """CLIP."""

    head: str
    """File of the linear layer on CLIP's image vector: .pth, or .safetensors with the same two tensors."""

    batch: int = 16
    """Images a forward pass."""

    name: ClassVar[str] = "aesthetics"
    reads: ClassVar[tuple[str, ...]] = ("index",)
    resources: Resources = field(default_factory=Resources)
    """What one worker occupies."""
    _weight: np.ndarray | None = field(default=None, init=False, repr=False)
    _bias: float = field(default=0.0, init=False, repr=False)

    def settings(self) -> Mapping[str, Any]:
        """The models'; the head by its content."""
        return {"scorer": self.scorer.settings(), "head": head_digest(self.head)}

    def setup(self, inputs: Inputs) -> None:
        """Load CLIP and the head."""
        self._weight, self._bias = load_head(self.head)
        self.scorer.load()

    def run(self, shard: ShardInputs) -> pa.Table:
        """One row an image of the index."""
        index = shard.rows("index", ["image_id", "status", "aesthetic"])
        columns = zip(index["status"].to_pylist(), index["aesthetic"].to_pylist(), strict=True)
        wanted = [status == DECODED and score is None for status, score in columns]
        scores = spread(wanted, self._scores(shard, wanted), None)
        return pa.table({"image_id": index["image_id"], "score": scores}, schema=SCHEMA)

    def _scores(self, shard: ShardInputs, wanted: Sequence[bool]) -> Iterator[float | None]:
        for batch in batches(views(shard, wanted, self.scorer.longest), self.batch):
            pictures = [view.picture for view in batch]
            yield from (self.scorer.images(pictures) @ self._weight + self._bias).tolist()
