"""The rows of a dataset that training reads, joined over its tables, for access in any order.

A Parquet shard must be decompressed whole to give one row. What is read in random order is therefore kept a
second time, as uncompressed Arrow files that are mapped into memory: `rows-<fp>/shard-000000.arrow`, made
when first asked for; `<fp>` stands for the tables that they were made from. They can be deleted at any time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mtadiffusion.data.dataset import Dataset
from mtadiffusion.data.files import whole_file
from mtadiffusion.data.tables import KEPT, Table, fingerprint, shard_name

_TABLES = ("index", "detections", "masks", "descriptions")
_OPTIONAL = ("captions",)
_INDEX = ("image_id", "url", "offset", "size", "width", "height", "caption")
_OPEN = 256
"""Shards that stay mapped."""


class DatasetRows:
    """The rows of a dataset's images that have a described object, shard by shard.

    Raises:
        UserError: a table is missing.
    """

    def __init__(self, dataset: Dataset) -> None:
        named = [name for name in _OPTIONAL if name in dataset.manifest.tables]
        self.tables = {name: dataset.table(name) for name in (*_TABLES, *named)}
        self.fingerprint = fingerprint({name: table.key for name, table in self.tables.items()})
        self.shards = [
            shard
            for shard in range(dataset.manifest.shards)
            if all(table.has(shard) for table in self.tables.values())
        ]
        self._folder = dataset.root / f"rows-{self.fingerprint}"

    def shard(self, shard: int) -> pa.Table:
        """A shard's rows: columns of the index, `caption` by the captions table where it has one, and the
        lists `detections`, `masks` and `descriptions`, which go together."""
        return _rows(self._folder / f"{shard_name(shard)}.arrow", tuple(self.tables.items()), shard)

    def row(self, shard: int, number: int) -> dict[str, Any]:
        """One row as plain values."""
        return self.shard(shard).slice(number, 1).to_pylist()[0]


def described(row: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """The objects of a row that have a description, in the form of `data.export`."""
    for detection, mask, text in zip(row["detections"], row["masks"], row["descriptions"], strict=True):
        if text["status"] == KEPT:
            yield {
                "label": detection["label"],
                "score": detection["score"],
                "box_xyxy": detection["box_xyxy"],
                "segmentation": {"size": [row["height"], row["width"]], "counts": mask["counts"]},
                "area": mask["area"],
                "description": text["text"],
            }


@lru_cache(_OPEN)
def _rows(path: Path, tables: tuple[tuple[str, Table], ...], shard: int) -> pa.Table:
    """The rows in `path`, which is made where it can be written."""
    if not path.exists():
        joined = _joined(dict(tables), shard)
        with contextlib.suppress(OSError):
            _write(joined, path)
        if not path.exists():  # a dataset on a disk that is read only
            return joined
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _write(rows: pa.Table, path: Path) -> None:
    with whole_file(path) as file, pa.ipc.new_file(file, rows.schema) as writer:
        writer.write_table(rows)


def _joined(tables: dict[str, Table], shard: int) -> pa.Table:
    rows = tables["index"].read(shard, _INDEX)
    caption = rows["caption"]
    if "captions" in tables:
        caption = pc.coalesce(tables["captions"].read(shard, ["text"])["text"], caption)
    rows = rows.set_column(rows.schema.get_field_index("caption"), "caption", pc.fill_null(caption, ""))
    for name in _TABLES[1:]:
        rows = rows.append_column(name, tables[name].read(shard, ["objects"])["objects"])
    return rows.filter(_has_description(rows["descriptions"])).combine_chunks()


def _has_description(objects: pa.ChunkedArray) -> pa.Array:
    """Whether any object of each row is kept, bool."""
    objects = objects.combine_chunks()
    if isinstance(objects, pa.ChunkedArray):  # an older pyarrow leaves one chunk
        objects = objects.chunk(0)
    kept = pc.equal(pc.struct_field(pc.list_flatten(objects), "status"), KEPT)
    parents = pc.list_parent_indices(objects).filter(kept)
    return pc.is_in(pa.array(range(len(objects)), parents.type), value_set=parents)
