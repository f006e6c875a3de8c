"""Colours in CIELAB: the distance of two sets, and differences across a border, against plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays
from scipy.linalg import sqrtm
from skimage.color import deltaE_ciede2000, rgb2lab

from mtadiffusion.evaluate.metrics import metric_named
from mtadiffusion.evaluate.metrics.colour import lab, normal_distance
from mtadiffusion.evaluate.metrics.seam import across
from mtadiffusion.evaluate.metrics.surroundings import around, inner
from mtadiffusion.seeding import numpy_generator

from .samples import batch, box, picture, sample

PICTURES = arrays.arrays(np.uint8, (9, 9, 3))


def score(name, one):
    return metric_named(name).score(batch(one))[0]


def test_lab_of_known_colours():
    white, black, red = lab(np.array([[[255] * 3, [0] * 3, [255, 0, 0]]], np.uint8))[0]
    np.testing.assert_allclose(white, [100, 0, 0], atol=0.01)
    np.testing.assert_allclose(black, [0, 0, 0], atol=0.01)
    np.testing.assert_allclose(red, [53.24, 80.09, 67.20], atol=0.02)


def test_the_distance_is_that_of_two_normal_distributions():
    rng = numpy_generator(0, "tests/colours")
    one, other = rng.normal(size=(50, 3)), rng.normal(size=(70, 3)) @ rng.normal(size=(3, 3)) + 2
    first, second = (np.cov(colours, rowvar=False, bias=True) for colours in (one, other))
    root = sqrtm(first)
    squared = ((one.mean(0) - other.mean(0)) ** 2).sum()
    squared += np.trace(first + second - 2 * sqrtm(root @ second @ root).real)
    assert normal_distance(one, other) == pytest.approx(np.sqrt(squared), rel=1e-6)


def test_a_shifted_lightness_is_that_far():
    one = numpy_generator(0, "tests/shift").normal(size=(40, 3))
    assert normal_distance(one, one + np.array([5, 0, 0])) == pytest.approx(5)


def test_colour_distance_looks_at_the_hole_and_a_ring_around_it():
    one = sample()
    colours = rgb2lab(one.result)
    expected = normal_distance(colours[one.hole], colours[around(one.hole)])
    assert score("colour_distance", one) == pytest.approx(expected)


def test_the_ring_is_an_eighth_of_the_longer_side_wide():
    ring = around(box())
    rows, columns = np.nonzero(ring)
    assert not (ring & box()).any()
    assert (rows.min(), columns.min(), columns.max()) == (16 - 8, 21 - 8, 41 + 8)


def test_the_inner_part_leaves_out_the_border_but_not_the_pictures_edge():
    region = np.zeros((5, 6), bool)
    region[:, :3] = True
    assert inner(region).sum(0).tolist() == [5, 5, 0, 0, 0, 0]


@settings(max_examples=15)
@given(result=PICTURES)
def test_a_hole_without_surroundings_or_none_at_all_has_no_colour_distance(result):
    for hole in (np.ones((9, 9), bool), np.zeros((9, 9), bool)):
        assert score("colour_distance", sample(result=result, original=result, hole=hole)) is None


@settings(max_examples=15)
@given(result=PICTURES)
def test_colour_distance_is_never_negative(result):
    hole = np.zeros((9, 9), bool)
    hole[3:6, 3:6] = True
    assert score("colour_distance", sample(result=result, original=result, hole=hole)) >= 0


def test_pairs_across_the_border_are_all_and_only_those():
    hole = np.zeros((3, 4), bool)
    hole[1, 1] = True
    grey = np.full((3, 4, 3), 100, np.uint8)
    lit = np.where(hole[..., None], np.uint8(140), grey)
    expected = deltaE_ciede2000(rgb2lab(grey[:1, :1]), rgb2lab(lit[1:2, 1:2])).item()
    np.testing.assert_allclose(across(lit, hole), [expected] * 4)


def test_the_original_has_a_natural_seam_and_a_hard_edge_a_visible_one():
    one = sample()
    assert score("seam_delta_e", sample(result=one.original)) == 0
    assert score("seam_delta_e", one) > 1
    grey = np.where(one.hole[..., None], np.uint8(128), one.original)
    assert score("seam_delta_e", sample(result=grey)) > score("seam_delta_e", sample(result=picture(0))) == 0


def test_without_a_border_there_is_no_seam():
    assert score("seam_delta_e", sample(hole=np.zeros((48, 64), bool))) is None
    assert score("seam_delta_e", sample(hole=np.ones((48, 64), bool))) is None
