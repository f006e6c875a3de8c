"""Structure: edges in the hole, against a reference where there is one, and against the surroundings always.

`edge_f1` and `edge_f1_sobel` compare the edges inside the hole with those of the original, which is a
reference only where the prompt asks for what was there before: items whose facts say `reference` = `original`
(the insides of BrushBench). An edge pixel counts as found if the other picture has one within 0.75 % of the
diagonal (at least one pixel), as in the Berkeley benchmark of boundaries (Martin et al. 2004), but without
its one-to-one matching. `edge_density_gap` and `sharpness_gap` need no reference: how many times, as
|log2|, the hole has more or fewer edges, or is sharper or softer, than what is around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.ndimage import distance_transform_edt, laplace

from mtadiffusion.evaluate.benchmark import ASKS_FOR_ORIGINAL
from mtadiffusion.evaluate.metrics.metric import Definition, Metric, Sample
from mtadiffusion.evaluate.metrics.per_sample import PerSample
from mtadiffusion.evaluate.metrics.surroundings import around, inner

_TOLERANCE = 0.0075
_SOBEL_THRESHOLD = 0.1
_DENSITY_FLOOR = 0.01
"""Added to shares of edge pixels, so that no edges against few is not infinitely far."""

_SHARPNESS_FLOOR = 1e-4
"""Added to mean squared Laplacians; a pattern of one 8-bit step has about as much."""


def edge_f1() -> Metric:
    """F1 of Canny edges in the hole against those of the original."""
    return PerSample(
        definition=Definition(
            name="edge_f1", title="Edge F1", better="higher", bounds=(0, 1), region="hole", resize="none",
            scale=100, source="Canny edges (σ = side/256, at least 1) against the original's, tolerance"
            " 0.75 % of the diagonal; only items whose reference is the original",
        ),
        of=_canny_f1,
    )  # fmt: skip


def edge_f1_sobel() -> Metric:
    """F1 of Sobel edges in the hole against those of the original."""
    return PerSample(
        definition=Definition(
            name="edge_f1_sobel", title="Edge F1 (Sobel)", better="higher", bounds=(0, 1), region="hole",
            resize="none", scale=100, source="as `edge_f1`, with Sobel magnitudes above 0.1",
        ),
        of=_sobel_f1,
    )  # fmt: skip


def edge_density_gap() -> Metric:
    """How differently dense Canny edges are in the hole and around it, in doublings."""
    return PerSample(
        definition=Definition(
            name="edge_density_gap", title="Edge density gap", better="lower",
            bounds=(0, math.log2((1 + _DENSITY_FLOOR) / _DENSITY_FLOOR)), region="hole", resize="none",
            source="|log2| of the shares of Canny edge pixels, hole against surroundings",
        ),
        of=_edge_density_gap,
    )  # fmt: skip


def sharpness_gap() -> Metric:
    """How differently sharp the hole and its surroundings are, in doublings."""
    return PerSample(
        definition=Definition(
            name="sharpness_gap", title="Sharpness gap", better="lower", bounds=(0, math.inf), region="hole",
            resize="none", source="|log2| of the mean squared Laplacians, hole against surroundings",
        ),
        of=_sharpness_gap,
    )  # fmt: skip


def luma(picture: np.ndarray) -> np.ndarray:
    """Rec. 601 luma of a uint8 (H, W, 3) RGB picture: float64 (H, W) in [0, 1]."""
    return picture @ np.array([0.299, 0.587, 0.114]) / 255


def canny_edges(picture: np.ndarray) -> np.ndarray:
    """bool (H, W), True on thin edges of a uint8 (H, W, 3) RGB picture (Canny 1986)."""
    from skimage.feature import canny

    return canny(luma(picture), sigma=max(1.0, max(picture.shape[:2]) / 256))


def sobel_edges(picture: np.ndarray) -> np.ndarray:
    """bool (H, W), True where a uint8 (H, W, 3) RGB picture's Sobel magnitude exceeds a tenth."""
    from skimage.filters import sobel

    return sobel(luma(picture)) > _SOBEL_THRESHOLD


def f1(found: np.ndarray, wanted: np.ndarray, region: np.ndarray) -> float:
    """F1 in [0, 1] of edges that lie in a region; 1 where neither has any. All are bool (H, W)."""
    tolerance = max(1.0, _TOLERANCE * math.hypot(*region.shape))
    precision = _near(found & region, wanted, tolerance)
    recall = _near(wanted & region, found, tolerance)
    if precision is None and recall is None:
        return 1.0
    return 2 * precision * recall / (precision + recall) if precision and recall else 0.0


def _near(edges: np.ndarray, others: np.ndarray, tolerance: float) -> float | None:
    """The share of edge pixels with another edge nearby; None where there are none."""
    if not edges.any():
        return None
    return float((distance_transform_edt(~others)[edges] <= tolerance).mean()) if others.any() else 0.0


def _f1_against_original(sample: Sample, edges: Callable[[np.ndarray], np.ndarray]) -> float | None:
    if not (ASKS_FOR_ORIGINAL.items() <= sample.item.facts.items() and sample.hole.any()):
        return None
    return f1(edges(sample.result), edges(sample.original), sample.hole)


def _canny_f1(sample: Sample) -> float | None:
    return _f1_against_original(sample, canny_edges)


def _sobel_f1(sample: Sample) -> float | None:
    return _f1_against_original(sample, sobel_edges)


def _edge_density_gap(sample: Sample) -> float | None:
    return _gap(sample, canny_edges(sample.result), _DENSITY_FLOOR)


def _sharpness_gap(sample: Sample) -> float | None:
    return _gap(sample, np.square(laplace(luma(sample.result))), _SHARPNESS_FLOOR)


def _gap(sample: Sample, values: np.ndarray, floor: float) -> float | None:
    """|log2| of the means of values (H, W) inside the hole and around it, both without the seam itself."""
    inside, outside = inner(sample.hole), inner(~sample.hole) & around(sample.hole)
    if not (inside.any() and outside.any()):
        return None
    return abs(math.log2((values[inside].mean() + floor) / (values[outside].mean() + floor)))
