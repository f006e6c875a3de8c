"""Holes as a hand paints them: a round pen moved to and fro over an object and beyond its outline."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from mtadiffusion.imaging.masks import mask_box

PEN = (0.07, 0.12)
"""Range of the pen's radius, as a share of the picture's side."""

_OVERLAP = 1.3
"""Distance of two strokes in radii: less than two, so that neighbours touch."""

_WOBBLE = 0.5
"""How far the hand misses the place it aims at, in radii."""


def painted_hole(rng: np.random.Generator, thing: np.ndarray) -> np.ndarray:
    """A loosely painted hole that covers a thing: strokes over its width, then dabs on what was missed.

    Args:
        rng: draws the pen's size and the hand's wobble.
        thing: bool (H, W), not empty.

    Returns:
        bool (H, W), True = to be generated.
    """
    height, width = thing.shape
    radius = min(height, width) * rng.uniform(*PEN)
    canvas = Image.new("L", (width, height))
    pen = ImageDraw.Draw(canvas)
    path = _to_and_fro(rng, thing, radius)
    for start, end in zip(path, [*path[1:], path[-1]], strict=True):
        pen.line([*start, *end], fill=255, width=max(1, round(2 * radius)))
        _dab(pen, start, radius)
    while (missed := thing & (np.asarray(canvas) == 0)).any():
        rows, columns = np.nonzero(missed)
        first = rng.integers(len(rows))
        _dab(pen, (float(columns[first]), float(rows[first])), radius)
    return np.asarray(canvas) > 0


def _to_and_fro(rng: np.random.Generator, thing: np.ndarray, radius: float) -> list[tuple[float, float]]:
    """Points x, y that the pen visits: the thing's ends at every level, from left and right in turn."""
    _, top, _, bottom = mask_box(thing)
    count = max(1, round((bottom - top) / (_OVERLAP * radius)))
    path: list[tuple[float, float]] = []
    for number, level in enumerate(np.linspace(top, bottom - 1, 2 * count + 1)[1::2]):
        band = slice(max(0, round(level - radius / 2)), round(level + radius / 2) + 1)
        columns = np.flatnonzero(thing[band].any(axis=0))
        if len(columns):
            ends = [float(columns[0]), float(columns[-1])]
            for x in ends if number % 2 == 0 else ends[::-1]:
                dx, dy = rng.uniform(-_WOBBLE, _WOBBLE, size=2) * radius
                path.append((x + dx, float(level) + dy))
    return path


def _dab(pen: ImageDraw.ImageDraw, place: tuple[float, float], radius: float) -> None:
    x, y = place
    pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
