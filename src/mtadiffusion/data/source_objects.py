"""What a source already knows of the objects in an image, read tolerantly.

Objects come as a list of mappings (`objects`, `annotations`) or as parallel lists (`labels`, `boxes`,
`masks`, BrushData's `segmentation`); `MEANINGS` lists the names that are understood. Masks are COCO RLEs,
COCO polygons, BrushData's runs (1-based, column by column) or pictures. A box named `bbox` is COCO's (x, y,
width, height), any other is (x0, y0, x1, y1); numbers up to 1 are shares of the image's sides. A mask says
more than a box: where both are there, the box is the mask's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from mtadiffusion.data.images import decode
from mtadiffusion.errors import UserError
from mtadiffusion.imaging.masks import brushdata_to_runs
from mtadiffusion.imaging.runs import Runs

MEANINGS: dict[str, tuple[str, ...]] = {
    "label": ("label", "labels", "category", "category_name", "class_name", "phrase", "phrases", "names"),
    "box": ("box_xyxy", "box", "boxes", "boxes_xyxy", "bbox", "bboxes"),
    "mask": ("mask", "masks", "segmentation", "segmentations", "rle"),
    "text": ("description", "descriptions", "detailed_description", "llava", "llava_result", "llava_results"),
    "score": ("score", "scores", "confidence", "confidences", "logits"),
}
"""Meaning -> names of fields, the likeliest first."""

LISTS = ("objects", "annotations", "segmentation", "anns")
"""Fields that may hold an image's objects."""

UNNAMED = "object"
"""The label of an object that the source does not name."""


@dataclass(frozen=True, kw_only=True)
class SourceObject:
    """An object that has a place in its image."""

    number: int
    """Which of `rows_of` it is."""

    label: str
    """What it is; `UNNAMED` where the source does not say."""

    box_xyxy: tuple[float, float, float, float]
    """In pixels."""

    score: float
    """The source's confidence, 1 where it has none."""


def source_objects(fields: Mapping[str, Any], size: tuple[int, int]) -> list[SourceObject]:
    """The objects of an image that have a place, the best first: by score, then by the box's area.

    Args:
        fields: what the source says of the image.
        size: (height, width) of the image in pixels.
    """
    found = [_object(number, row, size) for number, row in enumerate(rows_of(fields))]
    placed = [one for one in found if one is not None]
    return sorted(placed, key=lambda one: (-one.score, -_area(one.box_xyxy)))


def rows_of(fields: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The fields of each object, whichever way the source groups them."""
    for name in LISTS:
        value = _parsed(fields.get(name))
        if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            return value
        if isinstance(value, Mapping) and (rows := _from_columns(value)):
            return rows
    return _from_columns(fields)


def is_object(row: Mapping[str, Any]) -> bool:
    """Whether the fields are of one object rather than of an image: they name one thing and its place."""
    return _names_one(row) and any(row.get(name) for kind in ("box", "mask") for name in MEANINGS[kind])


def _names_one(row: Mapping[str, Any]) -> bool:
    return any(isinstance(row.get(name), str) for name in MEANINGS["label"])


def meaning_of(name: str) -> str | None:
    """What a field's name is taken for: a key of `MEANINGS`, or None."""
    return next((meaning for meaning, names in MEANINGS.items() if name in names), None)


def may_be_objects(name: str, value: Any) -> bool:
    """Whether a field that is a list or a mapping could be about an image's objects."""
    return isinstance(value, list | Mapping) and (name in LISTS or meaning_of(name) is not None)


def _parsed(value: Any) -> Any:
    """JSON in a text, or the value itself."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return None
    return value


def _from_columns(fields: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """One mapping an object from lists that go together; they must be of one length."""
    if _names_one(fields):
        return []
    columns = {name: _parsed(value) for name, value in fields.items() if meaning_of(name) is not None}
    lists = {name: value for name, value in columns.items() if isinstance(value, list) and value}
    lengths = {len(value) for value in lists.values()}
    if len(lengths) != 1 or not {"box", "mask"} & {meaning_of(name) for name in lists}:
        return []
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def label_of(row: Mapping[str, Any]) -> str:
    """What an object is, of its fields; `UNNAMED` where they do not say."""
    return _first(row, "label", lambda _, value: _text(value)) or UNNAMED


def text_of(row: Mapping[str, Any]) -> str | None:
    """The description of an object, of its fields."""
    return _first(row, "text", lambda _, value: _text(value))


def mask_of(row: Mapping[str, Any], size: tuple[int, int]) -> Runs | None:
    """The mask of an object, of its fields; None where none fits its image, or it is empty.

    Args:
        row: one of `rows_of`.
        size: (height, width) of the image in pixels.
    """
    return _first(row, "mask", lambda _, value: _mask(value, size))


def _object(number: int, row: Mapping[str, Any], size: tuple[int, int]) -> SourceObject | None:
    mask = mask_of(row, size)
    box = mask.box if mask is not None else _first(row, "box", lambda name, v: _box(name, v, size))
    if box is None:
        return None
    score = _first(row, "score", lambda _, value: _number(value))
    return SourceObject(
        number=number, label=label_of(row), box_xyxy=box, score=1.0 if score is None else score
    )


def _first(row: Mapping[str, Any], meaning: str, read: Callable[[str, Any], Any]) -> Any:
    """What `read` makes of the first field of this meaning that it can read; None if there is none."""
    found = (read(name, _parsed(row[name])) for name in MEANINGS[meaning] if row.get(name) is not None)
    return next((value for value in found if value is not None), None)


def _text(value: Any) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value):
        return min(max(float(value), 0.0), 1.0)
    return None


def _box(name: str, value: Any, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    if not _is_flat(value) or len(value) != 4 or not np.isfinite(value).all():
        return None
    a, b, c, d = (float(number) for number in value)
    if max(a, b, c, d) <= 1:
        a, b, c, d = a * size[1], b * size[0], c * size[1], d * size[0]
    return (a, b, a + c, b + d) if name.startswith("bbox") else (a, b, c, d)


def _mask(value: Any, size: tuple[int, int]) -> Runs | None:
    """Not empty; None of what cannot be read, or is of another size."""
    try:
        mask = _decoded_mask(value, size)
    except (UserError, OSError, ValueError, TypeError, KeyError, OverflowError):
        return None
    return mask if mask is not None and mask.size == size and mask.area else None


def _decoded_mask(value: Any, size: tuple[int, int]) -> Runs | None:
    if isinstance(value, Mapping) and "path" in value:
        return Runs.of(np.array(decode(Path(value["path"]).read_bytes()).convert("L")) >= 128)
    if isinstance(value, Mapping) and "counts" in value:
        fits = tuple(int(side) for side in value.get("size", size)) == size
        return Runs.of_coco({"size": size, "counts": value["counts"]}) if fits else None
    if _is_flat(value):
        return brushdata_to_runs(value, size)
    if isinstance(value, list) and value and all(map(_is_flat, value)):
        return Runs.of(_filled(value, size))
    return None


def _is_flat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(n, int | float) for n in value)


def _filled(polygons: Iterable[Sequence[float]], size: tuple[int, int]) -> np.ndarray:
    """COCO's polygons (x, y, x, y, ...) as one mask."""
    canvas = Image.new("1", (size[1], size[0]))
    draw = ImageDraw.Draw(canvas)
    for polygon in polygons:
        draw.polygon([(x - 0.5, y - 0.5) for x, y in zip(polygon[0::2], polygon[1::2], strict=True)], fill=1)
    return np.array(canvas)


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
