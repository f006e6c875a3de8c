from __future__ import annotations

from itertools import product
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from mtadiffusion.errors import UserError
from mtadiffusion.imaging.masks import (
    brushbench_to_mask,
    brushdata_to_mask,
    coco_to_mask,
    hole_from_array,
    hole_from_pil,
    mask_to_brushbench,
    mask_to_brushdata,
    mask_to_coco,
    resize_hole,
)

masks = npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, max_side=24))


@settings(deadline=None, max_examples=60)
@given(masks)
def test_every_codec_gives_back_the_mask(mask: np.ndarray) -> None:
    size = mask.shape
    np.testing.assert_array_equal(brushbench_to_mask(mask_to_brushbench(mask), size), mask)
    np.testing.assert_array_equal(brushdata_to_mask(mask_to_brushdata(mask), size), mask)
    np.testing.assert_array_equal(coco_to_mask(mask_to_coco(mask)), mask)
    np.testing.assert_array_equal(coco_to_mask(mask_to_coco(mask, compress=False)), mask)


@settings(deadline=None, max_examples=60)
@given(masks)
def test_row_major_runs_are_the_column_major_runs_of_the_transposed_mask(mask: np.ndarray) -> None:
    assert mask_to_brushbench(mask) == mask_to_brushdata(mask.T)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 40), min_size=3, max_size=30))
def test_long_runs_survive_the_compressed_string(runs: list[int]) -> None:
    values = np.repeat(np.arange(len(runs)) % 2 == 1, np.array(runs) ** 3)
    np.testing.assert_array_equal(coco_to_mask(mask_to_coco(values[None])), values[None])


@settings(deadline=None, max_examples=60)
@given(masks, st.randoms(use_true_random=False))
def test_runs_in_any_order_are_the_same_mask(mask: np.ndarray, random: Random) -> None:
    rle = mask_to_brushbench(mask)
    pairs = list(zip(rle[0::2], rle[1::2], strict=True))
    random.shuffle(pairs)
    shuffled = [number for pair in pairs for number in pair]
    np.testing.assert_array_equal(brushbench_to_mask(shuffled, mask.shape), mask)


@settings(deadline=None, max_examples=60)
@given(masks)
def test_the_flat_lists_agree_with_a_reading_pixel_by_pixel(mask: np.ndarray) -> None:
    """Independent computation: pixel k of a row-major list lies in row (k - 1) // width."""
    height, width = mask.shape
    rle = mask_to_brushbench(mask)
    named = {start + i for start, length in zip(rle[0::2], rle[1::2], strict=True) for i in range(length)}
    assert named == {r * width + c + 1 for r, c in product(range(height), range(width)) if mask[r, c]}


@settings(deadline=None, max_examples=60)
@given(masks)
def test_orders_are_never_confused(mask: np.ndarray) -> None:
    """Read in the wrong order, a mask is right only where both readings happen to agree."""
    wrong = brushdata_to_mask(mask_to_brushbench(mask), mask.shape)
    assert np.array_equal(wrong, mask) == (mask_to_brushbench(mask) == mask_to_brushdata(mask))


def test_orders_and_base_of_the_flat_codecs() -> None:
    mask = np.array([[0, 1, 1], [1, 0, 0]], dtype=bool)
    assert mask_to_brushbench(mask) == [2, 3]
    assert mask_to_brushdata(mask) == [2, 2, 5, 1]


def test_the_compressed_string_is_the_one_pycocotools_writes() -> None:
    mask = np.zeros((30, 40), dtype=bool)
    mask[3:20, 5:33] = True
    mask[10:12, :] = True
    mask[0, 0] = True
    counts = "0191c00000000I?H" + "0" * 53 + "7A8" + "0" * 11 + "F"
    assert mask_to_coco(mask) == {"size": [30, 40], "counts": counts}


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ([1, 2, 3], "pairs (start, length)"),
        ([0, 2], "starts are 1-based"),
        ([5, 9], "must lie within the 4x2 image"),
        ([1.5, 2], "must be a list of integers"),
        (["1", "2"], "must be a list of integers"),
        ([2**70, 1], "must be a list of integers"),
        ([2**62, 2**62], "must lie within the 4x2 image"),
        ([-3, 5], "starts are 1-based"),
        ([3, -1], "must lie within the 4x2 image"),
        ([[1, 2], [4, 1]], "must be a flat list of pairs"),
        ([[1, 2], [4]], "must be a flat list of integers"),
        ([1, 3, 3, 2], "must have runs that do not overlap, got 'two over pixel 3'"),
        ([5, 1, 1, 5], "must have runs that do not overlap, got 'two over pixel 5'"),
    ],
)
def test_a_wrong_flat_rle_is_named(rle: list, message: str) -> None:
    with pytest.raises(UserError) as error:
        brushbench_to_mask(rle, (2, 4))
    assert message in str(error.value)


def test_coco_counts_that_miss_the_size_are_named() -> None:
    with pytest.raises(UserError, match="must have counts that add up to 4x2 = 8 pixels, got 7"):
        coco_to_mask({"size": [2, 4], "counts": [3, 4]})


@pytest.mark.parametrize(
    "mask",
    [
        np.array([[False, True]]),
        np.array([[127, 128]], dtype=np.uint8),
        np.array([[0, 1]], dtype=np.uint8),
        np.array([[0, 1]], dtype=np.int64),
        np.array([[0.49, 0.5]]),
        np.array([[[0.49], [0.5]]]),
        torch.tensor([[0.25, 0.5]], dtype=torch.bfloat16),
        torch.tensor([[[0.0, 1.0]]]),
        torch.tensor([[0, 255]], dtype=torch.uint8),
    ],
)
def test_arrays_are_hole_from_one_half_on(mask: np.ndarray | torch.Tensor) -> None:
    hole = hole_from_array(mask)
    assert hole.dtype == bool
    assert hole.tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((4, 4)), "mask_image has no hole; paint the part that is to be generated white"),
        (np.zeros((0, 4)), "must not be zero-sized"),
        (np.full((4, 4), np.nan), "must hold finite values"),
        (np.full((4, 4), 255.0), "must hold values between 0 and 1, got '0.0 to 255.0'; rescale the mask"),
        (np.full((4, 4), 256, dtype=np.int32), "must hold values between 0 and 255"),
        (np.zeros((2, 4, 4)), "must have the shape (height, width), got (2, 4, 4)"),
        (np.array([["a"]]), "must be an image or a numeric array"),
        ("hole.png", "must be an image or a numeric array, got 'str'"),
    ],
)
def test_wrong_arrays_are_named(mask: object, message: str) -> None:
    with pytest.raises(UserError) as error:
        hole_from_array(mask)
    assert message in str(error.value)


def strokes(rgb: np.ndarray, alpha: np.ndarray) -> Image.Image:
    return Image.fromarray(np.concatenate([rgb, alpha[..., None]], axis=-1).astype(np.uint8))


def test_a_mask_of_one_colour_is_read_from_its_opacity() -> None:
    alpha = np.array([[0, 127, 128, 255]])
    for grey in (0, 255):
        assert hole_from_pil(strokes(np.full((1, 4, 3), grey), alpha)).tolist() == [
            [False, False, True, True]
        ]


def test_a_transparent_mask_of_several_colours_lies_over_black() -> None:
    rgb = np.repeat(np.array([[255, 255, 0]])[..., None], 3, axis=-1)
    assert hole_from_pil(strokes(rgb, np.array([[255, 0, 255]]))).tolist() == [[True, False, False]]


def test_an_opaque_rgba_mask_is_read_from_its_luminance() -> None:
    rgb = np.repeat(np.array([[0, 255]])[..., None], 3, axis=-1)
    assert hole_from_pil(strokes(rgb, np.full((1, 2), 255))).tolist() == [[False, True]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F"])
def test_every_mode_of_a_black_and_white_mask_means_the_same(mode: str) -> None:
    mask = Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8)).convert(mode)
    assert hole_from_pil(mask).tolist() == [[False, True], [True, False]]


def test_16_bit_masks_are_hole_from_one_half_on() -> None:
    assert hole_from_pil(Image.fromarray(np.array([[32767, 32768, 65535]], dtype=np.uint16))).tolist() == [
        [False, True, True]
    ]


def test_shrinking_keeps_a_thin_hole_whole_and_growing_repeats_pixels() -> None:
    hole = np.zeros((40, 40), dtype=bool)
    hole[17] = True
    assert resize_hole(hole, (7, 7)).sum() == 7
    grown = resize_hole(hole, (80, 120))
    np.testing.assert_array_equal(grown, hole.repeat(2, axis=0).repeat(3, axis=1))
