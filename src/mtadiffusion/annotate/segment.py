"""Stage: a mask for every box, cleaned of islands and holes, and rejected where it cannot be the object's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
from PIL import Image

from mtadiffusion.annotate.detect import box_iou
from mtadiffusion.annotate.stage import Inputs, ShardInputs
from mtadiffusion.annotate.walk import ObjectWalk, View
from mtadiffusion.data.tables import KEPT, REJECTED
from mtadiffusion.engines.engine import Resources
from mtadiffusion.imaging.cleaning import cleaned
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
                        ("reason", pa.string()),
                        ("counts", pa.string()),
                        ("area", pa.int64()),
                        ("quality", pa.float32()),
                    ]
                )
            ),
        ),
    ]
)
"""`objects` goes with the list of the same name in `detections`; `counts` is COCO's compressed RLE at the
image's width and height; `quality` is the segmenter's own estimate of the mask's IoU."""


class Segmenter(Protocol):
    """A model that turns boxes into masks."""

    longest: int
    """The longest side that it makes use of, in pixels."""

    def settings(self) -> Mapping[str, Any]:
        """All that its answers depend on."""

    def load(self) -> None:
        """Load the weights."""

    def segment(
        self, image: Image.Image, boxes_xyxy: Sequence[Sequence[float]], size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Masks bool (N, H, W) at `size` (width, height), and their qualities (N,), of boxes in `image`."""


@dataclass(kw_only=True)
class Segment:
    """Makes the table `masks` of the objects that were detected."""

    segmenter: Segmenter
    """The model."""

    min_area: float = 0.001
    """The least area of a mask, as a share of the image's."""

    max_area: float = 0.95
    """The largest area of a mask, as a share of the image's."""

    min_fit: float = 0.5
    """The least intersection over union of the mask's own box with the detector's."""

    island: float = 0.05
    """Islands and holes smaller than this share of the mask's largest part are removed."""

    name: ClassVar[str] = "masks"
    reads: ClassVar[tuple[str, ...]] = ("index", "detections")
    resources: Resources = field(default_factory=Resources)
    """What one worker occupies."""

    def settings(self) -> Mapping[str, Any]:
        """The segmenter's and the rules'."""
        rules = ("min_area", "max_area", "min_fit", "island")
        return {"segmenter": self.segmenter.settings()} | {name: getattr(self, name) for name in rules}

    def setup(self, inputs: Inputs) -> None:
        """Load the segmenter."""
        self.segmenter.load()

    def run(self, shard: ShardInputs) -> pa.Table:
        """One row an image, one entry an object of `detections`."""
        walk = ObjectWalk(shard, "detections")
        seen = walk.seen(self.segmenter.longest)
        return walk.table((one for view, objects in seen for one in self._entries(view, objects)), SCHEMA)

    def _entries(
        self, view: View, objects: Sequence[tuple[Mapping[str, Any], ...]]
    ) -> Iterator[dict[str, Any]]:
        boxes = [one["box_xyxy"] for (one,) in objects]
        shrink = np.array([view.picture.width / view.size[0], view.picture.height / view.size[1]] * 2)
        masks, qualities = self.segmenter.segment(
            view.picture, (np.array(boxes) * shrink).tolist(), view.size
        )
        for box, mask, quality in zip(boxes, masks, qualities, strict=True):
            runs = cleaned(Runs.of(mask), self.island)
            area = runs.area
            reason = self._fault(runs, area / mask.size, box)
            yield {
                "status": KEPT if reason is None else REJECTED,
                "reason": reason,
                "counts": runs.coco(),
                "area": area,
                "quality": float(quality),
            }

    def _fault(self, mask: Runs, share: float, box_xyxy: Sequence[float]) -> str | None:
        if share < self.min_area or not share:
            return "tiny mask"
        if share > self.max_area:
            return "whole image"
        return None if box_iou(mask.box, box_xyxy) >= self.min_fit else "does not fit its box"
