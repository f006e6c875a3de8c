"""Where crops lie, and what shapes they have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtadiffusion.config import DataConfig
from mtadiffusion.errors import UserError
from mtadiffusion.train.crops import bucket_shapes, check_divisible, choose_window, nearest_buckets

SIDES = st.integers(20, 400)


@settings(max_examples=100, deadline=None)
@given(size=st.tuples(SIDES, SIDES), shape=st.tuples(SIDES, SIDES), data=st.data(), seed=st.integers(0, 99))
def test_a_crop_lies_in_the_picture_and_holds_what_it_can_of_its_object(
    size: tuple[int, int], shape: tuple[int, int], data: st.DataObject, seed: int
) -> None:
    y0, x0 = data.draw(st.integers(0, size[0] - 1)), data.draw(st.integers(0, size[1] - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, size[0])), data.draw(st.integers(x0 + 1, size[1]))
    window = choose_window(size, shape, np.random.default_rng(seed), (x0, y0, x1, y1))
    assert (window.height, window.width) == shape
    assert 0 <= window.top <= window.scaled[0] - shape[0]
    assert 0 <= window.left <= window.scaled[1] - shape[1]
    assert min(a - b for a, b in zip(window.scaled, shape, strict=True)) == 0  # no more is lost than must be
    left, top, right, bottom = window.box((x0, y0, x1, y1), size)
    for low, high, side in ((left, right, shape[1]), (top, bottom, shape[0])):
        holds, is_filled = low >= -1 and high <= side + 1, low <= 1 and high >= side - 1
        assert holds or is_filled


def test_crops_of_one_picture_differ() -> None:
    places = {choose_window((64, 300), (64, 64), np.random.default_rng(seed)).left for seed in range(30)}
    assert len(places) > 15
    assert min(places) < 40
    assert max(places) > 190


def test_one_bucket_is_square() -> None:
    assert bucket_shapes(DataConfig(size=512)) == ((512, 512),)


def test_buckets_have_sides_in_steps_few_pixels_and_bounded_aspects() -> None:
    shapes = bucket_shapes(DataConfig(size=512, max_aspect=2.0))
    assert shapes[0] == (512, 512)
    assert len(set(shapes)) == len(shapes) > 4
    for height, width in shapes[1:]:
        assert height % 64 == width % 64 == 0
        assert 0.75 * 512**2 < height * width <= 512**2
        assert max(height, width) <= 2 * min(height, width)
        assert (width, height) in shapes or (height, width + 64) in shapes or (height + 64, width) in shapes


def test_a_picture_goes_into_the_bucket_of_its_aspect() -> None:
    shapes = [(512, 512), (384, 640), (640, 384)]
    sizes = np.array([[900, 1000], [700, 1400], [1400, 700]])
    assert nearest_buckets(sizes, shapes).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("data", "named"), [({"size": 500}, "data.size"), ({"bucket_step": 24}, "data.bucket_step")]
)
def test_sides_that_the_backbone_cannot_halve_are_refused(data: dict[str, int], named: str) -> None:
    config = DataConfig(**{"size": 512, "max_aspect": 1.5, **data})
    with pytest.raises(
        UserError, match=rf"{named} must be a multiple of 64, got .*take 64 or|{named} .*448 or 512"
    ):
        check_divisible(config, 64)
    check_divisible(DataConfig(size=512), 64)
