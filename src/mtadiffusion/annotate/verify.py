"""Stage: whether a description fits. Its likeness to what it describes, and to the label that was detected.

Beyond the paper: misaligned pairs can be filtered by it, and the alignment of a dataset be measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
from PIL import Image

from mtadiffusion.annotate.describe import object_crop
from mtadiffusion.annotate.detect import kept_rows
from mtadiffusion.annotate.stage import Inputs, ShardInputs
from mtadiffusion.data.tables import KEPT, SKIPPED
from mtadiffusion.engines.engine import Resources
from mtadiffusion.imaging.masks import coco_to_mask

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
    reads: ClassVar[tuple[str, ...]] = ("index", "filters", "detections", "masks", "descriptions")
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
        descriptions = shard.rows("descriptions").to_pylist()
        scores = self._scores(self._pairs(shard, descriptions))
        rows = [
            {
                "image_id": row["image_id"],
                "objects": [next(scores) if one["status"] == KEPT else _SKIPPED for one in row["objects"]],
            }
            for row in descriptions
        ]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def _pairs(self, shard: ShardInputs, descriptions: Sequence[Mapping[str, Any]]) -> Iterator[_Pair]:
        index, kept = kept_rows(shard)
        described = [any(one["status"] == KEPT for one in row["objects"]) for row in descriptions]
        detections, masks = (shard.rows(name).to_pylist() for name in ("detections", "masks"))
        wanted = [want for want, keep in zip(described, kept, strict=True) if keep]
        chosen = index.filter(pa.array(wanted, pa.bool_()))
        images = shard.images(chosen, self.scorer.longest)
        sizes = zip(chosen["height"].to_pylist(), chosen["width"].to_pylist(), strict=True)
        rows = zip(detections, masks, descriptions, described, strict=True)
        for found, mask_row, row, want in rows:
            if want:
                image, size = next(images), next(sizes)
                for seen, mask, one in zip(
                    found["objects"], mask_row["objects"], row["objects"], strict=True
                ):
                    if one["status"] == KEPT:
                        whole = coco_to_mask({"size": size, "counts": mask["counts"]})
                        crop = object_crop(image, whole, margin=self.margin, masked=False)
                        yield _Pair(crop=crop, label=seen["label"], text=one["text"])

    def _scores(self, pairs: Iterator[_Pair]) -> Iterator[dict[str, Any]]:
        while batch := list(islice(pairs, self.batch)):
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


_SKIPPED = {"status": SKIPPED}


def names(text: str, label: str) -> bool:
    """Whether a text holds every word of a label, its plural included."""
    words = set(re.findall(r"\w+", text.lower()))
    return all({word, f"{word}s", f"{word}es"} & words for word in re.findall(r"\w+", label.lower()))
