"""Stage: a mask for every box, cleaned of islands and holes, and rejected where it cannot be the object's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
from PIL import Image
from scipy import ndimage

from mtadiffusion.annotate.detect import box_iou, kept_rows
from mtadiffusion.annotate.stage import Inputs, ShardInputs
from mtadiffusion.data.tables import KEPT, REJECTED, SKIPPED
from mtadiffusion.engines.engine import Resources
from mtadiffusion.imaging.masks import mask_box, mask_to_coco

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
    reads: ClassVar[tuple[str, ...]] = ("index", "filters", "detections")
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
        index, kept = kept_rows(shard)
        detections = shard.rows("detections").to_pylist()
        seen = [row["objects"] for row, keep in zip(detections, kept, strict=True) if keep]
        wanted = [any(one["status"] == KEPT for one in objects) for objects in seen]
        images = shard.images(index.filter(pa.array(wanted, pa.bool_())), self.segmenter.longest)
        sizes = zip(index["width"].to_pylist(), index["height"].to_pylist(), strict=True)
        found = self._found(seen, wanted, sizes, images)
        rows = [
            {"image_id": row["image_id"], "objects": next(found) if keep else []}
            for row, keep in zip(detections, kept, strict=True)
        ]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def _found(
        self,
        seen: Sequence[list[dict[str, Any]]],
        wanted: Sequence[bool],
        sizes: Iterator[tuple[int, int]],
        images: Iterator[Image.Image],
    ) -> Iterator[list[dict[str, Any]]]:
        for objects, want, size in zip(seen, wanted, sizes, strict=True):
            made = iter(self._masks(next(images), objects, size) if want else ())
            yield [next(made) if one["status"] == KEPT else {"status": SKIPPED} for one in objects]

    def _masks(
        self, image: Image.Image, objects: Sequence[Mapping[str, Any]], size: tuple[int, int]
    ) -> Iterator[dict[str, Any]]:
        boxes = [one["box_xyxy"] for one in objects if one["status"] == KEPT]
        shrink = np.array([image.width / size[0], image.height / size[1]] * 2)
        masks, qualities = self.segmenter.segment(image, (np.array(boxes) * shrink).tolist(), size)
        for box, mask, quality in zip(boxes, masks, qualities, strict=True):
            cleaned = clean_mask(mask, self.island)
            area = int(np.count_nonzero(cleaned))
            reason = self._fault(cleaned, area, box)
            yield {
                "status": KEPT if reason is None else REJECTED,
                "reason": reason,
                "counts": mask_to_coco(cleaned)["counts"],
                "area": area,
                "quality": float(quality),
            }

    def _fault(self, mask: np.ndarray, area: int, box_xyxy: Sequence[float]) -> str | None:
        share = area / mask.size
        if share < self.min_area:
            return "tiny mask"
        if share > self.max_area:
            return "whole image"
        return None if box_iou(mask_box(mask), box_xyxy) >= self.min_fit else "does not fit its box"


def clean_mask(mask: np.ndarray, least: float) -> np.ndarray:
    """bool (H, W) without islands, and without holes, that are smaller than `least` of the largest part."""
    if not mask.any():
        return mask
    x0, y0, x1, y1 = mask_box(mask)
    cleaned = np.zeros_like(mask)
    cleaned[y0:y1, x0:x1] = _clean(mask[y0:y1, x0:x1], least)
    return cleaned


def _clean(mask: np.ndarray, least: float) -> np.ndarray:
    parts, count = ndimage.label(mask)
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    limit = least * areas.max()
    solid = mask if count == 1 else (areas >= max(limit, 1))[parts]
    gaps, count = ndimage.label(~solid)
    closed = np.ones(count + 1, bool)
    closed[0] = False
    for edge in (gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]):
        closed[edge] = False
    if not closed.any():
        return solid
    return solid | (closed & (np.bincount(gaps.ravel(), minlength=count + 1) < limit))[gaps]
