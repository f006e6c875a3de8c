"""The walk that stages share: a shard's images in their order, with their pictures and their objects.

What a stage says of some images or objects becomes a row for every image of the shard here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa
from PIL import Image

from mtadiffusion.annotate.stage import ShardInputs
from mtadiffusion.data.tables import KEPT, SKIPPED

_Item = TypeVar("_Item")
SKIPPED_ENTRY = {"status": SKIPPED}
"""Of what an earlier table left out."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A picture that a stage looks at."""

    picture: Image.Image
    """RGB, upright, perhaps smaller than the image."""

    size: tuple[int, int]
    """(width, height) of the image in pixels."""


def views(shard: ShardInputs, wanted: Sequence[bool], longest: int) -> Iterator[View]:
    """The pictures of those images of a shard that are wanted, one after the other.

    Args:
        shard: a stage's inputs, the table `index` among them.
        wanted: for every image of the shard.
        longest: the longest side that the stage makes use of, in pixels.
    """
    index = shard.rows("index", ["url", "offset", "size", "width", "height"])
    index = index.filter(pa.array(wanted, pa.bool_()))
    sizes = zip(index["width"].to_pylist(), index["height"].to_pylist(), strict=True)
    for picture, size in zip(shard.images(index, longest), sizes, strict=True):
        yield View(picture=picture, size=size)


def kept_images(shard: ShardInputs) -> list[bool]:
    """Whether the filters kept each image of a shard."""
    return [status == KEPT for status in shard.rows("filters", ["status"])["status"].to_pylist()]


def image_ids(shard: ShardInputs) -> list[str]:
    """Of every image of a shard."""
    return shard.rows("index", ["image_id"])["image_id"].to_pylist()


def spread(wanted: Iterable[bool], answers: Iterator[_Item], otherwise: _Item) -> list[_Item]:
    """The next of `answers` for everything that was wanted, `otherwise` for the rest."""
    return [next(answers) if want else otherwise for want in wanted]


def batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Lists of `size` items, the last one perhaps shorter."""
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch


class ObjectWalk:
    """The objects of a shard as some tables have them, whose entries go together.

    Those that the last of the tables kept go on; the others are skipped.

    Args:
        shard: a stage's inputs.
        tables: names of tables with lists `objects`.
    """

    def __init__(self, shard: ShardInputs, *tables: str) -> None:
        self._shard = shard
        rows = [shard.rows(name, ["image_id", "objects"]).to_pylist() for name in tables]
        self._ids = [row["image_id"] for row in rows[0]]
        self._objects = [
            list(zip(*(row["objects"] for row in of_image), strict=True))
            for of_image in zip(*rows, strict=True)
        ]

    def kept(self) -> list[list[tuple[Mapping[str, Any], ...]]]:
        """Of every image the objects that go on, each as its entries in the tables."""
        return [[one for one in objects if _goes_on(one)] for objects in self._objects]

    def seen(self, longest: int) -> Iterator[tuple[View, list[tuple[Mapping[str, Any], ...]]]]:
        """The picture of every image that has objects that go on, and these objects; see `views`."""
        kept = self.kept()
        pictures = views(self._shard, [bool(objects) for objects in kept], longest)
        yield from zip(pictures, filter(None, kept), strict=True)

    def table(self, entries: Iterator[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
        """A row an image, an entry an object: the next of `entries` where it goes on."""
        rows = [
            {"image_id": image_id, "objects": spread(map(_goes_on, objects), entries, SKIPPED_ENTRY)}
            for image_id, objects in zip(self._ids, self._objects, strict=True)
        ]
        return pa.Table.from_pylist(rows, schema=schema)


def _goes_on(entries: Sequence[Mapping[str, Any]]) -> bool:
    return entries[-1]["status"] == KEPT
