"""Crops of training pictures: their shapes, which part of a picture they show, and records cut to them.

A picture goes into the bucket whose shape is nearest to its own; with one bucket all crops are square. A crop
is drawn so that it keeps what it can of one object (docs/method.md, section 5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mtadiffusion.config import DataConfig
from mtadiffusion.errors import UserError
from mtadiffusion.imaging.windows import BoxXYXY, Window, cut_image, cut_mask
from mtadiffusion.records import ImageRecord, ObjectRecord

Shape = tuple[int, int]
"""(height, width) in pixels."""


class DescribedObject(Protocol):
    """What training reads of an object; `records.ObjectRecord` and `data.coded.CodedObject` are such."""

    @property
    def box_xyxy(self) -> tuple[float, float, float, float]:
        """Pixels of the whole picture."""

    @property
    def description(self) -> str:
        """Detailed text about content and style."""

    @property
    def plain_prompt(self) -> str:
        """What someone types who wants such an object, in whatever style."""


class PartialRecord(Protocol):
    """A record of which a window can be had without the rest; `data.coded.CodedRecord` is one."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the whole picture, in whose pixels boxes are given."""

    @property
    def caption(self) -> str:
        """Text about the whole picture."""

    @property
    def objects(self) -> Sequence[DescribedObject]:
        """Those that are described."""

    def pixels(self, window: Window) -> np.ndarray:
        """uint8 (height, width, 3), RGB."""

    def mask(self, number: int, window: Window) -> np.ndarray:
        """bool (height, width) of object `number`."""

    def area(self, number: int) -> float:
        """Share of the whole picture that object `number` covers."""


@dataclass(frozen=True)
class WholeRecord:
    """A record that is in memory."""

    record: ImageRecord

    @property
    def size(self) -> tuple[int, int]:
        """See `PartialRecord`, as the others."""
        return self.record.image.shape[0], self.record.image.shape[1]

    @property
    def caption(self) -> str:
        """The record's."""
        return self.record.caption

    @property
    def objects(self) -> Sequence[ObjectRecord]:
        """The record's."""
        return self.record.objects

    def pixels(self, window: Window) -> np.ndarray:
        """The window of the picture."""
        return cut_image(self.record.image, window)

    def mask(self, number: int, window: Window) -> np.ndarray:
        """The window of a mask."""
        return cut_mask(self.record.objects[number].mask, window)

    def area(self, number: int) -> float:
        """Counted."""
        return float(self.record.objects[number].mask.mean())


def partial_record(source: Any, index: int) -> PartialRecord:
    """The source's record `index`, as little of it decoded as the source can."""
    if hasattr(source, "coded"):
        return source.coded(index)
    return WholeRecord(source.record(index))


def bucket_shapes(config: DataConfig) -> tuple[Shape, ...]:
    """The shapes of training pictures: the square one first, then by height.

    Sides of the others are multiples of `bucket_step`; they have at most the square's pixels, and their
    longer side is at most `max_aspect` times the shorter one.
    """
    size, step = config.size, config.bucket_step
    shapes = [(size, size)]
    if config.max_aspect == 1:
        return tuple(shapes)
    for height in range(step, round(size * math.sqrt(config.max_aspect)) + step, step):
        width = size * size // height // step * step
        fits = max(height, width) <= config.max_aspect * min(height, width)
        if fits and (height, width) != shapes[0]:
            shapes.append((height, width))
    return tuple(shapes)


def nearest_buckets(sizes: np.ndarray, shapes: Sequence[Shape]) -> np.ndarray:
    """Which of the shapes is nearest in aspect ratio to each size: int (N, 2) (height, width) -> int (N,)."""
    aspects = np.log(sizes[:, 1] / sizes[:, 0])
    of_shapes = np.array([math.log(width / height) for height, width in shapes])
    return np.abs(aspects[:, None] - of_shapes).argmin(axis=1)


def check_divisible(config: DataConfig, factor: int) -> None:
    """Raises UserError unless the sides of all training pictures are multiples of the backbone's factor."""
    for name, side in (("size", config.size), ("bucket_step", config.bucket_step)):
        if side % factor and (name == "size" or config.max_aspect > 1):
            below = side // factor * factor
            remedy = f"the backbone halves it down to one cell; take {below or factor} or {below + factor}"
            raise UserError(f"data.{name}", f"must be a multiple of {factor}", side, remedy)


def choose_window(
    size: tuple[int, int], shape: Shape, rng: np.random.Generator, focus: BoxXYXY | None = None
) -> Window:
    """A random crop of this shape, as large a part of the picture as has it.

    Args:
        size: (height, width) of the whole picture.
        shape: (height, width) of the crop.
        rng: draws its place.
        focus: a box of the picture; the crop holds it whole, or is filled by it where it is longer.
    """
    scale = max(side / whole for side, whole in zip(shape, size, strict=True))
    scaled = tuple(max(side, round(whole * scale)) for side, whole in zip(shape, size, strict=True))
    x0, y0, x1, y1 = focus or (0.0, 0.0, 0.0, 0.0)
    x, y = scaled[1] / size[1], scaled[0] / size[0]
    spans = {"left": (x0 * x, x1 * x), "top": (y0 * y, y1 * y)} if focus else {}
    left = _offset(rng, shape[1], scaled[1], spans.get("left"))
    top = _offset(rng, shape[0], scaled[0], spans.get("top"))
    return Window(scaled=(scaled[0], scaled[1]), top=top, left=left, height=shape[0], width=shape[1])


def _offset(rng: np.random.Generator, side: int, whole: int, span: tuple[float, float] | None) -> int:
    """Where a window of `side` pixels starts in `whole`, so that it and the span hold one another."""
    low, high = 0, whole - side
    if span is not None:
        ends = sorted((math.floor(span[0]), math.ceil(span[1]) - side))
        low, high = (min(max(end, 0), whole - side) for end in ends)
    return int(rng.integers(low, high + 1))
