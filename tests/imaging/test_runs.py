"""Masks as runs, against the same questions asked of their pixels, and against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pycocotools import mask as coco_masks
from scipy import ndimage

from mtadiffusion.errors import UserError
from mtadiffusion.imaging.coco_rle import coco_lengths
from mtadiffusion.imaging.masks import brushdata_to_mask, brushdata_to_runs, mask_box, mask_to_brushdata
from mtadiffusion.imaging.runs import Runs

masks = npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, max_side=12))
filled_masks = masks.filter(np.any)
checked = settings(deadline=None, max_examples=80)


def coco(mask: np.ndarray) -> dict:
    return coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))


@checked
@given(masks)
def test_runs_hold_the_mask(mask):
    runs = Runs.of(mask)
    np.testing.assert_array_equal(runs.pixels(), mask)
    assert runs.area == mask.sum()
    assert (runs.ends > runs.starts).all()


@checked
@given(masks)
def test_coco_s_string_is_the_one_that_pycocotools_writes(mask):
    theirs = coco(mask)
    assert Runs.of(mask).coco() == theirs["counts"].decode()
    for counts in (theirs["counts"], theirs["counts"].decode(), coco_lengths(theirs).tolist()):
        np.testing.assert_array_equal(Runs.of_coco({**theirs, "counts": counts}).pixels(), mask)


@checked
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=30))
def test_long_runs_and_empty_ones_are_read_as_pycocotools_reads_them(lengths):
    height = 7
    lengths = [*lengths, -sum(lengths) % height]
    size = [height, sum(lengths) // height]
    whole = coco_masks.frPyObjects({"size": size, "counts": lengths}, *size)
    expected = coco_masks.decode(whole).astype(bool)
    for rle in (whole, {"size": size, "counts": lengths}):
        np.testing.assert_array_equal(Runs.of_coco(rle).pixels(), expected)
    assert Runs.of_coco(whole).area == expected.sum()


@checked
@given(filled_masks)
def test_the_box_is_that_of_the_pixels(mask):
    assert Runs.of(mask).box == mask_box(mask)


@checked
@given(masks, st.data())
def test_a_sample_is_what_indexing_gives(mask, data):
    rows, columns = (
        np.sort(data.draw(st.lists(st.integers(0, side - 1), min_size=1, max_size=20))) for side in mask.shape
    )
    np.testing.assert_array_equal(Runs.of(mask).sampled(rows, columns), mask[rows[:, None], columns])


@checked
@given(filled_masks)
def test_parts_are_those_that_labelling_the_pixels_finds(mask):
    runs = Runs.of(mask)
    labels, count = ndimage.label(mask)
    pairs = set(zip(runs.parts().tolist(), labels[runs.starts, runs.columns].tolist(), strict=True))
    assert len(pairs) == count == len({part for part, _ in pairs}) == len({label for _, label in pairs})


@checked
@given(filled_masks)
def test_gaps_are_what_the_box_holds_beside_the_mask(mask):
    x0, y0, x1, y1 = mask_box(mask)
    expected = np.zeros_like(mask)
    expected[y0:y1, x0:x1] = ~mask[y0:y1, x0:x1]
    runs = Runs.of(mask)
    np.testing.assert_array_equal(runs.gaps().pixels(), expected)
    whole = runs.with_runs(runs.gaps())
    assert len(whole.columns) == x1 - x0  # touching runs are one
    assert whole.area == (x1 - x0) * (y1 - y0)


@checked
@given(masks)
def test_brushdata_s_runs_are_its_mask(mask):
    rle = mask_to_brushdata(mask)
    np.testing.assert_array_equal(brushdata_to_runs(rle, mask.shape).pixels(), mask)
    np.testing.assert_array_equal(brushdata_to_mask(rle, mask.shape), mask)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([3, 4], "add up to 4x2 = 8 pixels, got 7"),
        ([-1, 9], "add up to"),
        ([2**70, 1], "add up to"),
        ("P", "must not end in the middle of a number"),
        ("o" * 20 + "0", "numbers of at most 12 digits"),
    ],
)
def test_wrong_counts_are_named(counts, message):
    with pytest.raises(UserError, match=message.replace("+", r"\+")):
        Runs.of_coco({"size": [2, 4], "counts": counts})


def test_a_mask_without_pixels_has_no_runs():
    runs = Runs.of(np.zeros((0, 5), bool))
    assert (runs.area, runs.coco(), runs.pixels().shape) == (0, "", (0, 5))
