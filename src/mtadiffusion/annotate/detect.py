"""Stage: what is in an image and where. Boxes and labels of a detector, less what cannot be right.

The rule for at most N objects: of the boxes that pass, the N of the highest score. Every box of the detector
stays in the table, with the reason why it was left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Protocol

import pyarrow as pa
from PIL import Image

from mtadiffusion.annotate.stage import Inputs, ShardInputs
from mtadiffusion.annotate.walk import batches, spread, views
from mtadiffusion.data.tables import KEPT, REJECTED
from mtadiffusion.engines.engine import Resources
from mtadiffusion.errors import UserError

OBJECT_FIELDS = [
    ("label", pa.string()),
    ("score", pa.float32()),
    ("box_xyxy", pa.list_(pa.float32(), 4)),
    ("status", pa.string()),
    ("reason", pa.string()),
]
SCHEMA = pa.schema([("image_id", pa.string()), ("objects", pa.list_(pa.struct(OBJECT_FIELDS)))])


@dataclass(frozen=True, kw_only=True)
class Detection:
    """A box that a detector proposes."""

    label: str
    """One of the labels that were asked for."""

    score: float
    """Confidence in [0, 1]."""

    box_xyxy: tuple[float, float, float, float]
    """x0, y0, x1, y1 in pixels of the picture that the detector saw."""


class Detector(Protocol):
    """A model that finds named objects."""

    longest: int
    """The longest side that it makes use of, in pixels."""

    def settings(self) -> Mapping[str, Any]:
        """All that its answers depend on."""

    def load(self) -> None:
        """Load the weights."""

    def detect(
        self, images: Sequence[Image.Image], labels: Sequence[Sequence[str]], min_score: float
    ) -> list[list[Detection]]:
        """For each image the boxes above `min_score` that show one of its labels."""


@dataclass(kw_only=True)
class BoxRules:
    """Which of an image's boxes cannot be right, or are too many."""

    min_score: float = 0.6
    """The least confidence of a box."""

    max_objects: int = 5
    """The most objects an image."""

    nms_iou: float = 0.5
    """Of two boxes of one label whose intersection over union exceeds this, the better one stays."""

    min_side: float = 0.02
    """The least side of a box, as a share of the image's side."""

    max_area: float = 0.95
    """The largest area of a box, as a share of the image's."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_score < 1:
            raise UserError("min_score", "must be at least 0 and less than 1", self.min_score)
        if self.max_objects < 1:
            raise UserError("max_objects", "must be at least 1", self.max_objects)

    def rules(self) -> dict[str, Any]:
        """JSON-ready."""
        return {one.name: getattr(self, one.name) for one in fields(BoxRules)}

    def judged(self, boxes: Sequence[Detection], size: tuple[int, int]) -> list[tuple[Detection, str | None]]:
        """Boxes clipped to `size` (width, height), best first, each with why it is left out."""
        clipped = sorted((_clipped(box, size) for box in boxes), key=lambda box: -box.score)
        kept: list[Detection] = []
        judged = []
        for box in clipped:
            reason = self._fault(box, size, kept)
            if reason is None:
                kept.append(box)
            judged.append((box, reason))
        return judged

    def _fault(self, box: Detection, size: tuple[int, int], kept: Sequence[Detection]) -> str | None:
        x0, y0, x1, y1 = box.box_xyxy
        across, down = (x1 - x0) / size[0], (y1 - y0) / size[1]
        if box.score <= self.min_score:
            return "score"
        if min(across, down) < self.min_side:
            return "tiny box"
        if across * down > self.max_area:
            return "whole image"
        if any(box.label == one.label and box_iou(box.box_xyxy, one.box_xyxy) > self.nms_iou for one in kept):
            return "overlap"
        return "too many" if len(kept) >= self.max_objects else None


@dataclass(kw_only=True)
class Detect(BoxRules):
    """Makes the table `detections` of the images that have labels."""

    detector: Detector
    """The model."""

    batch: int = 8
    """Images a forward pass."""

    name: ClassVar[str] = "detections"
    reads: ClassVar[tuple[str, ...]] = ("index", "labels")
    resources: Resources = field(default_factory=Resources)
    """What one worker occupies."""

    def settings(self) -> Mapping[str, Any]:
        """The detector's and the rules'."""
        return {"detector": self.detector.settings()} | self.rules()

    def setup(self, inputs: Inputs) -> None:
        """Load the detector."""
        self.detector.load()

    def run(self, shard: ShardInputs) -> pa.Table:
        """One row an image; images without labels have no objects."""
        rows = shard.rows("labels").to_pylist()
        found = self._found(shard, [row["labels"] for row in rows])
        objects = spread((bool(row["labels"]) for row in rows), found, [])
        made = [{"image_id": row["image_id"], "objects": one} for row, one in zip(rows, objects, strict=True)]
        return pa.Table.from_pylist(made, schema=SCHEMA)

    def _found(self, shard: ShardInputs, labels: Sequence[Sequence[str]]) -> Iterator[list[dict[str, Any]]]:
        pictures = views(shard, [bool(asked) for asked in labels], self.detector.longest)
        for batch in batches(zip(pictures, filter(None, labels), strict=True), self.batch):
            seen, asked = zip(*batch, strict=True)
            answers = self.detector.detect([view.picture for view in seen], asked, self.min_score)
            for view, boxes in zip(seen, answers, strict=True):
                scaled = [_scaled(box, view.picture.size, view.size) for box in boxes]
                yield [detection_row(box, reason) for box, reason in self.judged(scaled, view.size)]


def box_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes xyxy."""
    across = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    down = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    shared = across * down
    return shared / (areas - shared) if areas > shared else 0.0


def _scaled(box: Detection, seen: tuple[int, int], size: tuple[int, int]) -> Detection:
    across, down = size[0] / seen[0], size[1] / seen[1]
    x0, y0, x1, y1 = map(float, box.box_xyxy)
    return replace(box, box_xyxy=(x0 * across, y0 * down, x1 * across, y1 * down))


def _clipped(box: Detection, size: tuple[int, int]) -> Detection:
    limits = (*size, *size)
    x0, y0, x1, y1 = (min(max(value, 0.0), top) for value, top in zip(box.box_xyxy, limits, strict=True))
    return replace(box, box_xyxy=(x0, y0, x1, y1))


def detection_row(box: Detection, reason: str | None) -> dict[str, Any]:
    """A box as the table has it; `reason` says why it is left out."""
    return {
        "label": box.label,
        "score": box.score,
        "box_xyxy": list(box.box_xyxy),
        "status": KEPT if reason is None else REJECTED,
        "reason": reason,
    }
