"""An annotated dataset as records: what training and evaluation read."""

from __future__ import annotations

import hashlib
import logging
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm.auto import tqdm

from mtadiffusion.data.coded import CodedObject, CodedRecord
from mtadiffusion.data.dataset import Dataset
from mtadiffusion.data.rows import DatasetRows, described
from mtadiffusion.data.tables import shard_name
from mtadiffusion.data.tars import read_range
from mtadiffusion.errors import UserError
from mtadiffusion.records import ImageRecord

_log = logging.getLogger(__name__)

SPLITS = ("train", "validation")
VALIDATION = 0.02
"""The share of images, chosen by their ids, that training does not see."""


class DatasetRecords:
    """The images of a dataset that have a described object, in the dataset's order.

    Args:
        root: the dataset's folder.
        split: "train" or "validation".
        size: the short side of `record`'s pictures where they have more, in pixels; 0: as they are.

    Damaged shards are left out with a warning; `damaged_share` says how many of them there were.

    Raises:
        UserError: no dataset, tables that are missing, or a split that it does not have.
    """

    def __init__(self, root: Path, split: str = "train", size: int = 0) -> None:
        check_split(split)
        self.dataset, self.size, self._split = Dataset.open(root), size, split
        self._rows = DatasetRows(self.dataset)
        found = [self._of_split(shard) for shard in tqdm(self._rows.shards, "shards", leave=False)]
        self.damaged_share = sum(one is None for one in found) / max(1, len(found))
        whole = [one for one in found if one is not None]
        self._places = np.concatenate([np.empty((0, 2), np.int32), *whole])  # (N, 2): shard, row

    def _of_split(self, shard: int) -> np.ndarray | None:
        try:
            ids = self._rows.shard(shard)["image_id"].to_pylist()
        except (pa.ArrowException, OSError) as error:
            place = self.dataset.root / shard_name(shard)
            _log.warning("%s is damaged (%s); its images are left out", place, error)
            return None
        rows = [row for row, one in enumerate(ids) if in_split(one, self._split)]
        return np.array([(shard, row) for row in rows], np.int32).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._places)

    def record(self, index: int) -> ImageRecord:
        """Image `index` with its described objects, decoded."""
        return self.coded(index).decoded(self.size)

    def coded(self, index: int) -> CodedRecord:
        """Image `index` with its described objects, to be decoded in part."""
        shard, number = self._places[index].tolist()
        row = self._rows.row(shard, number)
        url = self.dataset.resolved(row["url"])
        return CodedRecord(
            image_id=row["image_id"],
            size=(row["height"], row["width"]),
            caption=row["caption"],
            objects=[CodedObject.of(one) for one in described(row)],
            read=partial(read_range, url, row["offset"], row["size"]),
        )

    def sizes(self) -> np.ndarray:
        """(height, width) of every picture, int (N, 2)."""
        found = [np.empty((0, 2), np.int64)]
        for shard in np.unique(self._places[:, 0]).tolist():
            table = self._rows.shard(shard).take(self._places[self._places[:, 0] == shard, 1])
            found.append(np.stack([pc.cast(table[side], "int64") for side in ("height", "width")], axis=1))
        return np.concatenate(found)

    def fingerprint(self) -> str:
        """Names the content: the tables, and how many records they give."""
        return f"{self._rows.fingerprint}/{self._split}/{len(self)}"


def check_split(split: str) -> None:
    """Raises UserError for a split that datasets do not have."""
    if split not in SPLITS:
        raise UserError("split", f"must be one of {', '.join(SPLITS)}", split)


def in_split(image_id: str, split: str) -> bool:
    """Whether the image of this id belongs to the split."""
    digest = hashlib.blake2b(image_id.encode(), digest_size=4).digest()
    return (int.from_bytes(digest, "little") < VALIDATION * 2**32) == (split == "validation")
