"""The one contract between annotation, training and evaluation: an image and the objects in it.

Annotators and the sticker renderer write records; training and evaluation read them. Nothing here knows
where a record comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mtadiffusion.phrases import plain_prompt


@dataclass(frozen=True, kw_only=True)
class ObjectRecord:
    """One object of an image."""

    label: str
    """The object's name, e.g. "apple"."""

    mask: np.ndarray
    """bool (H, W), True on the object's visible pixels."""

    box_xyxy: tuple[int, int, int, int]
    """Box around the visible pixels: x0, y0 inclusive, x1, y1 exclusive, in pixels."""

    description: str
    """Detailed text about the object's content and style (the prompt of its mask in training)."""

    score: float = 1.0
    """The detector's confidence in [0, 1]."""

    attributes: Mapping[str, str] = field(default_factory=dict)
    """What else is known, by name, e.g. {"style": "fluent-3d", "colour": "red"}."""

    @property
    def plain_prompt(self) -> str:
        """What someone types who wants such an object, in whatever style: "a red apple"."""
        return plain_prompt(self.label, self.attributes.get("colour"))


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """An image, its caption and its objects."""

    image_id: str
    """Unique in its dataset."""

    image: np.ndarray
    """uint8 (H, W, 3), RGB."""

    caption: str
    """Text about the whole image (the prompt of random masks in training)."""

    objects: tuple[ObjectRecord, ...] = ()
    """Front to back order is not implied."""

    attributes: Mapping[str, str] = field(default_factory=dict)
    """What else is known of the whole image."""
