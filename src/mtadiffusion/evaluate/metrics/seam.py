"""How visible the hole's border is: colour differences across it, beyond those that the original has there.

Pairs of neighbouring pixels, one in the hole and one known, are compared by CIEDE2000 (Sharma et al. 2005) in
the result and in the original. 0 is a border as natural as the original's; below 0 it is smoother.
"""

from __future__ import annotations

import math

import numpy as np

from mtadiffusion.evaluate.metrics.colour import lab
from mtadiffusion.evaluate.metrics.metric import Definition, Metric, Sample
from mtadiffusion.evaluate.metrics.per_sample import PerSample


def seam_delta_e() -> Metric:
    """Mean CIEDE2000 across the border in the result less that in the original."""
    return PerSample(
        definition=Definition(
            name="seam_delta_e", title="Seam ΔE", better="lower", bounds=(-math.inf, math.inf),
            region="image", resize="none",
            source="mean CIEDE2000 of neighbours across the hole's border, less the original's",
        ),
        of=_seam_delta_e,
    )  # fmt: skip


def _seam_delta_e(sample: Sample) -> float | None:
    found = across(sample.result, sample.hole)
    return float(found.mean() - across(sample.original, sample.hole).mean()) if len(found) else None


def across(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """CIEDE2000 of every pair of horizontal or vertical neighbours of which one is in the hole.

    Args:
        picture: uint8 (H, W, 3), RGB.
        hole: bool (H, W).
    """
    from skimage.color import deltaE_ciede2000

    right, down = hole[:, 1:] != hole[:, :-1], hole[1:] != hole[:-1]
    first = np.concatenate([picture[:, :-1][right], picture[:-1][down]])
    second = np.concatenate([picture[:, 1:][right], picture[1:][down]])
    return deltaE_ciede2000(lab(first), lab(second)) if len(first) else np.zeros(0)
