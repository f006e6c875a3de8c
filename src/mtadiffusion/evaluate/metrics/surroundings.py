"""What a hole is compared with: the known pixels around it; and the inner parts of both, off the seam."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt

_REACH = 1 / 8
"""How far the surroundings reach, as a share of the picture's longer side."""


def around(hole: np.ndarray) -> np.ndarray:
    """bool (H, W), True for known pixels within an eighth of the longer side of a bool (H, W) hole."""
    if not hole.any():
        return np.zeros_like(hole)
    return ~hole & (distance_transform_edt(~hole) <= max(1.0, _REACH * max(hole.shape)))


def inner(region: np.ndarray, pixels: int = 1) -> np.ndarray:
    """A bool (H, W) region less what lies within `pixels` of its border; the picture's edge is no border."""
    return binary_erosion(region, np.ones((3, 3), bool), iterations=pixels, border_value=1)
