"""Stages that take the source's own annotations in the place of models: boxes, masks and descriptions.

They make the same tables as `detect`, `segment` and `describe`, so that any of the three may be the source's
and the others a model's. A box is stored with the number that its object has in the source, so that mask and
text are read of that object alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from mtadiffusion.annotate import describe, segment
from mtadiffusion.annotate.detect import OBJECT_FIELDS, BoxRules, Detection, detection_row
from mtadiffusion.annotate.stage import Inputs, ShardInputs
from mtadiffusion.annotate.walk import ObjectWalk, kept_images
from mtadiffusion.data.source_objects import UNNAMED, label_of, mask_of, rows_of, source_objects, text_of
from mtadiffusion.data.tables import KEPT, REJECTED
from mtadiffusion.engines.engine import Resources

SCHEMA = pa.schema(
    [("image_id", pa.string()), ("objects", pa.list_(pa.struct([*OBJECT_FIELDS, ("number", pa.int32())])))]
)
"""A detector's, and of each object its place in `data.source_objects.rows_of`."""

_SOURCE_COLUMNS = ("width", "height", "fields")
_Entry = Callable[[Mapping[str, Any], tuple[int, int]], dict[str, Any]]
"""(an object's fields in the source, (height, width) of its image) -> its entry."""


@dataclass(kw_only=True)
class SourceBoxes(BoxRules):
    """Makes the table `detections` of the boxes that came with the images."""

    min_score: float = 0.0
    nms_iou: float = 1.0
    name: ClassVar[str] = "detections"
    reads: ClassVar[tuple[str, ...]] = ("index", "filters")
    resources: ClassVar[Resources] = Resources()

    def settings(self) -> Mapping[str, Any]:
        """The rules."""
        return self.rules() | {"numbered": True}

    def setup(self, inputs: Inputs) -> None:
        """Nothing to load."""

    def run(self, shard: ShardInputs) -> pa.Table:
        """One row an image; images that were not kept have no objects."""
        index = shard.rows("index", ["image_id", *_SOURCE_COLUMNS]).to_pylist()
        rows = [
            {"image_id": row["image_id"], "objects": self._boxes(row) if keep else []}
            for row, keep in zip(index, kept_images(shard), strict=True)
        ]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def _boxes(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        objects = source_objects(json.loads(row["fields"]), (row["height"], row["width"]))
        boxes = [Detection(label=o.label, score=o.score, box_xyxy=o.box_xyxy) for o in objects]
        judged = self.judged(boxes, (row["width"], row["height"])) if boxes else []  # keeps the order
        return [
            detection_row(*found) | {"number": one.number} for one, found in zip(objects, judged, strict=True)
        ]


@dataclass(kw_only=True)
class SourceMasks:
    """Makes the table `masks` of the masks that came with the images; they stay as they are."""

    min_area: float = 0.001
    """The least area of a mask, as a share of the image's."""

    max_area: float = 0.95
    """The largest area of a mask, as a share of the image's."""

    name: ClassVar[str] = "masks"
    reads: ClassVar[tuple[str, ...]] = ("index", "detections")
    resources: ClassVar[Resources] = Resources()

    def settings(self) -> Mapping[str, Any]:
        """The rules."""
        return vars(self)

    def setup(self, inputs: Inputs) -> None:
        """Nothing to load."""

    def run(self, shard: ShardInputs) -> pa.Table:
        """One row an image, one entry an object of `detections`."""
        return _table(shard, ("detections",), self._entry, segment.SCHEMA)

    def _entry(self, row: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
        mask = mask_of(row, size)
        if mask is None:
            return {"status": REJECTED, "reason": "no mask in the source"}
        area = mask.area
        share = area / (size[0] * size[1])
        reason = "tiny mask" if share < self.min_area else "whole image" if share > self.max_area else None
        return {
            "status": KEPT if reason is None else REJECTED,
            "reason": reason,
            "counts": mask.coco(),
            "area": area,
        }


@dataclass(kw_only=True)
class SourceTexts:
    """Makes the table `descriptions` of the texts that came with the images, uncut; else of labels."""

    label_alone: bool = True
    """Whether an object without a description is described by its label, as the paper's baselines are."""

    name: ClassVar[str] = "descriptions"
    reads: ClassVar[tuple[str, ...]] = ("index", "detections", "masks")
    resources: ClassVar[Resources] = Resources()

    def settings(self) -> Mapping[str, Any]:
        """The rule."""
        return vars(self)

    def setup(self, inputs: Inputs) -> None:
        """Nothing to load."""

    def run(self, shard: ShardInputs) -> pa.Table:
        """One row an image, one entry an object of `masks`."""
        return _table(shard, ("detections", "masks"), self._entry, describe.SCHEMA)

    def _entry(self, row: Mapping[str, Any], _: tuple[int, int]) -> dict[str, Any]:
        label = label_of(row)
        text = text_of(row) or (label if self.label_alone and label != UNNAMED else None)
        if text is None:
            return {"status": REJECTED, "reason": "no text in the source"}
        return {"status": KEPT, "text": text, "full": text}


def _table(shard: ShardInputs, tables: tuple[str, ...], entry: _Entry, schema: pa.Schema) -> pa.Table:
    """A row an image, with `entry` of each object that the last of `tables` kept."""
    walk = ObjectWalk(shard, *tables)
    return walk.table(_entries(shard, walk, entry), schema)


def _entries(shard: ShardInputs, walk: ObjectWalk, entry: _Entry) -> Iterator[dict[str, Any]]:
    index = shard.rows("index", _SOURCE_COLUMNS).to_pylist()
    for row, objects in zip(index, walk.kept(), strict=True):
        if objects:
            known = rows_of(json.loads(row["fields"]))
            for found, *_ in objects:
                yield entry(known[_number(found)], (row["height"], row["width"]))


def _number(found: Mapping[str, Any]) -> int:
    """Raises ValueError where the detections are a model's: its boxes are not the source's objects."""
    if "number" not in found:
        raise ValueError("the table of detections was not made from the source's annotations")
    return found["number"]
