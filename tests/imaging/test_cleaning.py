"""Cleaning by runs, against the same rule carried out on pixels."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from mtadiffusion.imaging.cleaning import cleaned
from mtadiffusion.imaging.runs import Runs
from mtadiffusion.seeding import numpy_generator


def cleaned_pixels(mask: np.ndarray, least: float) -> np.ndarray:
    """Independent computation: label the pixels, then what the pixels leave open."""
    if not mask.any():
        return mask
    parts, _ = ndimage.label(mask)
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    limit = least * areas.max()
    solid = (areas >= max(limit, 1))[parts]
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    inside = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    gaps, count = ndimage.label(~solid[inside])
    for gap in range(1, count + 1):
        hole = gaps == gap
        at_edge = hole[0].any() or hole[-1].any() or hole[:, 0].any() or hole[:, -1].any()
        if not at_edge and hole.sum() < limit:
            solid[inside] |= hole
    return solid


def clean(mask: np.ndarray, least: float) -> np.ndarray:
    return cleaned(Runs.of(mask), least).pixels()


@settings(deadline=None, max_examples=150)
@given(
    mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.booleans()),
    least=st.sampled_from([0.0, 0.05, 0.2, 0.5, 1.0]),
)
def test_runs_are_cleaned_as_pixels_are(mask, least):
    np.testing.assert_array_equal(clean(mask, least), cleaned_pixels(mask, least))


def test_ragged_masks_of_a_segmenter_s_size_are_cleaned_as_pixels_are():
    for number in range(4):
        noise = numpy_generator(0, "cleaning", number).random((90, 120))
        mask = ndimage.gaussian_filter(noise, 1 + number) > 0.49
        for least in (0.01, 0.05, 0.3):
            np.testing.assert_array_equal(clean(mask, least), cleaned_pixels(mask, least))


def test_islands_and_holes_are_cleaned_away():
    mask = np.zeros((40, 40), dtype=bool)
    mask[5:30, 5:30] = True
    whole = mask.copy()
    mask[10:12, 10:12] = False
    mask[35:37, 35:37] = True
    np.testing.assert_array_equal(clean(mask, 0.05), whole)


def test_large_parts_and_large_holes_stay():
    mask = np.zeros((40, 40), dtype=bool)
    mask[5:30, 5:30] = True
    mask[10:25, 10:25] = False
    mask[33:39, 33:39] = True
    np.testing.assert_array_equal(clean(mask, 0.05), mask)


@settings(deadline=None)
@given(mask=arrays(bool, (12, 12)))
def test_cleaning_changes_nothing_where_nothing_is_too_small(mask):
    np.testing.assert_array_equal(clean(mask, 0.0), mask)
