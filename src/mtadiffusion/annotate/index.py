"""The first stage: read the source once, pack what has no lasting place, and note the facts of every image.

Facts only: what is to be kept is decided by `filters`, so that another threshold costs no second reading.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import imagehash
import numpy as np
import pyarrow as pa
from PIL import Image

from mtadiffusion.annotate.stage import Inputs, ShardInputs
from mtadiffusion.data.files import whole_file
from mtadiffusion.data.images import UndecodableImageError, opened, pixels, upright_size
from mtadiffusion.data.sources import RawImage, aesthetic_score, caption_of, flagged_unsafe, read_shard
from mtadiffusion.data.tables import DECODED, UNREADABLE, shard_name
from mtadiffusion.data.tars import Packer
from mtadiffusion.engines.engine import Resources

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("url", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("caption", pa.string()),
        ("aesthetic", pa.float32()),
        ("unsafe", pa.bool_()),
        ("digest", pa.binary(16)),
        ("perceptual_hash", pa.binary(8)),
        ("fields", pa.string()),
    ]
)
_HASHED_SIDE = 64
"""Pictures are decoded to about this size to be checked and hashed."""


@dataclass(kw_only=True)
class Index:
    """Makes the table `index`; packs images that came as single files or in Parquet to `images/`."""

    name: ClassVar[str] = "index"
    reads: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[Resources] = Resources()

    def settings(self) -> Mapping[str, Any]:
        """Nothing to choose."""
        return {}

    def setup(self, inputs: Inputs) -> None:
        """Nothing to load."""

    def run(self, shard: ShardInputs) -> pa.Table:
        """One row an image of the source, in its order."""
        with ExitStack() as stack:
            packing = _Packing(shard, stack)
            known = stack.enter_context(shard.inputs.dataset.known_facts())
            images = (_with_known(image, known(image.key)) for image in read_shard(shard.spec))
            rows = [_row(image, packing) for image in _named_apart(images)]
            packing.close()
        return pa.Table.from_pylist(rows, schema=SCHEMA)


class _Packing:
    """The shard's own tar, begun with the first image that needs it."""

    def __init__(self, shard: ShardInputs, stack: ExitStack) -> None:
        self._root, self._stack = shard.root, stack
        self.url = f"images/{shard_name(shard.number)}.tar"
        self._packer: Packer | None = None
        self._count = 0

    def add(self, data: bytes, suffix: str) -> int:
        if self._packer is None:
            file = self._stack.enter_context(whole_file(self._root / self.url))
            self._packer = Packer(file)
        self._count += 1
        return self._packer.add(f"{self._count - 1:06d}.{suffix}", data)

    def close(self) -> None:
        if self._packer is not None:
            self._packer.close()


def _with_known(image: RawImage, known: Mapping[str, Any]) -> RawImage:
    """An image with what annotation files say of it."""
    if not known:
        return image
    fields = {**image.fields, **known}
    return replace(image, fields=fields, caption=image.caption or caption_of(fields))


def _named_apart(images: Iterator[RawImage]) -> Iterator[tuple[str, RawImage]]:
    """(image_id, image); a key that came before gets a number, so that ids are unique in the shard."""
    seen: dict[str, int] = {}
    for image in images:
        again = seen.get(image.key, 0)
        seen[image.key] = again + 1
        yield (f"{image.key}#{again + 1}" if again else image.key), image


def _row(named: tuple[str, RawImage], packing: _Packing) -> dict[str, Any]:
    image_id, image = named
    row: dict[str, Any] = {
        "image_id": image_id,
        "status": UNREADABLE,
        "reason": image.fault,
        "caption": image.caption,
        "aesthetic": aesthetic_score(image.fields),
        "unsafe": flagged_unsafe(image.fields),
        "fields": json.dumps(image.fields, ensure_ascii=False, sort_keys=True, default=str),
    }
    if image.data is None:
        return row
    try:
        facts = _facts(image.data)
    except UndecodableImageError as error:
        return row | {"reason": str(error)}
    if image.place is None:
        place = {"url": packing.url, "offset": packing.add(image.data, facts["format"])}
    else:
        place = {"url": image.place.url, "offset": image.place.offset}
    return row | facts | place | {"status": DECODED, "size": len(image.data)}


def _facts(data: bytes) -> dict[str, Any]:
    image = opened(data)
    width, height = upright_size(image)
    return {
        "width": width,
        "height": height,
        "format": (image.format or "image").lower(),
        "digest": hashlib.blake2b(data, digest_size=16).digest(),
        "perceptual_hash": _perceptual_hash(pixels(image, _HASHED_SIDE)),
    }


def _perceptual_hash(image: Image.Image) -> bytes:
    """64 bits, of which those differ by which pictures do."""
    return np.packbits(imagehash.phash(image).hash).tobytes()
