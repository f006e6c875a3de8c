"""Whether a dataset is sound: rows that match, masks that decode, boxes within, texts that say something."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mtadiffusion.data.dataset import Dataset
from mtadiffusion.data.images import UndecodableImageError, decode
from mtadiffusion.data.tables import DECODED, KEPT, Table, shard_name
from mtadiffusion.data.tars import MemberReader
from mtadiffusion.errors import UserError
from mtadiffusion.imaging.runs import Runs

OBJECT_TABLES = ("detections", "masks", "descriptions")
_ROUNDING = 1e-3
"""Pixels by which a box in single precision may pass its image's edge."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that is wrong."""

    place: str
    """Table, shard and image."""

    what: str
    """What is wrong there."""

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"


def problems(dataset: Dataset, *, images: bool = False) -> Iterator[Problem]:
    """Everything that is wrong with the tables in use.

    Args:
        images: also decode every image that has a place.
    """
    tables = {name: dataset.table(name) for name in dataset.manifest.tables}
    for table in tables.values():
        for shard, error in table.quarantined().items():
            last = error.strip().splitlines()[-1]
            yield Problem(place=f"{table.key}, {shard_name(shard)}", what=f"in quarantine: {last}")
    for shard in range(dataset.manifest.shards):
        yield from _shard_problems(dataset, tables, shard, images)


def _shard_problems(
    dataset: Dataset, tables: dict[str, Table], shard: int, images: bool
) -> Iterator[Problem]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, table in tables.items():
        place = f"{table.key}, {shard_name(shard)}"
        if not table.has(shard):
            if shard not in table.quarantined():
                yield Problem(place=place, what="absent: run `mta annotate` again")
            continue
        try:
            rows[name] = table.read(shard).to_pylist()
        except (OSError, ValueError) as error:
            yield Problem(place=place, what=f"cannot be read: {error}")
    if "index" not in rows:
        return
    yield from _unmatched(tables, rows, shard)
    for number, image in enumerate(rows["index"]):
        place = f"{shard_name(shard)}, {image['image_id']}"
        objects = {
            name: rows[name][number]["objects"]
            for name in OBJECT_TABLES
            if name in rows and number < len(rows[name])
        }
        yield from (Problem(place=place, what=what) for what in _object_problems(image, objects))
    if images:
        yield from _image_problems(dataset, rows["index"], shard)


def _unmatched(
    tables: dict[str, Table], rows: dict[str, list[dict[str, Any]]], shard: int
) -> Iterator[Problem]:
    ids = [row["image_id"] for row in rows["index"]]
    if len(set(ids)) < len(ids):
        place = f"{tables['index'].key}, {shard_name(shard)}"
        yield Problem(place=place, what="an image_id comes twice")
    for name, of_table in rows.items():
        if [row["image_id"] for row in of_table] != ids:
            place = f"{tables[name].key}, {shard_name(shard)}"
            yield Problem(place=place, what="its rows are not those of the index")


def _object_problems(image: dict[str, Any], objects: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    lengths = {name: len(found) for name, found in objects.items()}
    if len(set(lengths.values())) > 1:
        yield f"tables disagree on the number of objects: {lengths}"
        return
    for number, one in enumerate(objects.get("detections", [])):
        if not _inside(one["box_xyxy"], image):
            yield f"object {number}: the box {one['box_xyxy']} is not within the image"
        if not one["label"]:
            yield f"object {number}: no label"
    for number, one in enumerate(objects.get("masks", [])):
        if one["status"] == KEPT:
            yield from (f"object {number}: {what}" for what in _mask_problems(one, image))
    for number, one in enumerate(objects.get("descriptions", [])):
        if one["status"] == KEPT and not (one["text"] or "").strip():
            yield f"object {number}: a description without a text"


def _inside(box: list[float], image: dict[str, Any]) -> bool:
    x0, y0, x1, y1 = box
    across, down = image["width"] + _ROUNDING, image["height"] + _ROUNDING
    return -_ROUNDING <= x0 <= x1 <= across and -_ROUNDING <= y0 <= y1 <= down


def _mask_problems(one: dict[str, Any], image: dict[str, Any]) -> Iterator[str]:
    try:
        mask = Runs.of_coco({"size": [image["height"], image["width"]], "counts": one["counts"]})
    except UserError as error:
        yield f"the mask cannot be decoded: {error}"
        return
    if mask.area != one["area"]:
        yield f"the mask has {mask.area} pixels, not {one['area']}"


def _image_problems(dataset: Dataset, index: list[dict[str, Any]], shard: int) -> Iterator[Problem]:
    with MemberReader() as reader:
        for row in index:
            if row["status"] != DECODED:
                continue
            try:
                image = decode(reader.read(dataset.resolved(row["url"]), row["offset"], row["size"]))
            except (OSError, UndecodableImageError) as error:
                yield Problem(place=f"{shard_name(shard)}, {row['image_id']}", what=f"the image: {error}")
                continue
            if image.size != (row["width"], row["height"]):
                what = f"the image is {image.width}x{image.height}, not {row['width']}x{row['height']}"
                yield Problem(place=f"{shard_name(shard)}, {row['image_id']}", what=what)
