"""StickerBench: frozen lists of holes in sticker scenes, each with a wish for another object.

The lists lie in `assets/bench-*.jsonl`; `tools/sticker_bench.py` made them. A list holds what is asked for;
scenes and holes are drawn from their numbers, and a checksum tells when they are drawn otherwise than they
were. No recipe, guidance search or other measurement looks at the world that the scenes are from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from mtadiffusion.errors import UserError, nearest_name
from mtadiffusion.evaluate.benchmark import Item, Settings
from mtadiffusion.seeding import numpy_generator
from mtadiffusion.stickers.painted import painted_hole
from mtadiffusion.stickers.problems import hole_around, silhouette
from mtadiffusion.stickers.sampling import BRANCH_GUIDANCE, STEPS
from mtadiffusion.stickers.scenes import Scene, SceneWorld

LISTS = ("validation", "test")
HOLES = ("box", "dilated", "painted")
"""Box about the object; its outline, widened; strokes of a pen that cover it."""

SIDE = 64
WORLD = 11
"""The seed of the scenes' world."""

_CELLS = 4
_TOLERANCE = 1
"""By how much a checksum's numbers may differ: another processor may round a pixel otherwise."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of a list."""

    split: str
    """`validation` or `test`."""

    scene: int
    """The scene's index in its split of the world `WORLD`."""

    hole: str
    """One of `HOLES`."""

    prompt: str
    """What is asked for; the style is not named."""

    label: str
    """The object asked for; never the main object's."""

    colour: str | None
    """The colour word asked for."""

    style: str
    """The scene's style, which the answer should have."""

    held_out: bool
    """Whether training never shows this (label, colour, style)."""

    instead_of: str
    """The main object's label."""

    checksum: str
    """See `checksum`."""

    @property
    def item_id(self) -> str:
        """`test-000017-box`."""
        return f"{self.split}-{self.scene:06d}-{self.hole}"


def read_list(split: str) -> list[Entry]:
    """The frozen list of a split."""
    lines = list_path(split).read_text(encoding="utf-8").splitlines()
    return [Entry(**json.loads(line)) for line in lines]


def list_path(split: str) -> Path:
    """Where the list of a split lies."""
    return Path(__file__).parent / "assets" / f"bench-{split}.jsonl"


def line_of(entry: Entry) -> str:
    """The entry as its list has it."""
    return json.dumps(asdict(entry), ensure_ascii=False)


def draw(split: str, scene: int, hole: str) -> tuple[np.ndarray, np.ndarray]:
    """The picture uint8 (64, 64, 3) RGB of a scene, and a hole of one of `HOLES`, bool (64, 64)."""
    shown = SceneWorld(split=split, seed=WORLD, size=SIDE).scene(scene)
    return shown.record.image, hole_over(shown, hole, split, scene)


def hole_over(scene: Scene, hole: str, split: str, number: int) -> np.ndarray:
    """The hole over the main object of scene `number`, of one of `HOLES`: bool (64, 64)."""
    if hole == "painted":
        rng = numpy_generator(WORLD, f"stickers/bench/{split}", number)
        return painted_hole(rng, silhouette(scene.placements[0], scene.shadow.shape) | scene.shadow)
    return hole_around(scene, "box" if hole == "box" else "outline")


def checksum(picture: np.ndarray, hole: np.ndarray) -> str:
    """Means over 4x4 cells of red, green, blue and the hole, as 8-bit numbers in hexadecimal.

    Not a hash: a hash would differ on a processor that rounds one pixel's brightness the other way.
    """
    planes = np.dstack([picture, hole.astype(np.uint8) * 255]).astype(np.float64)
    cells = planes.reshape(_CELLS, SIDE // _CELLS, _CELLS, SIDE // _CELLS, 4).mean(axis=(1, 3))
    return np.rint(cells).astype(np.uint8).tobytes().hex()


def agree(one: str, other: str) -> bool:
    """Whether two checksums are those of one drawing."""
    pair = (np.frombuffer(bytes.fromhex(text), np.uint8).astype(int) for text in (one, other))
    return int(np.abs(np.subtract(*pair)).max()) <= _TOLERANCE


class StickerBench:
    """200 holes of one split, by kind of hole.

    Args:
        split: `validation` for whatever is chosen by its figures, `test` for figures to report.

    Raises:
        UserError: an unknown split.
    """

    name: str = "stickerbench"
    settings: Settings = Settings(
        size=SIDE,
        steps=STEPS,
        guidance_scale=BRANCH_GUIDANCE,
        scheduler="EulerAncestralDiscreteScheduler",
        seed=0,
        seed_per_item=True,
        blend="paste",
    )

    def __init__(self, *, split: str = "validation") -> None:
        if split not in LISTS:
            raise UserError("split", f"must be one of {', '.join(LISTS)}", split, nearest_name(split, LISTS))
        self.split = split
        self.title: str = f"StickerBench ({split})"

    def items(self) -> Sequence[Item]:
        """All items, in the list's order."""
        return [_item(entry) for entry in self._entries.values()]

    def picture(self, item: Item) -> np.ndarray:
        """uint8 (64, 64, 3), RGB. Raises UserError where it is not what the list was made of."""
        return _drawn(self._entries[item.item_id])[0].copy()

    def hole(self, item: Item) -> np.ndarray:
        """bool (64, 64), True = to be generated. Raises UserError as `picture`."""
        return _drawn(self._entries[item.item_id])[1].copy()

    def fingerprint(self) -> str:
        """Of the list, whose checksums stand for the pictures: these are compared when they are drawn."""
        return hashlib.blake2b(list_path(self.split).read_bytes(), digest_size=16).hexdigest()

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        return {entry.item_id: entry for entry in read_list(self.split)}


def _item(entry: Entry) -> Item:
    colour = {} if entry.colour is None else {"colour": entry.colour}
    return Item(
        item_id=entry.item_id,
        prompt=entry.prompt,
        group=entry.hole,
        label=entry.label,
        facts={"style": entry.style, "held_out": entry.held_out, "instead_of": entry.instead_of, **colour},
    )


@lru_cache(maxsize=1)
def _drawn(entry: Entry) -> tuple[np.ndarray, np.ndarray]:
    picture, hole = draw(entry.split, entry.scene, entry.hole)
    if not agree(checksum(picture, hole), entry.checksum):
        remedy = "the renderer has changed: figures on this list no longer compare"
        raise UserError("stickerbench", f"{entry.item_id} is drawn otherwise than it was", remedy=remedy)
    return picture, hole
