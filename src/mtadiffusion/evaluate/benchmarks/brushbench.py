"""BrushBench, and EditBench as BrushNet's authors processed it: `mapping_file.json` beside the pictures.

Pictures are 512x512; masks are flat run-length lists, 1-based and row-major, 1 = hole (arXiv 2403.06976).
BrushData, from the same authors, has such lists column by column: read as the other, either is its hole
mirrored in the diagonal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mtadiffusion.errors import UserError, nearest_name
from mtadiffusion.evaluate.benchmark import ASKS_FOR_ORIGINAL, Item, Settings
from mtadiffusion.evaluate.benchmarks.folder import absent, check_id, check_size, digest, inside, read_mapping
from mtadiffusion.imaging.images import load_image
from mtadiffusion.imaging.masks import brushbench_to_mask

MAPPING = "mapping_file.json"
SIDE = 512
INSIDE = "inside"
BRUSHNET_SETTINGS = Settings(
    size=SIDE,
    steps=50,
    guidance_scale=7.5,
    scheduler="UniPCMultistepScheduler",
    seed=1234,
    blend="brushnet",
)
"""How BrushNet's authors made the figures of their tables: every item starts from the same noise."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    image: Path
    runs: np.ndarray
    """int32 (2 N,): start, length, start, length, ..."""


class _MappedBenchmark:
    """Items listed in a `mapping_file.json`."""

    name: str
    title: str
    settings: Settings = BRUSHNET_SETTINGS

    def __init__(self, path: Path, *, allow_missing: bool = False) -> None:
        self.path, self.allow_missing = path, allow_missing

    def items(self) -> Sequence[Item]:
        """All items in the mapping's order; lists, masks and the pictures' headers are checked at first."""
        return self._read[0]

    @property
    def missing(self) -> Sequence[str]:
        """The pictures that are left out because they are not there; some only where `allow_missing`."""
        return self._read[2]

    def picture(self, item: Item) -> np.ndarray:
        """uint8 (512, 512, 3), RGB."""
        path = self._read[1][item.item_id].image
        return np.asarray(load_image(path, f"{path} of item {item.item_id}:"))

    def hole(self, item: Item) -> np.ndarray:
        """bool (512, 512), True = to be generated."""
        return brushbench_to_mask(self._read[1][item.item_id].runs.tolist(), (SIDE, SIDE))

    def fingerprint(self) -> str:
        """Of the mapping's bytes, the items taken from it, and the pictures (see `folder.digest`)."""
        items, entries, _ = self._read
        mapping = hashlib.blake2b((self.path / MAPPING).read_bytes(), digest_size=16).hexdigest()
        facts = {"benchmark": self.name, "mapping": mapping, "items": [item.item_id for item in items]}
        return digest(facts, dict.fromkeys(entry.image for entry in entries.values()))

    def _mask_keys(self, mapping: Mapping[str, Any]) -> Mapping[str, str]:
        """Group -> the name of its mask in an entry."""
        raise NotImplementedError

    @cached_property
    def _read(self) -> tuple[list[Item], dict[str, _Entry], list[str]]:
        mapping = read_mapping(self.path / MAPPING, self.title)
        for key, entry in mapping.items():
            self._check(key, entry)
        pictures = dict.fromkeys(entry["image"] for entry in mapping.values())
        missing = absent(self.path, pictures, allowed=self.allow_missing)
        keys, left_out = self._mask_keys(mapping), set(missing)
        items, entries = [], {}
        for key, entry in mapping.items():
            if entry["image"] in left_out:
                continue
            image = self.path / entry["image"]
            check_size(image, (SIDE, SIDE), self._where(key))
            for group, name in keys.items():
                item_id = key if group == Item.group else f"{key}-{group}"
                facts = ASKS_FOR_ORIGINAL if group == INSIDE else {}
                items.append(Item(item_id=item_id, prompt=entry["caption"].strip(), group=group, facts=facts))
                entries[item_id] = _Entry(image=image, runs=self._runs(key, entry, name))
        return items, entries, missing

    def _where(self, key: str) -> str:
        return f"{self.path / MAPPING} item {key}:"

    def _check(self, key: str, entry: Any) -> None:
        where = self._where(key)
        check_id(key, where)
        if not isinstance(entry, dict):
            raise UserError(where, "must be an object", type(entry).__name__)
        for name in ("image", "caption"):
            if not isinstance(entry.get(name), str) or not entry[name].strip():
                rule = f"must have a text {name!r}"
                raise UserError(where, rule, entry.get(name), f"it has: {', '.join(entry) or 'nothing'}")
        inside(self.path, entry["image"], where)

    def _runs(self, key: str, entry: Mapping[str, Any], name: str) -> np.ndarray:
        where = f"{self._where(key)} {name}"
        if not isinstance(entry.get(name), list):
            remedy = f"the item has: {', '.join(entry)}"
            raise UserError(where, "must be a list [start, length, ...]", entry.get(name), remedy)
        try:
            hole = brushbench_to_mask(entry[name], (SIDE, SIDE))
        except UserError as error:
            remedy = "download the file again: BrushBench's masks are 1-based, row-major, of 512x512"
            raise UserError(where, str(error).removeprefix("mask RLE "), remedy=remedy) from None
        if not hole.any() or hole.all():
            rule = "must leave a part of the picture and take another"
            raise UserError(where, rule, f"{hole.mean():.0%} hole", "remove the item")
        return np.array(entry[name], dtype=np.int32)


_BRUSHBENCH_GROUPS = {INSIDE: "inpainting_mask", "outside": "outpainting_mask"}


class BrushBench(_MappedBenchmark):
    """600 pictures, each with a hole over its object (`inside`) and one around it (`outside`).

    Args:
        path: folder with `mapping_file.json`.
        groups: which of `inside` and `outside` to take.
        allow_missing: go on without the pictures that are not there.
    """

    name = "brushbench"
    title = "BrushBench"

    def __init__(
        self, path: Path, *, groups: Sequence[str] = tuple(_BRUSHBENCH_GROUPS), allow_missing: bool = False
    ) -> None:
        super().__init__(path, allow_missing=allow_missing)
        self.groups = check_groups(groups, tuple(_BRUSHBENCH_GROUPS))

    def _mask_keys(self, mapping: Mapping[str, Any]) -> Mapping[str, str]:
        return {group: _BRUSHBENCH_GROUPS[group] for group in self.groups}


class BrushNetEditBench(_MappedBenchmark):
    """EditBench in BrushBench's form: one hole a picture.

    Args:
        path: folder with `mapping_file.json`.
        mask_key: the name of the masks in the file; None: `mask` or `inpainting_mask`, whichever is there.
        allow_missing: go on without the pictures that are not there.
    """

    name = "editbench-brushnet"
    title = "EditBench (BrushNet's)"

    def __init__(self, path: Path, *, mask_key: str | None = None, allow_missing: bool = False) -> None:
        super().__init__(path, allow_missing=allow_missing)
        self.mask_key = mask_key

    def _mask_keys(self, mapping: Mapping[str, Any]) -> Mapping[str, str]:
        first = next(iter(mapping.values()))
        wanted = ("mask", "inpainting_mask") if self.mask_key is None else (self.mask_key,)
        found = [name for name in wanted if name in first]
        if not found:
            rule = f"must have masks called {' or '.join(wanted)}"
            have = ", ".join(first)
            raise UserError(str(self.path / MAPPING), rule, have, "name the masks' key with mask_key")
        return {Item.group: found[0]}


def check_groups(groups: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The groups chosen of the known ones, in the known order."""
    for name in groups:
        if name not in known:
            raise UserError("groups", "is unknown", name, nearest_name(str(name), known))
    if not groups:
        raise UserError("groups", "must name at least one group", remedy=f"of {', '.join(known)}")
    return tuple(name for name in known if name in groups)
