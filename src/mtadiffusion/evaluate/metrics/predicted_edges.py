"""Structure: whether a picture has its edges where the method that drew it expected them.

The branch's edge head predicts for every latent cell how strong the picture's edges are there
(docs/method.md, section 3). Here the same measure is taken of the result, and cells are compared.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image
from scipy.ndimage import sobel

from mtadiffusion.evaluate.metrics.edges import luma
from mtadiffusion.evaluate.metrics.metric import Definition, Metric, Sample
from mtadiffusion.evaluate.metrics.per_sample import PerSample

_THRESHOLD = 0.1
"""From which mean Sobel magnitude on a cell has an edge: about a third of the cells in holes of stickers."""

_MOST = math.sqrt(20)
"""The greatest Sobel magnitude of a picture in [0, 1]."""


def edge_f1_predicted() -> Metric:
    """F1 of the cells in the hole that have edges by the method's prediction and in the picture."""
    return PerSample(
        definition=Definition(
            name="edge_f1_predicted", title="Edge F1 (predicted)", better="higher", bounds=(0, 1),
            region="hole", resize="Sobel magnitudes to the prediction's grid, area mean", scale=100,
            source="cells with a mean Sobel magnitude above 0.1 (of 1), the method's own prediction against"
            " its result; only methods that predict edges",
        ),
        of=_f1_predicted,
    )  # fmt: skip


def edge_strength(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What the edge head is trained to predict, of a uint8 (H, W, 3) RGB picture.

    Rec. 601 luma in [0, 1], its Sobel magnitude over the greatest possible one, the mean over each cell.

    Args:
        picture: the picture; its border is repeated outwards.
        size: (h, w), the number of cells.

    Returns:
        float32 (h, w) in [0, 1].
    """
    grey = luma(picture)
    across, down = (sobel(grey, axis=axis, mode="nearest") for axis in (1, 0))
    return cell_means(np.hypot(across, down) / _MOST, size)


def cell_means(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 (h, w): means of float values (H, W) over the cells of a grid."""
    height, width = size
    plane = Image.fromarray(values.astype(np.float32))
    return np.asarray(plane.resize((width, height), Image.Resampling.BOX))


def _f1_predicted(sample: Sample) -> float | None:
    """Cells of which only a part is hole do not count; None where there are no others."""
    if sample.edges is None:
        return None
    size = sample.edges.shape
    inside = cell_means(~sample.hole, size) == 0
    if not inside.any():
        return None
    expected = sample.edges[inside] > _THRESHOLD
    found = edge_strength(sample.result, size)[inside] > _THRESHOLD
    either = expected.sum() + found.sum()
    return float(2 * (expected & found).sum() / either) if either else 1.0
