"""Structure: F1 of edges on drawings whose edges are known, and gaps of density and sharpness."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays
from scipy.ndimage import gaussian_filter

from mtadiffusion.evaluate.metrics import metric_named
from mtadiffusion.evaluate.metrics.edges import canny_edges, f1, luma, sobel_edges

from .samples import batch, box, picture, sample

ORIGINAL = {"reference": "original"}
EVERYWHERE = np.ones((20, 20), bool)
MASKS = arrays.arrays(bool, (8, 8))


def score(name, one):
    return metric_named(name).score(batch(one))[0]


def line(column):
    edges = np.zeros((20, 20), bool)
    edges[:, column] = True
    return edges


def test_luma_is_rec_601():
    assert luma(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8))[0].tolist() == pytest.approx(
        [0.299, 0.587, 0.114]
    )


@pytest.mark.parametrize("edges", [canny_edges, sobel_edges])
def test_a_step_has_edges_there_and_nowhere_else(edges):
    step = np.zeros((32, 32, 3), np.uint8)
    step[:, 16:] = 255
    columns = np.nonzero(edges(step)[16])[0]
    assert set(columns) <= {15, 16}
    assert len(columns)


def test_edges_within_the_tolerance_are_found_and_others_not():
    assert f1(line(10), line(11), EVERYWHERE) == 1
    assert f1(line(10), line(13), EVERYWHERE) == 0


def test_f1_is_the_harmonic_mean_of_precision_and_recall():
    assert f1(line(10), line(10) | line(3), EVERYWHERE) == pytest.approx(2 / 3)
    assert f1(line(10) | line(3), line(10), EVERYWHERE) == pytest.approx(2 / 3)


def test_edges_outside_the_region_do_not_count():
    region = np.zeros((20, 20), bool)
    region[:, 8:] = True
    assert f1(line(10), line(10) | line(3), region) == 1


def test_neither_with_edges_agrees_and_one_without_does_not():
    nothing = np.zeros((20, 20), bool)
    assert f1(nothing, nothing, EVERYWHERE) == 1
    assert f1(line(5), nothing, EVERYWHERE) == f1(nothing, line(5), EVERYWHERE) == 0


@settings(max_examples=40)
@given(one=MASKS, other=MASKS, region=MASKS)
def test_f1_is_symmetric_and_in_its_bounds(one, other, region):
    value = f1(one, other, region)
    assert 0 <= value <= 1
    assert value == pytest.approx(f1(other, one, region))


@pytest.mark.parametrize("name", ["edge_f1", "edge_f1_sobel"])
def test_only_items_whose_reference_is_the_original_have_an_f1(name):
    assert score(name, sample()) is None
    assert score(name, sample(facts=ORIGINAL, result=picture(0))) == 1
    assert score(name, sample(facts=ORIGINAL, hole=np.zeros((48, 64), bool))) is None


def test_a_drawing_redrawn_scores_above_another_drawing():
    def disc(centre):
        y, x = np.mgrid[:48, :64]
        return np.repeat((np.hypot(y - centre[0], x - centre[1]) < 6)[..., None], 3, 2) * np.uint8(255)

    drawn = disc((24, 32))
    for name in ("edge_f1", "edge_f1_sobel"):
        same = score(name, sample(facts=ORIGINAL, original=drawn, result=np.minimum(drawn, 200)))
        other = score(name, sample(facts=ORIGINAL, original=drawn, result=disc((20, 24))))
        assert same > 0.9 > 0.8 > other


def test_a_gap_counts_doublings_and_leaves_out_the_seam():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::8] = 255
    hole = box((64, 64))
    flat = np.where(hole[..., None], np.uint8(0), stripes)
    for name in ("edge_density_gap", "sharpness_gap"):
        plain = score(name, sample(result=stripes, original=stripes, hole=hole))
        emptied = score(name, sample(result=flat, original=stripes, hole=hole))
        assert plain < 0.5 < 3 < emptied <= metric_named(name).definition.bounds[1]


def test_a_blurred_hole_is_less_sharp_the_more_it_is_blurred():
    noise = picture(1, (64, 64)) // 2 + np.random.default_rng(0).integers(0, 100, (64, 64, 3), dtype=np.uint8)
    hole, gaps = box((64, 64)), []
    for sigma in (0, 1, 2):
        soft = np.stack([gaussian_filter(plane, sigma) for plane in np.moveaxis(noise, 2, 0)], 2)
        one = sample(original=noise, hole=hole, result=np.where(hole[..., None], soft, noise))
        gaps.append(score("sharpness_gap", one))
    assert gaps == sorted(gaps)
    assert gaps[0] < 0.5 < 2 < gaps[2]


@settings(max_examples=15)
@given(result=arrays.arrays(np.uint8, (16, 16, 3)))
def test_gaps_stay_in_their_bounds(result):
    one = sample(result=result, original=result, hole=box((16, 16)))
    for name in ("edge_density_gap", "sharpness_gap"):
        assert 0 <= score(name, one) <= metric_named(name).definition.bounds[1]
        assert math.isfinite(score(name, one))


@pytest.mark.parametrize("name", ["edge_density_gap", "sharpness_gap"])
def test_no_inside_or_no_outside_has_no_gap(name):
    assert score(name, sample(hole=np.ones((48, 64), bool))) is None
    assert score(name, sample(hole=np.zeros((48, 64), bool))) is None
