"""Stages that take the source's own annotations in the place of models: boxes, masks and descriptions.

They make the same tables as `detect`, `segment` and `describe`, so that any of the three may be the source's
and the others a model's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from mtadiffusion.annotate import describe, segment
from mtadiffusion.annotate.detect import SCHEMA, BoxRules, Detection, detection_row
from mtadiffusion.annotate.stage import Inputs, ShardInputs
from mtadiffusion.data.source_objects import UNNAMED, SourceObject, source_objects
from mtadiffusion.data.tables import KEPT, REJECTED, SKIPPED
from mtadiffusion.engines.engine import Resources
from mtadiffusion.imaging.masks import mask_to_coco

_ENTRY_COLUMNS = ("image_id", "width", "height", "fields")


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
        return self.rules()

    def setup(self, inputs: Inputs) -> None:
        """Nothing to load."""

    def run(self, shard: ShardInputs) -> pa.Table:
        """One row an image; images that were not kept have no objects."""
        rows = []
        for row, objects in _known(shard):
            boxes = [Detection(label=o.label, score=o.score, box_xyxy=o.box_xyxy) for o in objects]
            judged = self.judged(boxes, (row["width"], row["height"])) if boxes else []
            rows.append({"image_id": row["image_id"], "objects": [detection_row(*one) for one in judged]})
        return pa.Table.from_pylist(rows, schema=SCHEMA)


@dataclass(kw_only=True)
class SourceMasks:
    """Makes the table `masks` of the masks that came with the images; they stay as they are."""

    min_area: float = 0.001
    """The least area of a mask, as a share of the image's."""

    max_area: float = 0.95
    """The largest area of a mask, as a share of the image's."""

    name: ClassVar[str] = "masks"
    reads: ClassVar[tuple[str, ...]] = ("index", "filters", "detections")
    resources: ClassVar[Resources] = Resources()

    def settings(self) -> Mapping[str, Any]:
        """The rules."""
        return vars(self)

    def setup(self, inputs: Inputs) -> None:
        """Nothing to load."""

    def run(self, shard: ShardInputs) -> pa.Table:
        """One row an image, one entry an object of `detections`."""
        return pa.Table.from_pylist(_entries(shard, "detections", self._entry), schema=segment.SCHEMA)

    def _entry(self, one: SourceObject) -> dict[str, Any]:
        if one.mask is None:
            return {"status": REJECTED, "reason": "no mask in the source"}
        area, share = int(one.mask.sum()), float(one.mask.mean())
        reason = "tiny mask" if share < self.min_area else "whole image" if share > self.max_area else None
        return {
            "status": KEPT if reason is None else REJECTED,
            "reason": reason,
            "counts": mask_to_coco(one.mask)["counts"],
            "area": area,
        }


@dataclass(kw_only=True)
class SourceTexts:
    """Makes the table `descriptions` of the texts that came with the images, uncut; else of labels."""

    label_alone: bool = True
    """Whether an object without a description is described by its label, as the paper's baselines are."""

    name: ClassVar[str] = "descriptions"
    reads: ClassVar[tuple[str, ...]] = ("index", "filters", "detections", "masks")
    resources: ClassVar[Resources] = Resources()

    def settings(self) -> Mapping[str, Any]:
        """The rule."""
        return vars(self)

    def setup(self, inputs: Inputs) -> None:
        """Nothing to load."""

    def run(self, shard: ShardInputs) -> pa.Table:
        """One row an image, one entry an object of `masks`."""
        return pa.Table.from_pylist(_entries(shard, "masks", self._entry), schema=describe.SCHEMA)

    def _entry(self, one: SourceObject) -> dict[str, Any]:
        label = one.label if self.label_alone and one.label != UNNAMED else None
        text = one.text or label
        if text is None:
            return {"status": REJECTED, "reason": "no text in the source"}
        return {"status": KEPT, "text": text, "full": text}


def _entries(
    shard: ShardInputs, before: str, entry: Callable[[SourceObject], dict[str, Any]]
) -> list[dict[str, Any]]:
    """A row an image, with `entry` of each object that the table `before` kept."""
    tables = (shard.rows(name).to_pylist() for name in ("detections", before))
    rows = []
    for (row, objects), found, earlier in zip(_known(shard), *tables, strict=True):
        _check_pairs(objects, found["objects"])
        made = [
            entry(one) if was["status"] == KEPT else {"status": SKIPPED}
            for one, was in zip(objects, earlier["objects"], strict=True)
        ]
        rows.append({"image_id": row["image_id"], "objects": made})
    return rows


def _known(shard: ShardInputs) -> list[tuple[dict[str, Any], list[SourceObject]]]:
    """(index row, its objects) of every image; none of those that the filters left out."""
    rows = shard.rows("index", _ENTRY_COLUMNS).to_pylist()
    statuses = shard.rows("filters", ["status"])["status"].to_pylist()
    return [
        (row, source_objects(json.loads(row["fields"]), (row["height"], row["width"])) if keep else [])
        for row, keep in zip(rows, (status == KEPT for status in statuses), strict=True)
    ]


def _check_pairs(objects: list[SourceObject], detections: list[Mapping[str, Any]]) -> None:
    """Raises ValueError where the detections are a model's: its boxes are not the source's objects."""
    if [one.label for one in objects] != [one["label"] for one in detections]:
        raise ValueError("the table of detections was not made from the source's annotations")
