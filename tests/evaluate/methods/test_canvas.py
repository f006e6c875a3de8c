"""The canvas: what methods see of a picture, and how what they drew comes back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.methods.canvas import FEATHER, prepare
from mtadiffusion.imaging.blending import blend_pictures


def test_the_view_shows_known_pixels_and_nothing_of_the_hole(image: np.ndarray, hole: np.ndarray) -> None:
    loud = image.copy()
    loud[hole] = (255, 0, 255)
    quiet, seen = prepare(image, hole, 64), prepare(loud, hole, 64)
    assert torch.equal(quiet.picture, seen.picture)
    assert seen.picture.shape == (3, 64, 64)
    assert seen.picture.dtype == torch.float32
    assert 0 <= float(seen.picture.min()) <= float(seen.picture.max()) <= 1


def test_at_its_own_size_the_view_is_the_picture_outside_the_hole(
    image: np.ndarray, hole: np.ndarray
) -> None:
    canvas = prepare(image, hole, 96)
    pixels = (canvas.picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    assert np.array_equal(pixels[~hole], image[~hole])
    assert np.array_equal(canvas.work_hole.numpy(), hole)


def test_a_work_pixel_that_touches_the_hole_is_hole(image: np.ndarray) -> None:
    dot = np.zeros((96, 96), bool)
    dot[50, 50] = True
    assert prepare(image, dot, 32).work_hole.sum() == 1


def test_a_masked_view_has_the_value_in_the_hole_alone(image: np.ndarray, hole: np.ndarray) -> None:
    canvas = prepare(image, hole, 64)
    masked = canvas.masked(-1)
    assert (masked[:, canvas.work_hole] == -1).all()
    assert torch.equal(masked[:, ~canvas.work_hole], canvas.picture[:, ~canvas.work_hole])


@pytest.mark.parametrize(("shape", "size"), [((100, 200), (384, 704)), ((96, 96), (512, 512))])
def test_pictures_that_are_not_square_get_as_many_pixels(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    canvas = prepare(np.zeros((*shape, 3), np.uint8), np.ones(shape, bool), 512)
    assert canvas.size == size


@pytest.mark.parametrize("blend", ["paste", "brushnet", "none"])
def test_a_result_is_blended_once_and_has_the_inputs_size(
    blend: str, image: np.ndarray, hole: np.ndarray
) -> None:
    canvas = prepare(image, hole, 96)
    drawn = torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(0))
    once = blend_pictures(canvas.original, drawn, canvas.hole, blend, int(FEATHER))  # type: ignore[arg-type]
    expected = (once.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    assert np.array_equal(canvas.finish(drawn, blend), expected)


def test_a_smaller_result_is_enlarged(image: np.ndarray, hole: np.ndarray) -> None:
    result = prepare(image, hole, 64).finish(torch.full((3, 64, 64), 0.5), "none")
    assert result.shape == image.shape
    assert (result == 128).all()


def test_bad_calls_are_named(image: np.ndarray, hole: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"image must be uint8 \(H, W, 3\), got 'float64"):
        prepare(image / 255, hole, 64)
    with pytest.raises(UserError, match="hole must be bool"):
        prepare(image, hole.astype(np.uint8), 64)
    with pytest.raises(UserError, match="blend must be one of"):
        prepare(image, hole, 64).finish(torch.zeros(3, 64, 64), "feathered")
    with pytest.raises(UserError, match="NaN"):
        prepare(image, hole, 64).finish(torch.full((3, 64, 64), torch.nan), "paste")
