"""Deterministic sticker scenes: one art style each, a textured backdrop, one to four objects, and the truth.

`SceneWorld(split, seed, size).record(index)` is a pure function: the same arguments give the same bytes.
The splits draw from streams that never meet, and a fixed part of the (label, colour, style) combinations
never appears in training.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from PIL import Image

from mtadiffusion.errors import UserError, nearest_name
from mtadiffusion.imaging.masks import mask_box
from mtadiffusion.records import ImageRecord, ObjectRecord
from mtadiffusion.seeding import numpy_generator
from mtadiffusion.stickers import wording
from mtadiffusion.stickers.assets import HUES, STYLES, Sprite, labels, sprite, sprite_pixels
from mtadiffusion.stickers.backdrops import BACKDROPS

SPLITS = ("train", "validation", "test")
MAIN_SHORT_SIDE = (0.4, 0.68)
"""Range of the main object's short side, as a share of the picture (never below 3/8)."""

OTHER_LONG_SIDE = (0.25, 0.45)
LONGEST_SIDE = 0.94
MOST_OBJECTS = 4
VISIBLE = 0.7
"""The share of every listed object's pixels that no other object covers."""

HELD_OUT = 0.08
"""The share of (label, colour, style) combinations that training never shows."""

NATURAL_HUE = 0.3
"""The probability that an object keeps the artist's own colours."""

SHADOWED = {"fluent-3d": 0.45, "noto": 0.3}
"""The strength of the soft shadow, for the styles that have one."""

_PLACEMENT_TRIES = 6


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where one sprite lies in a scene."""

    sprite: Sprite
    flip: bool
    box_xyxy: tuple[int, int, int, int]
    """Pixels; inside the picture."""

    pixels: np.ndarray = field(compare=False, repr=False)
    """uint8 (y1 - y0, x1 - x0, 4) premultiplied RGBA, flipped where `flip` says so."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A rendered scene with more of its truth than an `ImageRecord` carries."""

    record: ImageRecord
    placements: tuple[Placement, ...]
    """One for each of `record.objects`; the first is the main object."""

    shadow: np.ndarray
    """bool (size, size): where the main object's shadow darkens the picture visibly."""


@dataclass(frozen=True, kw_only=True)
class SceneWorld:
    """An endless, indexable source of scenes.

    Args:
        split: "train", "validation" or "test".
        seed: any integer; each gives another world of each split.
        size: the pictures' side in pixels.
        objects: (fewest, most) objects a scene.
        length: what `len()` answers; indices beyond it work too.
    """

    split: str = "train"
    seed: int = 0
    size: int = 64
    objects: tuple[int, int] = (1, MOST_OBJECTS)
    length: int = 100_000

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise UserError(
                "split", "must be a split of the sticker world", self.split, nearest_name(self.split, SPLITS)
            )
        if self.size < 16:
            raise UserError("size", "must be at least 16 pixels", self.size)
        if not 1 <= self.objects[0] <= self.objects[1] <= MOST_OBJECTS:
            raise UserError("objects", f"must be a range within 1 to {MOST_OBJECTS}", self.objects)

    def __len__(self) -> int:
        return self.length

    def record(self, index: int) -> ImageRecord:
        """Scene `index`: image uint8 (size, size, 3) RGB, caption, objects, the main one first."""
        return self.scene(index).record

    def scene(self, index: int) -> Scene:
        """Scene `index` with its placements and the main object's shadow."""
        rng = numpy_generator(self.seed, f"stickers/{self.split}", index)
        style = STYLES[int(rng.integers(len(STYLES)))]
        backdrop = BACKDROPS[style][int(rng.integers(len(BACKDROPS[style])))]
        canvas = backdrop(rng, self.size).astype(np.float32)
        placements = self._place(rng, style)
        canvas, shadow, masks = _paint(canvas, placements)
        image_id = f"sticker-{self.split}-{self.seed}-{index}"
        record = _record(rng, image_id, canvas, placements, masks, style, backdrop.__name__)
        return Scene(record=record, placements=placements, shadow=shadow)

    def _place(self, rng: np.random.Generator, style: str) -> tuple[Placement, ...]:
        count = int(rng.integers(self.objects[0], self.objects[1] + 1))
        names = rng.permutation(len(labels()))[:count]
        placed: list[Placement] = []
        for order, name in enumerate(names):
            chosen = choose_sprite(
                rng, labels()[name], style, held_out=None if self.split != "train" else False
            )
            for _ in range(_PLACEMENT_TRIES):
                candidate = self._candidate(rng, chosen, main=order == 0)
                if _all_visible([*placed, candidate], self.size):
                    placed.append(candidate)
                    break
        return tuple(placed)

    def _candidate(self, rng: np.random.Generator, chosen: Sprite, *, main: bool) -> Placement:
        pixels = sprite_pixels(chosen.label, chosen.style, chosen.hue, self.size)
        height, width = pixels.shape[:2]
        short, long = min(height, width), max(height, width)
        if main:
            scale = max(rng.uniform(*MAIN_SHORT_SIDE), 0.375) * self.size / short
        else:
            scale = rng.uniform(*OTHER_LONG_SIDE) * self.size / long
        scale = min(scale, LONGEST_SIDE * self.size / long)
        w, h = max(2, round(width * scale)), max(2, round(height * scale))
        x, y = (int(rng.integers(0, self.size - side + 1)) for side in (w, h))
        flip = bool(rng.random() < 0.5)
        return Placement(
            sprite=chosen, flip=flip, box_xyxy=(x, y, x + w, y + h), pixels=_resized(pixels, w, h, flip)
        )


def choose_sprite(rng: np.random.Generator, label: str, style: str, *, held_out: bool | None) -> Sprite:
    """A recoloured sprite of an object.

    Args:
        held_out: True for a held-out combination, False for one of training, None for either.
    """
    natural = rng.random() < NATURAL_HUE
    hues = [0, *rng.permutation(HUES)] if natural else [*rng.permutation(HUES)]
    sprites = (sprite(label, style, int(hue)) for hue in hues)
    fitting = (s for s in sprites if held_out is None or is_held_out(s.label, s.colour, s.style) == held_out)
    return next(fitting, sprite(label, style))


@cache
def is_held_out(label: str, colour: str | None, style: str) -> bool:
    """Whether training never shows this combination; one without a colour word it may always show."""
    if colour is None or colour == sprite(label, style).colour:
        return False
    digest = hashlib.blake2b(f"{label}/{colour}/{style}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") < HELD_OUT * 2**32


def achievable_colours(label: str, style: str) -> tuple[str, ...]:
    """The colour words that an object's hues can give it in a style."""
    found = {sprite(label, style, hue).colour for hue in range(HUES)}
    return tuple(sorted(c for c in found if c is not None))


def _resized(pixels: np.ndarray, width: int, height: int, flip: bool) -> np.ndarray:
    resized = np.asarray(Image.fromarray(pixels, "RGBa").resize((width, height), Image.Resampling.BILINEAR))
    return resized[:, ::-1] if flip else resized


def _all_visible(placements: list[Placement], side: int) -> bool:
    masks = _visible_masks(placements, side)
    whole = [_solid(p).sum() for p in placements]
    return all(mask.sum() >= max(1.0, VISIBLE * total) for mask, total in zip(masks, whole, strict=True))


def _visible_masks(placements: list[Placement] | tuple[Placement, ...], side: int) -> list[np.ndarray]:
    owner = np.full((side, side), -1, dtype=np.int8)
    for i, placement in enumerate(placements):
        x0, y0, x1, y1 = placement.box_xyxy
        owner[y0:y1, x0:x1][_solid(placement)] = i
    return [owner == i for i in range(len(placements))]


def _solid(placement: Placement) -> np.ndarray:
    return placement.pixels[..., 3] > 127


def _paint(
    canvas: np.ndarray, placements: tuple[Placement, ...]
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Shadows, then sprites, in order; returns the canvas, the main object's shadow, the visible masks."""
    side = canvas.shape[0]
    main_shadow = np.zeros((side, side), dtype=bool)
    for i, placement in enumerate(placements):
        darkness = _shadow(placement, side)
        if darkness is not None:
            canvas = canvas * (1 - darkness[..., None])
            if i == 0:
                main_shadow = darkness > 0.04
        x0, y0, x1, y1 = placement.box_xyxy
        pixels = placement.pixels.astype(np.float32) / 255
        canvas[y0:y1, x0:x1] = canvas[y0:y1, x0:x1] * (1 - pixels[..., 3:]) + pixels[..., :3]
    return canvas, main_shadow, _visible_masks(placements, side)


def _shadow(placement: Placement, side: int) -> np.ndarray | None:
    """float32 (side, side) in [0, 1]: a soft ellipse under the object, None where the style has no shadow."""
    strength = SHADOWED.get(placement.sprite.style)
    if strength is None:
        return None
    x0, _, x1, y1 = placement.box_xyxy
    columns = (np.arange(side, dtype=np.float32) + 0.5 - (x0 + x1) / 2) / max(1.0, 0.42 * (x1 - x0))
    rows = (np.arange(side, dtype=np.float32) + 0.5 - y1 + 0.02 * side) / max(1.0, 0.055 * side)
    return strength * np.exp(-(rows[:, None] ** 2) - columns[None] ** 2)


def _record(
    rng: np.random.Generator,
    image_id: str,
    canvas: np.ndarray,
    placements: tuple[Placement, ...],
    masks: list[np.ndarray],
    style: str,
    backdrop: str,
) -> ImageRecord:
    sprites = [p.sprite for p in placements]
    names = [f"{s.colour} {s.label}" if s.colour else s.label for s in sprites]
    return ImageRecord(
        image_id=image_id,
        image=np.rint(np.clip(canvas, 0, 1) * 255).astype(np.uint8),
        caption=wording.caption(rng, names, style, backdrop),
        objects=tuple(_object_record(rng, s, mask) for s, mask in zip(sprites, masks, strict=True)),
        attributes={"style": style, "backdrop": backdrop},
    )


def _object_record(rng: np.random.Generator, chosen: Sprite, mask: np.ndarray) -> ObjectRecord:
    return ObjectRecord(
        label=chosen.label,
        mask=mask,
        box_xyxy=mask_box(mask),
        description=wording.describe(rng, chosen.label, chosen.colour, chosen.style),
        attributes={"style": chosen.style} | ({"colour": chosen.colour} if chosen.colour else {}),
    )
