"""A record whose picture and masks are still encoded: each is decoded when asked for, at the size wanted.

An annotated dataset (`records`) and exported shards (`exported`) give such records to training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtadiffusion.data.images import decode_reduced
from mtadiffusion.imaging.masks import coco_to_mask, mask_box
from mtadiffusion.imaging.windows import Window, cut_image, cut_mask
from mtadiffusion.phrases import plain_prompt
from mtadiffusion.records import ImageRecord, ObjectRecord


@dataclass(frozen=True, kw_only=True)
class CodedObject:
    """One described object."""

    label: str

    description: str

    box_xyxy: tuple[float, float, float, float]
    """In pixels of the whole picture."""

    segmentation: dict[str, Any]
    """COCO RLE at the whole picture's size."""

    area: int
    """Pixels of the mask."""

    score: float = 1.0

    @property
    def plain_prompt(self) -> str:
        """What someone types who wants such an object, in whatever style: "an apple"."""
        return plain_prompt(self.label, None)

    @classmethod
    def of(cls, facts: dict[str, Any]) -> CodedObject:
        """From what `data.export` writes of an object."""
        x0, y0, x1, y1 = (float(value) for value in facts["box_xyxy"])
        return cls(
            label=facts["label"],
            description=facts["description"],
            box_xyxy=(x0, y0, x1, y1),
            segmentation=facts["segmentation"],
            area=int(facts["area"]),
            score=float(facts["score"]),
        )


@dataclass(frozen=True, kw_only=True)
class CodedRecord:
    """A picture with its described objects."""

    image_id: str

    size: tuple[int, int]
    """(height, width) of the whole picture, upright."""

    caption: str

    objects: Sequence[CodedObject]

    read: Callable[[], bytes]
    """Reads the encoded picture."""

    def pixels(self, window: Window) -> np.ndarray:
        """The window's part of the picture, uint8 (height, width, 3) RGB, decoded at no more than it needs.

        Raises:
            UndecodableImageError: damaged, or no picture.
            OSError: it cannot be read.
        """
        return cut_image(np.asarray(decode_reduced(self.read(), min(window.scaled))), window)

    def mask(self, number: int, window: Window) -> np.ndarray:
        """The window's part of the mask of object `number`, bool (height, width)."""
        return cut_mask(coco_to_mask(self.objects[number].segmentation), window)

    def area(self, number: int) -> float:
        """Share of the whole picture that object `number` covers."""
        return self.objects[number].area / (self.size[0] * self.size[1])

    def decoded(self, shortest: int = 0) -> ImageRecord:
        """The whole record, its short side `shortest` if it is longer; 0: as it is.

        Objects of which shrinking leaves nothing are left out.
        """
        height, width = self.size
        scale = min(1.0, shortest / min(self.size)) if shortest else 1.0
        window = Window.whole(max(1, round(height * scale)), max(1, round(width * scale)))
        masks = [self.mask(number, window) for number in range(len(self.objects))]
        return ImageRecord(
            image_id=self.image_id,
            image=self.pixels(window),
            caption=self.caption,
            objects=tuple(
                ObjectRecord(
                    label=item.label,
                    mask=mask,
                    box_xyxy=mask_box(mask),
                    description=item.description,
                    score=item.score,
                )
                for item, mask in zip(self.objects, masks, strict=True)
                if mask.any()
            ),
        )
