"""Windows on pictures and masks."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mtadiffusion.imaging.windows import Window, cut_image, cut_mask


def test_a_window_of_an_unscaled_picture_is_a_slice() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    window = Window(scaled=(20, 30), top=3, left=5, height=10, width=12)
    assert (cut_image(image, window) == image[3:13, 5:17]).all()
    assert (cut_mask(image[..., 0] > 99, window) == (image[3:13, 5:17, 0] > 99)).all()


@pytest.mark.parametrize("size", [(33, 47), (80, 120)])
def test_a_scaled_picture_is_pillows_to_rounding(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    scaled = cut_image(image, Window.whole(*size)).astype(int)
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(scaled - expected).max() <= 1


@pytest.mark.parametrize("order", ["C", "F"])
def test_masks_are_scaled_by_nearest_neighbour(order: str) -> None:
    mask = np.asarray(np.random.default_rng(1).random((40, 60)) < 0.5, order=order)
    window = Window(scaled=(20, 30), top=4, left=6, height=8, width=9)
    expected = Image.fromarray(np.ascontiguousarray(mask)).resize((30, 20), Image.Resampling.NEAREST)
    assert (cut_mask(mask, window) == np.asarray(expected)[4:12, 6:15]).all()


def test_a_box_moves_and_scales_with_the_window() -> None:
    window = Window(scaled=(50, 100), top=10, left=20, height=30, width=30)
    assert window.box((60, 40, 100, 80), (100, 200)) == (10.0, 10.0, 30.0, 30.0)
    assert window.share((60, 40, 100, 80), (100, 200)) == 1.0
    assert window.share((60, 40, 140, 80), (100, 200)) == 0.5
    assert window.share((0, 0, 10, 10), (100, 200)) == 0.0
    assert window.share((60, 40, 60, 80), (100, 200)) == 0.0
