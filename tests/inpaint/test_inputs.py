from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from mtadiffusion.errors import UserError
from mtadiffusion.inpaint.inputs import as_holes, as_pictures, broadcast, check_number
from mtadiffusion.inpaint.outputs import as_output, check_finite


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def test_every_form_of_the_same_picture_is_the_same(pixels: np.ndarray) -> None:
    floats = pixels.astype(np.float32) / 255
    planes = torch.from_numpy(floats).permute(2, 0, 1)
    forms = [
        Image.fromarray(pixels), pixels, floats, planes, torch.from_numpy(pixels).permute(2, 0, 1),
        np.concatenate([pixels, np.full((6, 8, 1), 255, np.uint8)], axis=-1),
    ]  # fmt: skip
    for form in forms:
        (picture,) = as_pictures(form)
        assert torch.equal(picture, planes)
    for batch in (
        pixels[None].repeat(2, 0),
        planes[None].repeat(2, 1, 1, 1),
        [pixels, planes],
        (planes[None], pixels),
    ):
        assert all(torch.equal(picture, planes) for picture in as_pictures(batch))
        assert len(as_pictures(batch)) == 2


def test_grey_pictures_get_three_channels(pixels: np.ndarray) -> None:
    for form in (
        pixels[..., 0],
        pixels[..., :1],
        torch.from_numpy(pixels[None, ..., 0]),
        Image.fromarray(pixels[..., 0]),
    ):
        (picture,) = as_pictures(form)
        assert picture.shape == (3, 6, 8)
        assert torch.equal(picture[1], torch.from_numpy(pixels[..., 0]).float() / 255)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_keep_their_dtype(dtype: torch.dtype) -> None:
    assert as_pictures(torch.rand(3, 4, 4).to(dtype))[0].dtype == dtype


def test_every_form_of_the_same_mask_is_the_same() -> None:
    hole = np.zeros((6, 8), dtype=bool)
    hole[2:4, 3:7] = True
    grey = hole.astype(np.uint8) * 255
    forms = [
        hole, grey, Image.fromarray(grey), np.repeat(grey[..., None], 3, axis=-1), torch.from_numpy(hole),
        torch.from_numpy(hole)[None].float(), hole[..., None].astype(float),
        torch.from_numpy(hole)[None, None],
    ]  # fmt: skip
    for form in forms:
        (found,) = as_holes(form)
        assert torch.equal(found, torch.from_numpy(hole))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "image must be a PIL image, array, tensor or a list of them, got 'NoneType'"),
        ("cat.png", "image must be a PIL image, array, tensor or a list of them, got 'str'"),
        ([], "image must not be an empty list"),
        (np.zeros((4, 4, 5), dtype=np.uint8), "image must have the shape (height, width, 3), got (4, 4, 5)"),
        (torch.zeros(4, 4, 3), "image must have three colour channels, got 'shape (4, 4, 3)'"),
        (torch.zeros(3, 0, 4), "image must not be zero-sized, got '4x0'"),
        (np.zeros((4, 4, 3), dtype=np.int64), "image must hold 8-bit integers or floats, got 'torch.int64'"),
        (torch.full((3, 4, 4), math.nan), "image must hold finite values; it holds NaN or infinity"),
        (
            -torch.ones(3, 4, 4),
            "image must hold floats between 0 and 1, got '-1 to -1'; map [-1, 1] there by",
        ),
    ],
)
def test_wrong_pictures_are_named(image: object, message: str) -> None:
    with pytest.raises(UserError) as error:
        as_pictures(image)
    assert message in str(error.value)


def test_lists_of_different_lengths_are_named() -> None:
    assert broadcast(3, prompt=["a"], image=[1, 2, 3]) == [["a"] * 3, [1, 2, 3]]
    with pytest.raises(UserError) as error:
        broadcast(3, prompt=["a", "b"], image=[1, 2, 3])
    assert str(error.value) == "prompt must have 1 entry or 3, got 2; the lengths are: prompt 2, image 3"


@pytest.mark.parametrize("value", [0, 1001, -3, math.nan, math.inf, "20", None, True, 2.5])
def test_numbers_out_of_range_are_named(value: object) -> None:
    with pytest.raises(UserError, match="steps must be a whole number between 1 and 1000"):
        check_number("steps", value, 1, 1000, whole=True)


def test_results_of_one_size_are_stacked_and_others_listed() -> None:
    small, large = torch.zeros(3, 4, 6, dtype=torch.bfloat16), torch.ones(3, 5, 6)
    assert as_output([small, small], "np").shape == (2, 4, 6, 3)
    assert as_output([small, small], "pt").shape == (2, 3, 4, 6)
    assert [one.shape for one in as_output([small, large], "np")] == [(4, 6, 3), (5, 6, 3)]
    assert [one.size for one in as_output([small, large], "pil")] == [(6, 4), (6, 5)]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_in_a_result_names_the_dtype_and_its_remedy(value: float) -> None:
    with pytest.raises(UserError) as error:
        check_finite(torch.tensor([0.0, value]), torch.float16)
    assert "NaN in torch.float16" in str(error.value)
    assert "load the model with torch_dtype=torch.float32 or torch.bfloat16" in str(error.value)
