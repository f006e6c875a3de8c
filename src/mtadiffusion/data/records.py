"""An annotated dataset as records: what training and evaluation read."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mtadiffusion.data.dataset import Dataset
from mtadiffusion.data.images import decode
from mtadiffusion.data.tables import KEPT
from mtadiffusion.data.tars import MemberReader
from mtadiffusion.errors import UserError
from mtadiffusion.imaging.masks import coco_to_mask, mask_box
from mtadiffusion.records import ImageRecord, ObjectRecord

SPLITS = ("train", "validation")
VALIDATION = 0.02
"""The share of images, chosen by their ids, that training does not see."""

_TABLES = ("index", "detections", "masks", "descriptions")
_OPTIONAL = ("captions",)
_SHARDS_IN_MEMORY = 16


class DatasetRecords:
    """The images of a dataset that have a described object, in the dataset's order.

    Args:
        root: the dataset's folder.
        split: "train" or "validation".
        size: the least short side that is wanted, in pixels; JPEGs are decoded at about that. 0: whole.

    Raises:
        UserError: no dataset, tables that are missing, or a split that it does not have.
    """

    def __init__(self, root: Path, split: str = "train", size: int = 0) -> None:
        if split not in SPLITS:
            raise UserError("split", f"must be one of {', '.join(SPLITS)}", split)
        self.dataset, self.size = Dataset.open(root), size
        named = [name for name in _OPTIONAL if name in self.dataset.manifest.tables]
        self._tables = {name: self.dataset.table(name) for name in (*_TABLES, *named)}
        self._places = [
            (shard, number)
            for shard in range(self.dataset.manifest.shards)
            if all(table.has(shard) for table in self._tables.values())
            for number, row in enumerate(self._tables["descriptions"].read(shard).to_pylist())
            if any(one["status"] == KEPT for one in row["objects"])
            and _is_validation(row["image_id"]) == (split == "validation")
        ]
        self._rows = lru_cache(_SHARDS_IN_MEMORY)(self._read)

    def __len__(self) -> int:
        return len(self._places)

    def record(self, index: int) -> ImageRecord:
        """Image `index` with its described objects; image, masks and boxes at the size it was decoded at."""
        shard, number = self._places[index]
        rows = {name: of_table[number] for name, of_table in self._rows(shard).items()}
        image = self._image(rows["index"])
        objects = zip(*(rows[name]["objects"] for name in _TABLES[1:]), strict=True)
        kept = [
            _object(detection, mask, description, rows["index"], image.shape[:2])
            for detection, mask, description in objects
            if description["status"] == KEPT
        ]
        return ImageRecord(
            image_id=rows["index"]["image_id"],
            image=image,
            caption=rows.get("captions", {}).get("text") or rows["index"]["caption"] or "",
            objects=tuple(one for one in kept if one is not None),
        )

    def _read(self, shard: int) -> dict[str, list[dict[str, Any]]]:
        return {name: table.read(shard).to_pylist() for name, table in self._tables.items()}

    def _image(self, row: dict[str, Any]) -> np.ndarray:
        with MemberReader() as reader:
            data = reader.read(self.dataset.resolved(row["url"]), row["offset"], row["size"])
        aspect = max(row["width"], row["height"]) / min(row["width"], row["height"])
        return np.array(decode(data, round(self.size * aspect) if self.size else None))


def _is_validation(image_id: str) -> bool:
    digest = hashlib.blake2b(image_id.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") < VALIDATION * 2**32


def _object(
    detection: dict[str, Any],
    mask: dict[str, Any],
    description: dict[str, Any],
    image: dict[str, Any],
    size: tuple[int, int],
) -> ObjectRecord | None:
    """One object at `size` (height, width); None where shrinking leaves nothing of its mask."""
    whole = coco_to_mask({"size": [image["height"], image["width"]], "counts": mask["counts"]})
    shrunk = _nearest(whole, size)
    if not shrunk.any():
        return None
    return ObjectRecord(
        label=detection["label"],
        mask=shrunk,
        box_xyxy=mask_box(shrunk),
        description=description["text"],
        score=detection["score"],
    )


def _nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if mask.shape == size:
        return mask
    rows, columns = (
        ((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(size, mask.shape, strict=True)
    )
    return mask[rows[:, None], columns[None]]
