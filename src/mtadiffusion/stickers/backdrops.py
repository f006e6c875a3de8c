"""Backgrounds of sticker scenes: three families for each art style, in random palettes.

Everything is drawn in unit coordinates (x right, y down, [0, 1]), so that a scene looks alike at any size.
A backdrop is a function of a generator and the picture's side; it returns float32 (side, side, 3) in [0, 1].
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from functools import cache

import numpy as np

Backdrop = Callable[[np.random.Generator, int], np.ndarray]


def gradient(rng: np.random.Generator, side: int) -> np.ndarray:
    """A shaded wall above a shaded floor, with a soft horizon."""
    _, y = _grid(side)
    hue, horizon = rng.random(), rng.uniform(0.5, 0.8)
    wall = _mix(_colour(hue, 0.35, 0.95), _colour(hue, 0.5, 0.65), y / horizon)
    floor = _mix(
        _colour(hue + 0.05, 0.45, 0.5), _colour(hue + 0.05, 0.3, 0.85), (y - horizon) / (1 - horizon)
    )
    return _blend(wall, floor, np.clip((y - horizon) / 0.06 + 0.5, 0, 1))


def bokeh(rng: np.random.Generator, side: int) -> np.ndarray:
    """Blurred lights on a dusky gradient."""
    x, y = _grid(side)
    hue = rng.random()
    image = _mix(_colour(hue, 0.6, 0.35), _colour(hue + 0.15, 0.5, 0.7), y)
    for _ in range(5):
        cx, cy, radius = rng.random(), rng.random(), rng.uniform(0.08, 0.2)
        glow = np.clip(1.5 - np.hypot(x - cx, y - cy) / radius, 0, 1) * 0.5
        image = _blend(image, _colour(hue + rng.uniform(-0.15, 0.25), 0.4, 1.0), glow)
    return image


def room(rng: np.random.Generator, side: int) -> np.ndarray:
    """A spot-lit wall with a round stage."""
    x, y = _grid(side)
    hue, cx = rng.random(), rng.uniform(0.35, 0.65)
    light = np.clip(1 - np.hypot(x - cx, y - 0.35) / 0.85, 0, 1)
    image = _mix(_colour(hue, 0.55, 0.4), _colour(hue, 0.25, 0.98), light)
    stage = np.hypot((x - cx) / 0.6, (y - 0.88) / 0.2)
    top = _mix(_colour(hue + 0.5, 0.25, 0.95), _colour(hue + 0.5, 0.4, 0.7), np.clip(stage, 0, 1))
    return _blend(image, top, np.clip((1 - stage) * 8, 0, 1))


def hills(rng: np.random.Generator, side: int) -> np.ndarray:
    """Flat layers of rolling hills under a flat sky."""
    return _layers(rng, side, hue_step=0.06, wave=(0.8, 1.8), lift=0.1)


def waves(rng: np.random.Generator, side: int) -> np.ndarray:
    """Flat layers of short waves."""
    return _layers(rng, side, hue_step=0.02, wave=(2.5, 4.0), lift=0.035)


def circles(rng: np.random.Generator, side: int) -> np.ndarray:
    """Large pale discs on a flat ground."""
    x, y = _grid(side)
    hue = rng.random()
    image = _flat(_colour(hue, 0.22, 0.97), side)
    for _ in range(4):
        edge = rng.uniform(0.15, 0.4) - np.hypot(x - rng.random(), y - rng.random())
        image = _blend(image, _colour(hue + rng.uniform(-0.1, 0.1), 0.32, 0.92), _inside(edge, side))
    return image


def paper(rng: np.random.Generator, side: int) -> np.ndarray:
    """Shaded paper with coarse speckles."""
    x, y = _grid(side)
    hue = rng.uniform(0.05, 0.2)
    image = _mix(_colour(hue, 0.18, 0.98), _colour(hue, 0.3, 0.8), (x + y) / 2)
    cells = 16
    speckle = (rng.random((cells, cells)) - 0.5).astype(np.float32)
    index = np.arange(side) * cells // side
    return np.clip(image + 0.12 * speckle[index][:, index, None], 0, 1)


def dots(rng: np.random.Generator, side: int) -> np.ndarray:
    """A wall of shaded dots."""
    x, y = _grid(side)
    hue, count = rng.random(), int(rng.integers(5, 8))
    image = _mix(_colour(hue, 0.3, 0.9), _colour(hue, 0.4, 0.7), y)
    u, v = (x * count) % 1 - 0.5, (y * count) % 1 - 0.5
    return _blend(image, _colour(hue + 0.08, 0.2, 0.97), _inside((0.27 - np.hypot(u, v)) / count, side) * 0.8)


def meadow(rng: np.random.Generator, side: int) -> np.ndarray:
    """Hazy sky over a hazy ground, with tufts."""
    x, y = _grid(side)
    horizon, hue = rng.uniform(0.45, 0.7), rng.uniform(0.2, 0.38)
    sky = _mix(_colour(hue + 0.3, 0.45, 0.9), _colour(hue + 0.25, 0.1, 1.0), y / horizon)
    tufts = 0.06 * np.sin(2 * np.pi * (9 * x + rng.random())) * np.sin(2 * np.pi * (7 * y + rng.random()))
    ground = _mix(_colour(hue, 0.35, 0.85), _colour(hue, 0.6, 0.5), (y - horizon) / (1 - horizon))
    return np.clip(_blend(sky, ground + tufts[..., None], np.clip((y - horizon) / 0.15, 0, 1)), 0, 1)


def stripes(rng: np.random.Generator, side: int) -> np.ndarray:
    """Bold slanted stripes."""
    x, y = _grid(side)
    count, slope = rng.uniform(3, 6), rng.choice([-1.0, 1.0])
    wave = np.abs(((x + slope * y) * count + rng.random()) % 1 - 0.5)
    return _two_tone(rng, side, (wave - 0.25) / count / 1.4)


def checks(rng: np.random.Generator, side: int) -> np.ndarray:
    """A bold chequerboard."""
    x, y = _grid(side)
    count, ox, oy = rng.uniform(2, 4), rng.random(), rng.random()
    product = np.sin(2 * np.pi * (x * count / 2 + ox)) * np.sin(2 * np.pi * (y * count / 2 + oy))
    return _two_tone(rng, side, product / (np.pi * count))


def rays(rng: np.random.Generator, side: int) -> np.ndarray:
    """Bold rays from a point."""
    x, y = _grid(side)
    dx, dy = x - rng.uniform(0.2, 0.8), y - rng.uniform(0.6, 1.1)
    count = int(rng.integers(5, 9))
    return _two_tone(rng, side, np.sin(count * 2 * np.arctan2(dy, dx)) * np.hypot(dx, dy) / (2 * count))


BACKDROPS: dict[str, tuple[Backdrop, ...]] = {
    "fluent-3d": (gradient, bokeh, room),
    "fluent-flat": (hills, waves, circles),
    "noto": (paper, dots, meadow),
    "twemoji": (stripes, checks, rays),
}


def _layers(
    rng: np.random.Generator, side: int, *, hue_step: float, wave: tuple[float, float], lift: float
) -> np.ndarray:
    x, y = _grid(side)
    hue = rng.random()
    image = _flat(_colour(hue, 0.2, 0.98), side)
    for layer in range(3):
        crest = 0.4 + 0.2 * layer + lift * np.sin(2 * np.pi * (rng.uniform(*wave) * x + rng.random()))
        colour = _colour(hue + 0.25 + hue_step * layer, 0.3 + 0.08 * layer, 0.92 - 0.07 * layer)
        image = _blend(image, colour, _inside(y - crest, side))
    return image


def _two_tone(rng: np.random.Generator, side: int, distance: np.ndarray) -> np.ndarray:
    hue = rng.random()
    first, second = _colour(hue, 0.55, 0.95), _colour(hue + rng.uniform(0.03, 0.12), 0.4, 1.0)
    return _blend(_flat(first, side), second, _inside(distance, side))


@cache
def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    centres = ((np.arange(side) + 0.5) / side).astype(np.float32)
    x, y = np.meshgrid(centres, centres)
    return x, y


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), dtype=np.float32)


def _flat(colour: np.ndarray, side: int) -> np.ndarray:
    return np.broadcast_to(colour, (side, side, 3))


def _mix(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return first + (second - first) * np.clip(weight, 0, 1)[..., None]


def _blend(image: np.ndarray, paint: np.ndarray, cover: np.ndarray) -> np.ndarray:
    return image + (paint - image) * cover[..., None]


def _inside(signed_distance: np.ndarray, side: int) -> np.ndarray:
    """Anti-aliased cover of the region where the distance (in unit coordinates) is positive."""
    return np.clip(signed_distance * side + 0.5, 0, 1)
