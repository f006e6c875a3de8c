"""The sprite pack: one object drawn in four art styles, recoloured by hue, with its colour word.

`tools/build_sprites.py` builds the pack; licences and attribution are in `assets/LICENCES.md`.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from mtadiffusion.stickers.colours import colour_word, rotate_hue

STYLES = ("fluent-3d", "fluent-flat", "noto", "twemoji")
HUES = 12
"""Hue is turned in steps of a twelfth of the circle; step 0 is the artist's own colour."""

_COLOUR_SIDE = 32


@dataclass(frozen=True, kw_only=True)
class Sprite:
    """One object in one style and hue."""

    label: str
    style: str
    hue: int
    """Hue step in [0, HUES)."""

    colour: str | None
    """The colour word, or None where no colour dominates."""


@cache
def labels() -> tuple[str, ...]:
    """The names of all objects, in the pack's order."""
    paths = (Path(name) for name in _archive().namelist())
    return tuple(path.stem for path in paths if path.parent.name == STYLES[0])


@cache
def sprite(label: str, style: str, hue: int = 0) -> Sprite:
    """What is known of one sprite. Raises KeyError where the pack has no such object or style."""
    pixels = sprite_pixels(label, style, hue, _COLOUR_SIDE)
    straight = np.asarray(Image.fromarray(pixels, "RGBa").convert("RGBA"))
    solid = straight[..., 3] > 128
    return Sprite(label=label, style=style, hue=hue, colour=colour_word(straight[..., :3][solid]))


@lru_cache(maxsize=16384)
def sprite_pixels(label: str, style: str, hue: int, side: int) -> np.ndarray:
    """uint8 (h, w, 4) premultiplied RGBA, longer side `side` pixels."""
    image = Image.fromarray(_recoloured(label, style, hue)).convert("RGBa")
    scale = side / max(image.size)
    width, height = (max(1, round(edge * scale)) for edge in image.size)
    return np.asarray(
        image.resize((width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)
    )


@lru_cache(maxsize=256)
def _recoloured(label: str, style: str, hue: int) -> np.ndarray:
    pixels = _decoded(label, style)
    if hue == 0:
        return pixels
    return np.dstack([rotate_hue(pixels[..., :3], hue / HUES), pixels[..., 3:]])


@lru_cache(maxsize=512)
def _decoded(label: str, style: str) -> np.ndarray:
    with Image.open(io.BytesIO(_archive().read(f"{style}/{label}.webp"))) as image:
        return np.asarray(image.convert("RGBA"))


@cache
def _archive() -> zipfile.ZipFile:
    packed = files("mtadiffusion.stickers").joinpath("assets/sprites.zip").read_bytes()
    return zipfile.ZipFile(io.BytesIO(packed))
