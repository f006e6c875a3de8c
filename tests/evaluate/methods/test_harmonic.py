"""The harmonic fill, against what Laplace's equation says."""

from __future__ import annotations

import numpy as np
import pytest

from mtadiffusion.evaluate.methods.harmonic import fill_harmonic


@pytest.fixture
def plane() -> np.ndarray:
    """A linear gradient in each channel, which is harmonic."""
    rows, columns = np.mgrid[0:20, 0:30] / 30.0
    return np.stack([rows, columns, 0.3 * rows + 0.5 * columns], axis=-1)


def test_a_linear_gradient_is_continued_exactly(plane: np.ndarray) -> None:
    hole = np.zeros(plane.shape[:2], bool)
    hole[4:15, 7:22] = True
    hole[6, 9] = False
    broken = np.where(hole[..., None], 0.0, plane)
    np.testing.assert_allclose(fill_harmonic(broken, hole), plane, atol=1e-12)


def test_every_filled_pixel_is_the_mean_of_its_neighbours_at_the_border_too() -> None:
    picture = np.random.default_rng(0).random((16, 18, 3))
    hole = np.zeros((16, 18), bool)
    hole[0:6, 10:18] = True
    hole[9:12, 3:8] = True
    filled = fill_harmonic(picture, hole)
    assert np.array_equal(filled[~hole], picture[~hole])
    for y, x in np.argwhere(hole):
        near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        values = [filled[j, i] for j, i in near if 0 <= j < 16 and 0 <= i < 18]
        np.testing.assert_allclose(filled[y, x], np.mean(values, axis=0), atol=1e-12)


def test_where_nothing_is_known_the_fill_is_grey(plane: np.ndarray) -> None:
    assert (fill_harmonic(plane, np.ones(plane.shape[:2], bool)) == 0.5).all()


def test_without_a_hole_nothing_changes(plane: np.ndarray) -> None:
    assert np.array_equal(fill_harmonic(plane, np.zeros(plane.shape[:2], bool)), plane)
