"""Holes painted by a loose hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import ndimage

from mtadiffusion.stickers.painted import PEN, painted_hole

SIDE = 48


def things() -> st.SearchStrategy[np.ndarray]:
    """Blobs of any form, several of them too, at least one pixel."""
    coarse = npst.arrays(bool, (8, 8)).filter(np.any)
    return coarse.map(lambda cells: cells.repeat(SIDE // 8, axis=0).repeat(SIDE // 8, axis=1))


@settings(deadline=None, max_examples=40)
@given(things(), st.integers(0, 2**32))
def test_a_painted_hole_covers_the_thing_and_is_the_same_for_the_same_hand(
    thing: np.ndarray, seed: int
) -> None:
    hole, again = (painted_hole(np.random.default_rng(seed), thing) for _ in range(2))
    assert hole.dtype == bool
    assert hole[thing].all()
    np.testing.assert_array_equal(hole, again)


@settings(deadline=None, max_examples=40)
@given(st.integers(6, 40), st.integers(6, 40), st.integers(0, 2**32))
def test_a_hand_stays_near_the_thing_but_not_within_it(width: int, height: int, seed: int) -> None:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    thing = ((columns - 24) / (width / 2)) ** 2 + ((rows - 24) / (height / 2)) ** 2 <= 1
    hole = painted_hole(np.random.default_rng(seed), thing)
    distance = ndimage.distance_transform_edt(~thing)
    assert distance[hole].max() <= 2 * PEN[1] * SIDE + 1
    assert hole.sum() > thing.sum()
    _, parts = ndimage.label(hole, structure=np.ones((3, 3)))
    assert parts == 1


def test_another_hand_paints_another_hole() -> None:
    thing = np.zeros((SIDE, SIDE), dtype=bool)
    thing[15:30, 10:34] = True
    holes = {painted_hole(np.random.default_rng(seed), thing).tobytes() for seed in range(8)}
    assert len(holes) == 8
