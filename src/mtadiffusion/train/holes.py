"""The holes of training samples: random brush strokes, and object masks drawn loosely.

A hole is a bool array (H, W), True = to be generated. Every function takes the generator that it draws from,
and every hole has at least one pixel and leaves at least one (docs/method.md, section 5).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from mtadiffusion.config import OBJECT_HOLES, HoleConfig
from mtadiffusion.imaging.masks import mask_box

_DEFAULT = HoleConfig()


def random_brush_hole(
    rng: np.random.Generator, height: int, width: int, config: HoleConfig = _DEFAULT
) -> np.ndarray:
    """Thick random strokes, each a chain of segments with round joints. Returns bool (height, width)."""
    canvas = Image.new("L", (width, height))
    pen = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(1, config.brush_strokes + 1)):
        _draw_stroke(pen, rng, height, width, config)
    return _proper(np.asarray(canvas) > 0)


def _draw_stroke(
    pen: ImageDraw.ImageDraw, rng: np.random.Generator, height: int, width: int, config: HoleConfig
) -> None:
    thickness = max(1, round(min(height, width) * config.brush_width * rng.uniform(0.3, 1.0)))
    place = np.array([rng.uniform(0, width), rng.uniform(0, height)])
    reach = math.hypot(height, width) / 4
    for _ in range(rng.integers(1, config.brush_vertices + 1)):
        angle, length = rng.uniform(0, 2 * math.pi), reach * rng.uniform(0.2, 1.0)
        step = length * np.array([math.cos(angle), math.sin(angle)])
        target = np.clip(place + step, 0, [width - 1, height - 1])
        pen.line([*place.tolist(), *target.tolist()], fill=255, width=thickness)
        for x, y in (place, target):
            radius = thickness / 2
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
        place = target


def object_hole(
    rng: np.random.Generator,
    mask: np.ndarray,
    box_xyxy: tuple[int, int, int, int],
    config: HoleConfig = _DEFAULT,
    silhouettes: Iterable[np.ndarray] = (),
    shape: str | None = None,
) -> np.ndarray:
    """A hole about one object, in one of the shapes that `config` weighs. It always covers the object.

    Args:
        rng: decides the shape and its looseness.
        mask: bool (H, W), True on the object.
        box_xyxy: box around it in pixels, x1 and y1 exclusive; may stick out of the image.
        config: weights and ranges.
        silhouettes: bool masks of any sizes, one of which gives a `foreign` hole its outline; without any
            that shows something, a random superellipse does. They are not asked for by other shapes.
        shape: one of `OBJECT_HOLES`; None: drawn by the weights of `config`.

    Returns:
        bool (H, W), True = to be generated.
    """
    shape = shape or _drawn_shape(rng, config)
    side = min(mask.shape)
    if shape == "dilated":
        return _proper(mask | dilate(mask, max(1, round(side * rng.uniform(*config.dilation)))))
    if shape == "boxed":
        return _proper(mask | _loose_box(rng, mask.shape, box_xyxy, config))
    if shape == "roughened":
        return _proper(mask | _in_cells(rng, mask, max(2, round(side * rng.uniform(*config.rough_cell)))))
    if shape == "foreign":
        near = dilate(mask, max(1, round(side * config.dilation[0])))
        room = _loose_box(rng, mask.shape, box_xyxy, config)
        return _proper(near | _foreign_outline(rng, room, silhouettes))
    return _proper(mask.copy())


def _drawn_shape(rng: np.random.Generator, config: HoleConfig) -> str:
    weights = np.array([getattr(config, name) for name in OBJECT_HOLES])
    return OBJECT_HOLES[rng.choice(len(weights), p=weights / weights.sum())]


def dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """bool (H, W) -> bool (H, W): True within about `radius` pixels (an octagon) of a True pixel."""
    grown = np.zeros_like(mask)
    if not mask.any():
        return grown
    x0, y0, x1, y1 = mask_box(mask)
    reached = slice(max(0, y0 - radius), y1 + radius), slice(max(0, x0 - radius), x1 + radius)
    part = np.ascontiguousarray(mask[reached])
    square = ndimage.maximum_filter(part.view(np.uint8), 2 * radius + 1, mode="constant") > 0
    diamond = ndimage.distance_transform_cdt(~part, "taxicab") <= math.ceil(radius * math.sqrt(2))
    grown[reached] = square & diamond
    return grown


def _loose_box(
    rng: np.random.Generator, shape: tuple[int, ...], box_xyxy: tuple[int, int, int, int], config: HoleConfig
) -> np.ndarray:
    height, width = shape
    left, top, right, bottom = (round(min(shape) * rng.uniform(*config.box_margin)) for _ in range(4))
    x0, y0, x1, y1 = box_xyxy
    hole = np.zeros((height, width), dtype=bool)
    hole[max(0, y0 - top) : max(0, y1 + bottom), max(0, x0 - left) : max(0, x1 + right)] = True
    return hole


def _in_cells(rng: np.random.Generator, mask: np.ndarray, cell: int) -> np.ndarray:
    """The cells of a randomly shifted grid that hold any pixel of the mask."""
    height, width = mask.shape
    top, left = rng.integers(0, cell, size=2)
    padded = np.pad(mask, ((top, -(height + top) % cell), (left, -(width + left) % cell)))
    rows, columns = padded.shape[0] // cell, padded.shape[1] // cell
    cells = padded.reshape(rows, cell, columns, cell).any(axis=(1, 3))
    full = cells.repeat(cell, axis=0).repeat(cell, axis=1)
    return full[top : top + height, left : left + width]


def _foreign_outline(
    rng: np.random.Generator, room: np.ndarray, silhouettes: Iterable[np.ndarray]
) -> np.ndarray:
    """One of the silhouettes, or else a superellipse, stretched over `room`, a rectangle of True pixels."""
    if not room.any():
        return room
    height, width = room.any(axis=1).sum(), room.any(axis=0).sum()
    shown = [silhouette for silhouette in silhouettes if silhouette.any()]
    outline = np.zeros_like(room)
    if shown:
        outline[room] = _stretched(shown[rng.integers(len(shown))], height, width).ravel()
    else:
        outline[room] = _superellipse(rng, height, width).ravel()
    return outline


def _stretched(silhouette: np.ndarray, height: int, width: int) -> np.ndarray:
    """The silhouette's own box at another size: bool (h, w) -> bool (height, width)."""
    rows, columns = (np.flatnonzero(silhouette.any(axis=axis)) for axis in (1, 0))
    own = silhouette[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    image = Image.fromarray(own.astype(np.uint8) * 255)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)) > 127


def _superellipse(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """|x|^p + |y|^p <= 1 with a random p, from a diamond to nearly a box: bool (height, width)."""
    power = 2 ** rng.uniform(0, 2.5)
    y, x = (np.abs((2 * np.arange(side) + 1) / side - 1) ** power for side in (height, width))
    return y[:, None] + x <= 1


def _proper(hole: np.ndarray) -> np.ndarray:
    """The hole with at least one pixel in it and one out of it: the centre added, a corner taken out."""
    height, width = hole.shape
    if not hole.any():
        hole[height // 2, width // 2] = True
    if hole.all():
        hole[0, 0] = False
    return hole
