from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from mtadiffusion.errors import UserError
from mtadiffusion.imaging.blending import (
    blend_pictures,
    brushnet_soft_hole,
    feather_alpha,
    fill_from_known,
    gaussian_blur,
)


@pytest.fixture
def hole() -> torch.Tensor:
    """bool (40, 50), touching the picture's left border."""
    hole = torch.zeros(40, 50, dtype=torch.bool)
    hole[10:30, 0:22] = True
    hole[33, 40] = True
    return hole


@pytest.fixture
def pictures() -> torch.Tensor:
    """Two pictures (2, 3, 40, 50)."""
    return torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("feather", [0, 2, 7])
def test_paste_leaves_known_pixels_bit_for_bit(
    pictures: torch.Tensor, hole: torch.Tensor, dtype: torch.dtype, feather: int
) -> None:
    original = pictures[0].to(dtype)
    result = blend_pictures(original, pictures[1], hole, "paste", feather)
    assert result.dtype == dtype
    assert torch.equal(result[:, ~hole], original[:, ~hole])


@pytest.mark.parametrize("blend", ["paste", "brushnet", "none"])
def test_what_was_in_the_hole_has_no_influence(
    pictures: torch.Tensor, hole: torch.Tensor, blend: str
) -> None:
    other = torch.where(hole, 1 - pictures[0], pictures[0])
    results = [blend_pictures(original, pictures[1], hole, blend, 2) for original in (pictures[0], other)]
    assert torch.equal(*results)


def test_feathering_rises_inside_the_hole_from_its_edge_and_not_from_the_border(hole: torch.Tensor) -> None:
    alpha = feather_alpha(hole, 2)
    assert alpha[20, 17:24].tolist() == pytest.approx([1, 1, 1, 2 / 3, 1 / 3, 0, 0])
    assert alpha[20, 0] == 1
    assert alpha[33, 40] == pytest.approx(1 / 3)
    assert (alpha[~hole] == 0).all()
    assert torch.equal(feather_alpha(hole, 0), hole.float())


def test_paste_is_the_generated_picture_two_pixels_inside(pictures: torch.Tensor, hole: torch.Tensor) -> None:
    result = blend_pictures(pictures[0], pictures[1], hole, "paste", 2)
    torch.testing.assert_close(result[:, 12:28, 0:20], pictures[1][:, 12:28, 0:20])


def test_a_filled_hole_continues_its_surroundings(hole: torch.Tensor) -> None:
    slope = torch.linspace(0, 1, 40)[:, None].expand(3, 40, 50)
    filled = fill_from_known(torch.where(hole, 9.0, slope), hole)
    assert torch.equal(filled[:, ~hole], slope[:, ~hole])
    assert (filled - slope).abs().max() < 0.25
    flat = fill_from_known(torch.where(hole, math.nan, torch.full((3, 40, 50), 0.25)), hole)
    torch.testing.assert_close(flat, torch.full((3, 40, 50), 0.25))


def test_a_picture_without_known_pixels_is_filled_with_grey() -> None:
    filled = fill_from_known(torch.ones(3, 7, 5), torch.ones(7, 5, dtype=torch.bool))
    torch.testing.assert_close(filled, torch.full((3, 7, 5), 0.5))


@pytest.mark.parametrize("shape", [(64, 48), (25, 9), (1, 30), (3, 2)])
def test_the_gaussian_is_opencvs(shape: tuple[int, int]) -> None:
    plane = np.random.default_rng(0).random(shape)
    # scipy's "mirror" is OpenCV's reflect-101; sigma 3.5 is what OpenCV takes for 21 pixels.
    axis = np.arange(-10, 11)
    kernel = np.exp(-(axis**2) / (2 * 3.5**2))
    kernel /= kernel.sum()
    expected = ndimage.correlate1d(plane, kernel, axis=0, mode="mirror")
    expected = ndimage.correlate1d(expected, kernel, axis=1, mode="mirror")
    np.testing.assert_allclose(gaussian_blur(torch.from_numpy(plane), 21).numpy(), expected, atol=1e-12)


def test_brushnets_soft_hole_is_one_inside_and_reaches_ten_pixels_out(hole: torch.Tensor) -> None:
    soft = brushnet_soft_hole(hole)
    assert (soft[hole] == 1).all()
    distance = ndimage.distance_transform_cdt(~hole.numpy(), metric="chessboard")
    assert (soft.numpy()[distance > 10] == 0).all()
    assert (soft.numpy()[(distance > 0) & (distance <= 10)] > 0).all()


def test_brushnets_blend_is_its_formula(pictures: torch.Tensor, hole: torch.Tensor) -> None:
    m = hole.numpy().astype(float)
    blurred = ndimage.gaussian_filter(m, 3.5, mode="mirror", truncate=10 / 3.5)
    soft = 1 - (1 - m) * (1 - blurred)
    expected = pictures[0].numpy() * (1 - soft) + pictures[1].numpy() * soft
    result = blend_pictures(pictures[0], pictures[1], hole, "brushnet")
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-6)


def test_an_unknown_blend_is_named(pictures: torch.Tensor, hole: torch.Tensor) -> None:
    with pytest.raises(UserError, match="blend must be one of paste, brushnet, none, got 'poisson'"):
        blend_pictures(pictures[0], pictures[1], hole, "poisson")  # type: ignore[arg-type]
