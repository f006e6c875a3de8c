"""EditBench as published (arXiv 2212.06909): pictures and masks as PNGs, three prompts for each in CSV files.

White is the hole. The prompts say one wish in three ways: `full` describes the whole picture, `simple` and
`rich` what belongs in the hole, in few and in many words. So each picture gives three items.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.benchmark import Item, Settings
from mtadiffusion.evaluate.benchmarks.brushbench import BRUSHNET_SETTINGS, SIDE, check_groups
from mtadiffusion.evaluate.benchmarks.folder import absent, check_id, check_size, digest, inside, read_rows
from mtadiffusion.imaging.images import image_size, load_hole, load_image
from mtadiffusion.imaging.masks import resize_hole

KINDS = ("natural", "generated")
"""Photographs, and pictures drawn by a text-to-image model."""

PROMPTS = {"full": "prompt_full", "simple": "prompt_mask-simple", "rich": "prompt_mask-rich"}
"""Group -> column."""

_NUMBER = "aos"
_COLUMNS = (_NUMBER, *PROMPTS.values())
_SLOW = 2.0


@dataclass(frozen=True, kw_only=True)
class _Picture:
    kind: str
    row: dict[str, str]
    where: str

    @property
    def picture_id(self) -> str:
        """As unique as (kind, aos), and fit to name a file."""
        return f"{self.kind}-{re.sub(r'[^A-Za-z0-9_.-]', '-', self.row[_NUMBER])}"

    @property
    def reference(self) -> str:
        return f"references_{self.kind}/{self.row[_NUMBER]}.png"

    @property
    def mask(self) -> str:
        return f"masks_{self.kind}/{self.row[_NUMBER]}.png"


class EditBench:
    """240 pictures, three prompts each.

    Args:
        path: folder with `annotations_natural.csv`, `annotations_generated.csv` and the pictures' folders.
        groups: which of the prompts `full`, `simple` and `rich` to take.
        allow_missing: go on without pictures that are not there or have no mask.
    """

    name: str = "editbench"
    title: str = "EditBench"
    settings: Settings = BRUSHNET_SETTINGS

    def __init__(
        self, path: Path, *, groups: Sequence[str] = tuple(PROMPTS), allow_missing: bool = False
    ) -> None:
        self.path, self.allow_missing = path, allow_missing
        self.groups = check_groups(groups, tuple(PROMPTS))

    def items(self) -> Sequence[Item]:
        """All items, natural pictures first; lists, masks and the pictures' headers are checked at first."""
        return self._read[0]

    @property
    def missing(self) -> Sequence[str]:
        """The files that are not there, whose items are left out; some only where `allow_missing`."""
        return self._read[2]

    def picture(self, item: Item) -> np.ndarray:
        """uint8 (512, 512, 3), RGB; reduced from 1024x1024."""
        path = self.path / self._read[1][item.item_id].reference
        image = load_image(path, f"{path} of item {item.item_id}:")
        return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS))

    def hole(self, item: Item) -> np.ndarray:
        """bool (512, 512), True = to be generated: wherever any pixel of the large mask is white."""
        return self._hole(self._read[1][item.item_id])

    def fingerprint(self) -> str:
        """Of the lists' bytes, the items taken from them, and the pictures (see `folder.digest`)."""
        items, pictures, _ = self._read
        lists = [hashlib.blake2b(self._list(kind).read_bytes(), digest_size=16).hexdigest() for kind in KINDS]
        facts = {"benchmark": self.name, "lists": lists, "items": [item.item_id for item in items]}
        files = [name for one in pictures.values() for name in (one.reference, one.mask)]
        return digest(facts, (self.path / name for name in dict.fromkeys(files)))

    def _list(self, kind: str) -> Path:
        return self.path / f"annotations_{kind}.csv"

    @cached_property
    def _read(self) -> tuple[list[Item], dict[str, _Picture], list[str]]:
        listed = [one for kind in KINDS for one in self._pictures(kind)]
        files = [name for one in listed for name in (one.reference, one.mask)]
        missing = absent(self.path, files, allowed=self.allow_missing)
        left_out = set(missing)
        present = [one for one in listed if not {one.reference, one.mask} & left_out]
        for one in tqdm(present, desc="masks", unit="mask", delay=_SLOW):
            self._check(one)
        pairs = [(item, one) for one in present for item in self._items(one)]
        return [item for item, _ in pairs], {item.item_id: one for item, one in pairs}, missing

    def _pictures(self, kind: str) -> Iterator[_Picture]:
        path, seen = self._list(kind), set()
        for row in read_rows(path, self.title, _COLUMNS):
            one = _Picture(kind=kind, row=row, where=f"{path} {_NUMBER} {row[_NUMBER]}:")
            check_id(one.picture_id, one.where)
            inside(self.path, one.reference, one.where)
            if one.picture_id in seen:
                raise UserError(one.where, "must not stand twice", one.picture_id, "leave one of them")
            if empty := [name for name in _COLUMNS if not row[name]]:
                raise UserError(one.where, f"must have a text {empty[0]!r}", remedy="the cell is empty")
            seen.add(one.picture_id)
            yield one

    def _items(self, one: _Picture) -> Iterator[Item]:
        named = {name: text for name, text in one.row.items() if name and not name.startswith("Unnamed")}
        facts = {name: text for name, text in named.items() if text and name not in PROMPTS.values()}
        for group in self.groups:
            yield Item(
                item_id=f"{one.picture_id}-{group}",
                prompt=one.row[PROMPTS[group]],
                group=group,
                facts={**facts, "kind": one.kind},
            )

    def _check(self, one: _Picture) -> None:
        size = image_size(self.path / one.mask, one.where)
        check_size(self.path / one.reference, size, one.where)
        if size[0] != size[1]:
            remedy = "crop picture and mask to the same square"
            raise UserError(one.where, "must be square", f"{size[0]}x{size[1]}", remedy)
        if self._hole(one).all():
            remedy = "paint only what is to be generated white"
            raise UserError(one.where, "must leave a part of the picture", f"{one.mask} is all white", remedy)

    def _hole(self, one: _Picture) -> np.ndarray:
        path = self.path / one.mask
        size = image_size(path, one.where)
        return resize_hole(load_hole(path, size, f"{one.where} {one.mask}"), (SIDE, SIDE))
