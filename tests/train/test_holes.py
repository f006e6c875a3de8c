"""Properties of every hole, on pictures of any shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtadiffusion.config import HoleConfig
from mtadiffusion.train.holes import dilate, object_hole, random_brush_hole

SIDES = st.integers(2, 90)
SEEDS = st.integers(0, 2**32)


def block(height: int, width: int, seed: int) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """A random rectangle's mask and box."""
    rng = np.random.default_rng(seed)
    y0, x0 = int(rng.integers(height)), int(rng.integers(width))
    y1, x1 = int(rng.integers(y0 + 1, height + 1)), int(rng.integers(x0 + 1, width + 1))
    mask = np.zeros((height, width), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask, (x0, y0, x1, y1)


def only(shape: str) -> HoleConfig:
    weights = {name: float(name == shape) for name in ("exact", "dilated", "boxed", "roughened")}
    return HoleConfig(**weights)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, height=SIDES, width=SIDES)
def test_brush_hole_has_some_pixels_and_not_all(seed: int, height: int, width: int) -> None:
    hole = random_brush_hole(np.random.default_rng(seed), height, width)
    assert hole.shape == (height, width)
    assert hole.dtype == bool
    assert hole.any()
    assert not hole.all()


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, height=SIDES, width=SIDES)
@pytest.mark.parametrize("shape", ["exact", "dilated", "boxed", "roughened"])
def test_object_hole_covers_the_object_and_not_all(seed: int, height: int, width: int, shape: str) -> None:
    mask, box = block(height, width, seed)
    before = mask.copy()
    hole = object_hole(np.random.default_rng(seed), mask, box, only(shape))
    assert hole.shape == mask.shape
    assert hole.any()
    assert not hole.all()
    assert (mask == before).all()
    if not mask.all():
        assert (hole | ~mask).sum() >= mask.size - 1  # one corner may be given up for "not all"
    if shape == "exact" and not mask.all():
        assert (hole == mask).all()


def test_same_stream_gives_the_same_hole() -> None:
    holes = [random_brush_hole(np.random.default_rng(5), 40, 70) for _ in range(2)]
    assert (holes[0] == holes[1]).all()


def test_brush_reaches_every_part_of_a_wide_picture() -> None:
    holes = [random_brush_hole(np.random.default_rng(seed), 30, 120) for seed in range(150)]
    frequency = np.mean(holes, axis=0)
    assert frequency.min() > 0.01
    assert frequency[:, :30].mean() == pytest.approx(frequency[:, 90:].mean(), abs=0.15)


def test_an_empty_mask_still_makes_a_hole() -> None:
    mask = np.zeros((12, 20), dtype=bool)
    for seed in range(8):
        assert object_hole(np.random.default_rng(seed), mask, (3, 3, 3, 3)).any()


def test_dilation_is_about_a_disc() -> None:
    mask = np.zeros((41, 61), dtype=bool)
    mask[20, 30] = True
    rows, columns = np.mgrid[0:41, 0:61]
    distance = np.hypot(rows - 20, columns - 30)
    grown = dilate(mask, 9)
    assert grown[distance <= 9].all()
    assert not grown[distance > 9 * 1.1].any()


def test_loose_holes_differ_from_the_outline() -> None:
    rows, columns = np.mgrid[0:64, 0:64]
    mask = np.hypot(rows - 30, columns - 32) < 15
    box = (17, 15, 48, 46)
    for shape in ("dilated", "boxed", "roughened"):
        hole = object_hole(np.random.default_rng(1), mask, box, only(shape))
        assert hole.sum() > mask.sum()
    boxed = object_hole(np.random.default_rng(1), mask, box, only("boxed"))
    ys, xs = np.flatnonzero(boxed.any(axis=1)), np.flatnonzero(boxed.any(axis=0))
    assert boxed.sum() == len(ys) * len(xs)
