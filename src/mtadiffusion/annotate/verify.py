"""Stage: whether a description fits. Its likeness to what it describes, and to the label that was detected.

Beyond the paper: misaligned pairs can be filtered by it, and the alignment of a dataset be measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
from PIL import Image

from mtadiffusion.annotate.describe import object_crop
from mtadiffusion.annotate.stage import Inputs, ShardInputs
from mtadiffusion.annotate.walk import ObjectWalk, batches
from mtadiffusion.data.tables import KEPT
from mtadiffusion.engines.engine import Resources
from mtadiffusion.imaging.runs import Runs

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        (
            "objects",
            pa.list_(
                pa.struct(
                    [
                        ("status", pa.string()),
                        ("crop_similarity", pa.float32()),
                        ("label_similarity", pa.float32()),
                        ("names_label", pa.bool_()),
                    ]
                )
            ),
        ),
    ]
)
"""Similarities are cosines in [-1, 1] of the description with the object's crop, and with its label."""


class Scorer(Protocol):
    """A model that puts pictures and texts into one space."""

    longest: int
    """The longest side that it makes use of, in pixels."""

    def settings(self) -> Mapping[str, Any]:
        """All that its answers depend on."""

    def load(self) -> None:
        """Load the weights."""

    def images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Unit vectors (N, D)."""

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (N, D)."""


@dataclass(frozen=True, kw_only=True)
class _Pair:
    crop: Image.Image
    label: str
    text: str


@dataclass(kw_only=True)
class Verify:
    """Makes the table `alignment` of the descriptions."""

    scorer: Scorer
    """The model."""

    margin: float = 0.1
    """What the crop shows around the object's box, as a share of the box's longer side."""

    batch: int = 32
    """Objects a forward pass."""

    name: ClassVar[str] = "alignment"
    reads: ClassVar[tuple[str, ...]] = ("index", "detections", "masks", "descriptions")
    resources: Resources = field(default_factory=Resources)
    """What one worker occupies."""

    def settings(self) -> Mapping[str, Any]:
        """The scorer's, and the crop's margin."""
        return {"scorer": self.scorer.settings(), "margin": self.margin}

    def setup(self, inputs: Inputs) -> None:
        """Load the scorer."""
        self.scorer.load()

    def run(self, shard: ShardInputs) -> pa.Table:
        """One row an image, one entry an object of `descriptions`."""
        walk = ObjectWalk(shard, "detections", "masks", "descriptions")
        return walk.table(self._scores(self._pairs(walk)), SCHEMA)

    def _pairs(self, walk: ObjectWalk) -> Iterator[_Pair]:
        for view, objects in walk.seen(self.scorer.longest):
            for seen, mask, description in objects:
                runs = Runs.of_coco({"size": view.size[::-1], "counts": mask["counts"]})
                crop = object_crop(view.picture, runs, margin=self.margin, masked=False)
                yield _Pair(crop=crop, label=seen["label"], text=description["text"])

    def _scores(self, pairs: Iterator[_Pair]) -> Iterator[dict[str, Any]]:
        for batch in batches(pairs, self.batch):
            texts = self.scorer.texts([pair.text for pair in batch])
            crops = self.scorer.images([pair.crop for pair in batch])
            labels = self.scorer.texts([f"a {pair.label}" for pair in batch])
            for number, pair in enumerate(batch):
                yield {
                    "status": KEPT,
                    "crop_similarity": float(texts[number] @ crops[number]),
                    "label_similarity": float(texts[number] @ labels[number]),
                    "names_label": names(pair.text, pair.label),
                }


def names(text: str, label: str) -> bool:
    """Whether a text holds every word of a label, its plural included."""
    words = set(re.findall(r"\w+", text.lower()))
    return all({word, f"{word}s", f"{word}es"} & words for word in re.findall(r"\w+", label.lower()))
