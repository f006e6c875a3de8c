"""What of a source's fields was understood, so that a user sees which were not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mtadiffusion.data.dataset import Dataset
from mtadiffusion.data.source_objects import LISTS, meaning_of, rows_of
from mtadiffusion.data.sources import AESTHETIC_FIELDS, CAPTION_FIELDS, NSFW_FIELDS, UNSAFE_FIELDS

_OF_IMAGES: dict[str, tuple[str, ...]] = {
    "caption": CAPTION_FIELDS,
    "aesthetic score": AESTHETIC_FIELDS,
    "safety": (*NSFW_FIELDS, *UNSAFE_FIELDS),
    "objects": LISTS,
}


@dataclass(frozen=True, kw_only=True)
class Understood:
    """One field of a source."""

    field: str
    """Its name; of a field of an object, `object.NAME`."""

    meaning: str | None
    """What it was taken for; None: it is kept in the index and nothing reads it."""

    count: int
    """Images or objects that have it."""


def understood(dataset: Dataset) -> list[Understood]:
    """Every field of a dataset's source, the frequent ones first."""
    index, counts = dataset.table("index"), Counter[tuple[str, str | None]]()
    for shard in range(dataset.manifest.shards):
        if index.has(shard):
            for text in index.read(shard, ["fields"])["fields"].to_pylist():
                counts.update(_named(json.loads(text)))
    return [
        Understood(field=name, meaning=meaning, count=count)
        for (name, meaning), count in counts.most_common()
    ]


def _named(fields: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    objects = rows_of(fields)
    for name in fields:
        yield name, _meaning_for_images(name) or (meaning_of(name) if objects else None)
    for row in objects:
        for name in row:
            if name not in fields:
                yield f"object.{name}", meaning_of(name)


def _meaning_for_images(name: str) -> str | None:
    return next((meaning for meaning, names in _OF_IMAGES.items() if name in names), None)
