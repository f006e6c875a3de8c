"""Style by colour: how far the colours in the hole are from those around it, in CIELAB.

Both sets of colours are taken as normal distributions; their distance is the 2-Wasserstein distance
sqrt(|m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2))) (Dowson and Landau 1982), in units of CIELAB (ΔE*ab).
"""

from __future__ import annotations

import math

import numpy as np

from mtadiffusion.evaluate.metrics.metric import Definition, Metric, Sample
from mtadiffusion.evaluate.metrics.per_sample import PerSample
from mtadiffusion.evaluate.metrics.surroundings import around

_FEWEST = 4
"""Pixels that a covariance of three numbers needs at least."""


def colour_distance() -> Metric:
    """The distance of two normal distributions of colours, inside the hole and around it."""
    return PerSample(
        definition=Definition(
            name="colour_distance", title="Colour distance", better="lower", bounds=(0, math.inf),
            region="hole", resize="none",
            source="2-Wasserstein distance of normal distributions in CIELAB, hole against surroundings",
        ),
        of=_colour_distance,
    )  # fmt: skip


def lab(picture: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of a uint8 sRGB array (..., 3): float64, L in [0, 100], a and b about -110 to 110."""
    from skimage.color import rgb2lab

    return rgb2lab(picture)


def normal_distance(one: np.ndarray, other: np.ndarray) -> float:
    """2-Wasserstein distance of the normal distributions fitted to two sets of vectors (N, D) and (M, D)."""
    first, second = np.cov(one.T, bias=True), np.cov(other.T, bias=True)
    # The eigenvalues of a product of two covariances are real and not negative, but for rounding.
    common = np.sqrt(np.linalg.eigvals(first @ second).real.clip(min=0)).sum()
    squared = np.square(one.mean(0) - other.mean(0)).sum() + np.trace(first) + np.trace(second) - 2 * common
    return math.sqrt(max(0.0, float(squared)))


def _colour_distance(sample: Sample) -> float | None:
    outside = around(sample.hole)
    if min(sample.hole.sum(), outside.sum()) < _FEWEST:
        return None
    colours = lab(sample.result)
    return normal_distance(colours[sample.hole], colours[outside])
