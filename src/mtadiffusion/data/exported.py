"""Shards that `mta data export --format webdataset` wrote, as records, read where they lie in any order.

The places of a tar's members are found by one pass over its headers; nothing is unpacked. Paths may be fsspec
URLs.
"""

from __future__ import annotations

import json
import logging
import math
import tarfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import PurePosixPath
from typing import Any

import fsspec
import numpy as np
from fsspec.core import url_to_fs
from tqdm.auto import tqdm

from mtadiffusion.data.coded import CodedObject, CodedRecord
from mtadiffusion.data.images import LARGEST_PIXELS, opened, upright_size
from mtadiffusion.data.records import check_split, in_split
from mtadiffusion.data.sources import IMAGE_SUFFIXES
from mtadiffusion.data.tables import fingerprint
from mtadiffusion.data.tars import read_range
from mtadiffusion.errors import UserError
from mtadiffusion.records import ImageRecord

_log = logging.getLogger(__name__)

_THREADS = 16
_EXCERPT = 40
_IN_MEMORY = 1024


class _DamagedFactsError(ValueError):
    """A sample's JSON cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one sample lies in a tar: first byte and length of its picture and of its facts."""

    picture: tuple[int, int]
    facts: tuple[int, int]

    size: tuple[int, int]
    """(height, width) of the picture."""


def exported_shards(location: str) -> list[str]:
    """The tars in a folder, those of a glob, or the one tar, sorted; none where it names something else."""
    if not location or "\0" in location:
        return []
    filesystem, path = url_to_fs(location)
    if any(sign in path for sign in "*?["):
        found = filesystem.glob(path)
    elif path.endswith(".tar"):
        found = [path] if filesystem.exists(path) else []
    else:
        found = filesystem.glob(f"{path.rstrip('/')}/*.tar") if filesystem.isdir(path) else []
    tars = sorted(one for one in found if one.endswith(".tar"))
    return [filesystem.unstrip_protocol(one) if "://" in location else one for one in tars]


class ExportedRecords:
    """The samples of exported shards, in the shards' order.

    Args:
        location: folder, glob or file, local or an fsspec URL.
        split: "train" or "validation", the same images as the dataset's own.
        size: the short side of `record`'s pictures where they have more, in pixels; 0: as they are.

    Damaged shards are left out with a warning; `damaged_share` says how many of them there were.

    Raises:
        UserError: no shards, or ones that something else wrote.
    """

    def __init__(self, location: str, split: str = "train", size: int = 0) -> None:
        check_split(split)
        self._shards, self._split, self.size = exported_shards(location), split, size
        if not self._shards:
            raise UserError("data.source", "must hold tars", location, "write them with `mta data export`")
        with ThreadPoolExecutor(_THREADS) as pool:
            scanned = tqdm(pool.map(_scanned, self._shards), "shards", len(self._shards), leave=False)
            found = list(scanned)
        self.damaged_share = found.count(None) / len(found)
        of_shards = [[place for id_, place in shard or () if in_split(id_, split)] for shard in found]
        self._places = np.array(
            [
                (shard, *place.picture, *place.facts, *place.size)
                for shard, places in enumerate(of_shards)
                for place in places
            ],
            np.int64,
        ).reshape(-1, 7)

    def __len__(self) -> int:
        return len(self._places)

    def record(self, index: int) -> ImageRecord:
        """Sample `index`, decoded."""
        return self.coded(index).decoded(self.size)

    def coded(self, index: int) -> CodedRecord:
        """Sample `index`, to be decoded in part."""
        shard, picture, length, first, facts_length, height, width = self._places[index].tolist()
        url = self._shards[shard]
        facts = _facts(url, first, facts_length)
        return CodedRecord(
            image_id=facts["image_id"],
            size=(height, width),
            caption=facts["caption"],
            objects=[CodedObject.of(one) for one in facts["objects"]],
            read=partial(read_range, url, picture, length),
        )

    def sizes(self) -> np.ndarray:
        """(height, width) of every picture, int (N, 2)."""
        return self._places[:, 5:]

    def fingerprint(self) -> str:
        """Names the content: the shards' names and the members' places."""
        names = [PurePosixPath(url).name for url in self._shards]
        return fingerprint({"shards": names, "places": self._places.tolist(), "split": self._split})


def _scanned(url: str) -> list[tuple[str, Place]] | None:
    """(image id, place) of the samples of a tar; None where it is damaged, with a warning."""
    try:
        with fsspec.open(url, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            samples = list(_samples(tar))
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise tarfile.ReadError("it ends early")  # which tarfile does not tell from an end
            return [_placed(url, members) for members in samples]
    except (tarfile.TarError, OSError, _DamagedFactsError) as error:
        _log.warning("%s is damaged (%s); its samples are left out", url, error)
        return None


def _placed(url: str, members: dict[str, tarfile.TarInfo]) -> tuple[str, Place]:
    picture = next((members[suffix] for suffix in IMAGE_SUFFIXES if suffix in members), None)
    if picture is None or "json" not in members:
        rule = "must be shards of `mta data export --format webdataset`"
        remedy = "read others with `mta data import` or `mta annotate`, and train on that dataset"
        raise UserError("data.source", rule, f"{url}: a sample of {', '.join(sorted(members))}", remedy)
    of_picture, of_facts = ((one.offset_data, one.size) for one in (picture, members["json"]))
    facts = _facts(url, *of_facts)
    size = _size(facts, url, of_picture)
    return facts["image_id"], Place(picture=of_picture, facts=of_facts, size=size)


def _samples(tar: tarfile.TarFile) -> Iterator[dict[str, tarfile.TarInfo]]:
    """Consecutive members of one name, by suffix."""
    key, members = "", dict[str, tarfile.TarInfo]()
    for entry in tar:
        stem, _, suffix = entry.name.rpartition(".")
        if stem != key and members:
            yield members
            members = {}
        key = stem
        members[suffix.lower()] = entry
    if members:
        yield members


@lru_cache(_IN_MEMORY)
def _facts(url: str, first: int, size: int) -> dict[str, Any]:
    """What a sample's JSON says, checked."""
    try:
        facts = json.loads(read_range(url, first, size))
    except ValueError as error:
        raise _DamagedFactsError(f"the JSON at byte {first} cannot be read: {error}") from error
    _check_fields(facts, _FACTS, url)
    for item in facts["objects"]:
        _check_fields(item, _OBJECT, url)
    return facts


def _check_fields(facts: Any, needed: Mapping[str, Callable[[Any], bool]], url: str) -> None:
    have = facts if isinstance(facts, dict) else {}
    if lacking := sorted(needed.keys() - have.keys()):
        there = ", ".join(sorted(have)) or "none"
        remedy = f"fields there: {there}; `mta data import` reads others' datasets"
        raise UserError("data.source", f"has samples without {', '.join(lacking)}", url, remedy)
    for name, fits in needed.items():
        if not fits(have[name]):
            rule = f"has a sample whose {name} is {repr(have[name])[:_EXCERPT]}"
            raise UserError("data.source", rule, url, "write the shard again with `mta data export`")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == len("xyxy") and all(map(_is_number, value))


def _is_segmentation(value: Any) -> bool:
    size, counts = (value.get("size"), value.get("counts")) if isinstance(value, dict) else (None, None)
    if not isinstance(size, list) or len(size) != 2 or not isinstance(counts, str | list):
        return False
    whole = all(isinstance(side, int) and side > 0 for side in size)
    return whole and size[0] * size[1] <= LARGEST_PIXELS


_FACTS = {"image_id": _is_text, "caption": _is_text, "objects": _is_list}
_OBJECT = {
    "label": _is_text,
    "score": _is_number,
    "box_xyxy": _is_box,
    "segmentation": _is_segmentation,
    "area": _is_number,
    "description": _is_text,
}
"""What a sample and each of its objects must say."""


def _size(facts: dict[str, Any], url: str, picture: tuple[int, int]) -> tuple[int, int]:
    """(height, width) that the masks have, else that the picture's header says."""
    for item in facts["objects"]:
        height, width = item["segmentation"]["size"]
        return int(height), int(width)
    width, height = upright_size(opened(read_range(url, *picture)))
    return height, width
