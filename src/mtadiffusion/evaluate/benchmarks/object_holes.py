"""A benchmark of object holes from any dataset that `mta annotate` made: COCO, Open Images, photographs.

Each item takes one object of one image of the held-out split: its mask, exact, widened or boxed, is the hole,
and its description the prompt. Which objects these are, only dataset, seed and options decide.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage
from tqdm.auto import tqdm

from mtadiffusion.data.coded import CodedRecord
from mtadiffusion.data.records import SPLITS, DatasetRecords
from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.benchmark import ASKS_FOR_ORIGINAL, Item, Settings
from mtadiffusion.evaluate.benchmarks.brushbench import BRUSHNET_SETTINGS, SIDE, check_groups
from mtadiffusion.imaging.masks import mask_box, resize_hole
from mtadiffusion.imaging.windows import Window
from mtadiffusion.seeding import numpy_generator

GROUPS = ("exact", "dilated", "boxed")
"""How a hole follows its object's mask; items take them in turn."""

_SLOW = 2.0


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where an item comes from: all that is kept of it in memory beside the item itself."""

    image: int
    """Index in the dataset's records."""

    thing: int
    """Number of the object in the image's lists."""

    crop_xyxy: tuple[int, int, int, int]
    """A square of the whole image, in its pixels."""


class ObjectHoles:
    """Holes over described objects of an annotated dataset, at most one an image.

    Args:
        path: the dataset's folder.
        count: how many items.
        groups: the kinds of hole, of `exact`, `dilated` and `boxed`.
        margin: how far `dilated` and `boxed` holes reach beyond the object, as a share of the picture's side.
        area: least and greatest share of the picture that the object takes.
        split: of the dataset; training does not see `validation`.
        seed: of the choice of images and objects.
        size: side of the pictures in pixels; images that are smaller are passed over.

    Raises:
        UserError: an option out of range.
    """

    name: str = "object-holes"
    title: str = "Object holes"

    def __init__(
        self,
        path: Path,
        *,
        count: int = 300,
        groups: Sequence[str] = GROUPS,
        margin: float = 0.04,
        area: tuple[float, float] = (0.02, 0.4),
        split: str = "validation",
        seed: int = 0,
        size: int = SIDE,
    ) -> None:
        if count < 1:
            raise UserError("count", "must be at least 1", count)
        if not 0 < margin <= 0.25:
            raise UserError("margin", "must be above 0 and at most 0.25", margin)
        if len(area) != 2 or not 0 < area[0] < area[1] <= 0.9:
            raise UserError("area", "must be two rising shares above 0 and at most 0.9", area)
        if split not in SPLITS:
            raise UserError("split", f"must be one of {', '.join(SPLITS)}", split)
        if not 32 <= size <= 4096:
            raise UserError("size", "must be between 32 and 4096 pixels", size)
        self.path, self.count, self.groups = path, count, check_groups(groups, GROUPS)
        self.margin, self.area, self.split, self.seed, self.size = margin, tuple(area), split, seed, size
        self.settings: Settings = replace(BRUSHNET_SETTINGS, size=size, seed_per_item=True)

    def items(self) -> Sequence[Item]:
        """The items; their images are not decoded for it."""
        return [item for item, _ in self._chosen.values()]

    def picture(self, item: Item) -> np.ndarray:
        """uint8 (size, size, 3), RGB: the largest square of the image that has its object in the middle."""
        place = self._chosen[item.item_id][1]
        record = self._records.coded(place.image)
        try:
            image = Image.fromarray(record.pixels(Window.whole(*record.size)))
        except (OSError, ValueError) as error:
            where = f"{self.path} image {record.image_id}"
            raise UserError(where, f"cannot be read ({error})", remedy="mend the dataset's source") from error
        crop = image.crop(place.crop_xyxy)
        return np.asarray(crop.resize((self.size, self.size), Image.Resampling.LANCZOS))

    def hole(self, item: Item) -> np.ndarray:
        """bool (size, size), True = to be generated; it covers the object, to half a pixel."""
        place = self._chosen[item.item_id][1]
        thing = _cropped(_mask(self._records.coded(place.image), place.thing), place.crop_xyxy)
        return _hole_over(resize_hole(thing, (self.size, self.size)), item.group, self.margin)

    def fingerprint(self) -> str:
        """Of the chosen objects (images by their bytes, masks, texts) and of the options.

        The dataset's other images do not count, nor does the folder that it lies in.
        """
        sum_ = hashlib.blake2b(digest_size=16)
        for item, place in self._chosen.values():
            record = self._records.coded(place.image)
            image = hashlib.blake2b(record.read(), digest_size=16).hexdigest()
            segmentation = record.objects[place.thing].segmentation
            facts = [asdict(item), place.crop_xyxy, segmentation, image, self.size, self.margin]
            sum_.update(json.dumps(facts, sort_keys=True).encode())
        return sum_.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        """All but the open tables."""
        return {name: value for name, value in vars(self).items() if name != "_records"}

    @cached_property
    def _records(self) -> DatasetRecords:
        return DatasetRecords(self.path, self.split)

    @cached_property
    def _chosen(self) -> dict[str, tuple[Item, _Place]]:
        found: dict[str, tuple[Item, _Place]] = {}
        with tqdm(total=self.count, desc="objects", unit="object", delay=_SLOW) as progress:
            for item, place in self._fitting():
                found[item.item_id] = item, place
                progress.update()
                if len(found) == self.count:
                    return found
        rule = f"must hold {self.count} images of at least {self.size} pixels with an object that fits"
        remedy = "lower count or size, or widen area"
        raise UserError(str(self.path), rule, f"{len(found)} in the split {self.split}", remedy)

    def _fitting(self) -> Iterator[tuple[Item, _Place]]:
        number = 0
        for image in numpy_generator(self.seed, "object-holes/images").permutation(len(self._records)):
            place = self._place(int(image))
            if place is not None:
                yield self._item(number, place), place
                number += 1

    def _place(self, image: int) -> _Place | None:
        """One object of the image that fits, None where there is none."""
        record = self._records.coded(image)
        height, width = record.size
        side = min(width, height)
        if side < self.size:
            return None
        least, most = (share * side**2 for share in self.area)
        order = numpy_generator(self.seed, "object-holes/object", image).permutation(len(record.objects))
        for thing in map(int, order):
            if least <= record.objects[thing].area <= most:
                crop = _square_around(mask_box(_mask(record, thing)), width, height)
                if crop is not None:
                    return _Place(image=image, thing=thing, crop_xyxy=crop)
        return None

    def _item(self, number: int, place: _Place) -> Item:
        record = self._records.coded(place.image)
        thing = record.objects[place.thing]
        square = (place.crop_xyxy[2] - place.crop_xyxy[0]) ** 2
        return Item(
            item_id=f"{number:06d}",
            prompt=thing.description,
            group=self.groups[number % len(self.groups)],
            label=thing.label,
            facts=ASKS_FOR_ORIGINAL
            | {
                "category": thing.label,
                "image_id": record.image_id,
                "area": round(thing.area / square, 4),
            },
        )


def _mask(record: CodedRecord, thing: int) -> np.ndarray:
    return record.mask(thing, Window.whole(*record.size))


def _square_around(
    box_xyxy: tuple[int, int, int, int], width: int, height: int
) -> tuple[int, int, int, int] | None:
    """The largest square of the image, as near to the box's middle as it goes; None if the box is longer."""
    side = min(width, height)
    x0, y0, x1, y1 = box_xyxy
    if max(x1 - x0, y1 - y0) > side:
        return None
    left, top = max(0, (x0 + x1 - side) // 2), max(0, (y0 + y1 - side) // 2)
    left, top = min(left, width - side), min(top, height - side)
    return left, top, left + side, top + side


def _cropped(mask: np.ndarray, box_xyxy: tuple[int, int, int, int]) -> np.ndarray:
    x0, y0, x1, y1 = box_xyxy
    return mask[y0:y1, x0:x1]


def _hole_over(thing: np.ndarray, group: str, margin: float) -> np.ndarray:
    """bool (size, size) hole over the object's mask, of the group's kind; leaves at least one pixel."""
    reach = max(1, round(margin * thing.shape[0]))
    hole = thing.copy()
    if group == "dilated":
        hole = ndimage.distance_transform_edt(~thing) <= reach
    if group == "boxed":
        x0, y0, x1, y1 = mask_box(thing)
        hole[max(0, y0 - reach) : y1 + reach, max(0, x0 - reach) : x1 + reach] = True
    return thing if hole.all() else hole
