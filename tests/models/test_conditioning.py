"""The branch's input: masked image, known mask, their order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtadiffusion.errors import UserError
from mtadiffusion.models.conditioning import branch_input, latent_known, masked_image


def random_hole(seed: int, height: int, width: int, share: float = 0.3) -> torch.Tensor:
    """(1, 1, H, W) in {0, 1}"""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(1, 1, height, width, generator=generator) < share).float()


@pytest.mark.parametrize(("fill", "value"), [("black", -1.0), ("grey", 0.0)])
def test_the_hole_is_filled_and_the_rest_is_untouched(fill: str, value: float) -> None:
    image = torch.rand(1, 3, 9, 7) * 2 - 1
    hole = random_hole(0, 9, 7)
    masked = masked_image(image, hole, fill)
    inside = hole.bool().expand_as(image)
    assert (masked[inside] == value).all()
    assert torch.equal(masked[~inside], image[~inside])


def test_what_the_hole_held_does_not_matter() -> None:
    image, hole = torch.zeros(1, 3, 4, 4), random_hole(1, 4, 4)
    broken = torch.where(hole.bool(), torch.nan, image)
    assert torch.equal(masked_image(image, hole), masked_image(broken, hole))


def test_black_is_what_brushnet_makes_of_an_8_bit_image() -> None:
    pixels = torch.randint(0, 256, (1, 3, 6, 6)).float()
    hole = random_hole(2, 6, 6)
    expected = pixels * (1 - hole) / 127.5 - 1
    assert torch.allclose(masked_image(pixels / 127.5 - 1, hole), expected)


def test_an_unknown_fill_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"hole_fill must be one of .*did you mean 'grey'"):
        masked_image(torch.zeros(1, 3, 2, 2), torch.zeros(1, 1, 2, 2), "gray")


def test_nearest_is_the_torch_interpolation_that_brushnet_uses() -> None:
    hole = random_hole(3, 64, 96)
    expected = torch.nn.functional.interpolate(1 - hole, size=(8, 12))
    assert torch.equal(latent_known(hole, (8, 12)), expected)


def test_a_hole_of_one_pixel_vanishes_by_nearest_and_stays_by_any() -> None:
    hole = torch.zeros(1, 1, 64, 64)
    hole[0, 0, 13, 21] = 1
    assert latent_known(hole, (8, 8), "nearest").min() == 1
    known = latent_known(hole, (8, 8), "any")
    assert known.sum() == 63
    assert known[0, 0, 1, 2] == 0


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    cells=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    factor=st.sampled_from([1, 4, 8]),
    share=st.floats(0, 1),
)
def test_any_marks_exactly_the_cells_that_hold_a_hole_pixel(
    seed: int, cells: tuple[int, int], factor: int, share: float
) -> None:
    hole = random_hole(seed, cells[0] * factor, cells[1] * factor, share)
    blocks = hole.view(cells[0], factor, cells[1], factor).amax(dim=(1, 3))
    assert torch.equal(latent_known(hole, cells, "any")[0, 0], 1 - blocks)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), height=st.integers(8, 40), width=st.integers(8, 40))
def test_any_knows_no_cell_that_nearest_does_not(seed: int, height: int, width: int) -> None:
    hole = random_hole(seed, height, width, 0.1)
    size = (height // 3, width // 4)
    nearest, wary = latent_known(hole, size), latent_known(hole, size, "any")
    assert set(nearest.unique().tolist()) <= {0.0, 1.0}
    assert (wary <= nearest).all()


def test_bool_holes_are_taken() -> None:
    hole = random_hole(4, 16, 16)
    for mode in ("nearest", "any"):
        assert torch.equal(latent_known(hole.bool(), (4, 4), mode), latent_known(hole, (4, 4), mode))


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(UserError, match="known_mode must be one of"):
        latent_known(torch.zeros(1, 1, 8, 8), (1, 1), "area")


def test_the_input_is_noisy_then_masked_then_known() -> None:
    noisy, masked = torch.randn(2, 4, 3, 5), torch.randn(2, 4, 3, 5)
    known = torch.ones(2, 1, 3, 5)
    joined = branch_input(noisy, masked, known)
    assert joined.shape == (2, 9, 3, 5)
    assert torch.equal(joined[:, :4], noisy)
    assert torch.equal(joined[:, 4:8], masked)
    assert torch.equal(joined[:, 8:], known)


def test_the_input_has_the_dtype_of_the_latents() -> None:
    latents = torch.zeros(1, 4, 2, 2, dtype=torch.float16)
    assert branch_input(latents, latents, torch.ones(1, 1, 2, 2)).dtype == torch.float16
