"""F1 of predicted edges, against the training target of the edge head and a count by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mtadiffusion.evaluate.metrics import metric_named
from mtadiffusion.evaluate.metrics.predicted_edges import cell_means, edge_strength
from mtadiffusion.train.losses import edge_target

from .samples import batch, picture, sample

CELLS = (12, 16)
"""Of 4x4 pixels in the samples' 48x64."""


def score(one):
    return metric_named("edge_f1_predicted").score(batch(one))[0]


def trained_target(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What the trainer's own code, written for tensors, makes of a picture."""
    image = torch.tensor(pixels).permute(2, 0, 1)[None].double() / 127.5 - 1
    return edge_target(image, size)[0, 0].numpy()


@pytest.mark.parametrize("size", [CELLS, (6, 8), (48, 64)])
def test_strength_is_what_the_edge_head_is_trained_to_predict(size):
    pixels = picture(3)
    np.testing.assert_allclose(edge_strength(pixels, size), trained_target(pixels, size), atol=1e-6)


def test_strength_of_the_steepest_corner_is_one():
    corner = np.zeros((3, 3, 3), np.uint8)
    corner[0, 1:] = corner[1, 2] = 255  # right, up and the diagonal bright: both Sobel sums at their most
    assert 0.9 < edge_strength(corner, (3, 3)).max() <= 1


def test_f1_counts_cells_that_lie_in_the_hole():
    one = sample(number=5)
    edges = np.random.default_rng(0).uniform(0, 0.2, CELLS).astype(np.float32)
    strength = trained_target(one.result, CELLS)
    both = either = 0
    for row in range(CELLS[0]):
        for column in range(CELLS[1]):
            if one.hole[4 * row : 4 * row + 4, 4 * column : 4 * column + 4].all():
                found, expected = strength[row, column] > 0.1, edges[row, column] > 0.1
                both += found and expected
                either += int(found) + int(expected)
    assert 0 < 2 * both / either < 1
    assert score(sample(number=5, edges=edges)) == pytest.approx(2 * both / either)


def test_cells_that_lie_in_part_in_the_hole_do_not_count():
    whole = sample(number=5)
    expected = edge_strength(whole.result, CELLS)
    wrong = np.where(cell_means(~whole.hole, CELLS) > 0, 1, expected)
    assert score(sample(number=5, edges=wrong)) == score(sample(number=5, edges=expected)) == 1


def test_a_flat_hole_that_was_expected_to_be_flat_is_right():
    grey = np.full((48, 64, 3), 90, np.uint8)
    nothing, something = np.zeros(CELLS, np.float32), np.ones(CELLS, np.float32)
    assert score(sample(result=grey, edges=nothing)) == 1
    assert score(sample(result=grey, edges=something)) == 0


def test_it_does_not_apply_without_a_prediction_or_a_whole_cell():
    thin = np.zeros((48, 64), bool)
    thin[21:24] = True
    assert score(sample()) is None
    assert score(sample(hole=thin, edges=np.ones(CELLS, np.float32))) is None
