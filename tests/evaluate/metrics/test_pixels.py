"""MSE and PSNR of known pixels against plain numpy, and BrushNet's arithmetic as its code has it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mtadiffusion.evaluate.metrics import metric_named

from .samples import batch, picture, sample

PICTURES = arrays.arrays(np.uint8, (7, 5, 3))


def score(name, one):
    return metric_named(name).score(batch(one))[0]


def brushnets_own(result, original, hole):
    """MSE as `evaluate_brushnet.py` computes it: float32, pictures times a mask of one channel."""
    keep = 1 - hole[:, :, None].astype(np.float32)
    difference = result.astype(np.float32) / 255.0 * keep - original.astype(np.float32) / 255.0 * keep
    return (difference**2).sum() / keep.sum()


def test_brushnets_form_is_its_code():
    one = sample(result=picture(7))
    expected = brushnets_own(one.result, one.original, one.hole)
    assert score("mse_brushnet", one) == pytest.approx(expected, rel=1e-5)
    assert score("psnr_brushnet", one) == pytest.approx(20 * math.log10(1 / math.sqrt(expected)), abs=1e-4)


def test_the_usual_form_is_the_mean_over_known_values():
    one = sample(result=picture(7))
    known = (one.result / 255 - one.original / 255)[~one.hole]
    assert score("mse", one) == pytest.approx((known**2).mean())
    assert score("psnr", one) == pytest.approx(-10 * math.log10((known**2).mean()))


def test_brushnets_psnr_lies_4_77_db_below_the_usual():
    one = sample(result=picture(7))
    assert score("psnr", one) - score("psnr_brushnet", one) == pytest.approx(10 * math.log10(3))


def test_what_lies_in_the_hole_does_not_count():
    assert score("mse", sample()) == 0
    assert score("psnr", sample()) == 100
    assert score("psnr_brushnet", sample()) == 1000


@pytest.mark.parametrize("name", ["mse", "mse_brushnet", "psnr", "psnr_brushnet"])
def test_without_known_pixels_there_is_no_score(name):
    assert score(name, sample(hole=np.ones((48, 64), bool))) is None


@settings(max_examples=25)
@given(result=PICTURES, original=PICTURES, hole=arrays.arrays(bool, (7, 5)))
def test_scores_stay_in_their_bounds(result, original, hole):
    one = sample(result=result, original=original, hole=hole)
    for name in ("mse", "mse_brushnet", "psnr", "psnr_brushnet"):
        value, (least, most) = score(name, one), metric_named(name).definition.bounds
        assert value is None or least - 1e-9 <= value <= most


@settings(max_examples=25)
@given(original=PICTURES, step=st.integers(1, 100))
def test_a_larger_error_is_worse(original, step):
    low = original // 2
    near, far = sample(original=low, result=low + 1), sample(original=low, result=low + np.uint8(1 + step))
    hole = np.zeros((7, 5), bool)
    near, far = (sample(original=one.original, result=one.result, hole=hole) for one in (near, far))
    assert score("mse", near) < score("mse", far)
    assert score("psnr", near) > score("psnr", far)
