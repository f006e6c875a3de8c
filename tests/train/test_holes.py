"""Properties of every hole, on pictures of any shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtadiffusion.config import OBJECT_HOLES, HoleConfig
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
    return HoleConfig(**{name: float(name == shape) for name in OBJECT_HOLES})


def disc(radius: float, side: int = 64) -> np.ndarray:
    rows, columns = np.mgrid[0:side, 0:side]
    return np.hypot(rows - 30, columns - 32) < radius


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
@pytest.mark.parametrize("shape", OBJECT_HOLES)
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
        assert object_hole(np.random.default_rng(seed), mask, (3, 3, 3, 3), only("foreign"), [mask]).any()


def test_dilation_is_about_a_disc() -> None:
    mask = np.zeros((41, 61), dtype=bool)
    mask[20, 30] = True
    rows, columns = np.mgrid[0:41, 0:61]
    distance = np.hypot(rows - 20, columns - 30)
    grown = dilate(mask, 9)
    assert grown[distance <= 9].all()
    assert not grown[distance > 9 * 1.1].any()


def test_loose_holes_differ_from_the_outline() -> None:
    mask, box = disc(15), (17, 15, 48, 46)
    for shape in ("dilated", "boxed", "roughened", "foreign"):
        hole = object_hole(np.random.default_rng(1), mask, box, only(shape))
        assert hole.sum() > mask.sum()
    boxed = object_hole(np.random.default_rng(1), mask, box, only("boxed"))
    ys, xs = np.flatnonzero(boxed.any(axis=1)), np.flatnonzero(boxed.any(axis=0))
    assert boxed.sum() == len(ys) * len(xs)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, height=SIDES, width=SIDES, other=st.tuples(SIDES, SIDES), lent=st.booleans())
def test_a_foreign_hole_is_the_dilated_object_and_what_lies_in_the_loosened_box(
    seed: int, height: int, width: int, other: tuple[int, int], lent: bool
) -> None:
    mask, (x0, y0, x1, y1) = block(height, width, seed)
    silhouettes = [np.zeros(other, dtype=bool), block(*other, seed)[0]] if lent else []
    config = only("foreign")
    hole = object_hole(np.random.default_rng(seed), mask, (x0, y0, x1, y1), config, silhouettes)
    side = min(height, width)
    near = dilate(mask, max(1, round(side * config.dilation[0])))
    margin = round(side * config.box_margin[1])
    room = np.zeros_like(mask)
    room[max(0, y0 - margin) : y1 + margin, max(0, x0 - margin) : x1 + margin] = True
    assert not (hole & ~(near | room)).any()
    assert (hole | ~near).sum() >= mask.size - 1  # one corner may be given up for "not all"
    assert not hole.all()


def test_a_foreign_hole_has_the_outline_of_what_is_stretched_over_it() -> None:
    """An L over a small disc's box: the disc's own outline is inside it but for the L's empty corner."""
    corner = np.ones((10, 20), dtype=bool)
    corner[:5, 10:] = False
    config = HoleConfig(**{**dict.fromkeys(OBJECT_HOLES, 0.0), "foreign": 1.0}, box_margin=(0.2, 0.2))
    mask, box = disc(8), (24, 22, 41, 39)
    hole = object_hole(np.random.default_rng(0), mask, box, config, [np.pad(corner, 7)])
    x0, y0, x1, y1 = (24 - 13, 22 - 13, 41 + 13, 39 + 13)  # grown by a fifth of the picture
    expected = dilate(mask, 1)
    expected[y0:y1, x0:x1] |= np.kron([[1, 0], [1, 1]], np.ones((22, 22)))[: y1 - y0, : x1 - x0] > 0
    assert (hole != expected).sum() <= 2 * 22  # the corner's two edges fall between pixels


def test_foreign_holes_about_one_object_differ_in_outline() -> None:
    mask, box = disc(15), (17, 15, 48, 46)
    silhouettes = [[], [np.tri(20, dtype=bool)], [np.tri(20, dtype=bool)[:, ::-1]]]
    holes = [object_hole(np.random.default_rng(1), mask, box, only("foreign"), lent) for lent in silhouettes]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (holes[one] != holes[other]).sum() > 0.1 * mask.sum()
