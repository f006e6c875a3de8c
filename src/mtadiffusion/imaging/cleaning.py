"""Masks without the specks that a segmenter leaves: small islands off the object, small holes in it."""

from __future__ import annotations

import numpy as np

from mtadiffusion.imaging.runs import Runs


def cleaned(mask: Runs, least: float) -> Runs:
    """A mask without islands, and without holes, that are smaller than `least` of its largest part.

    Parts and holes hang together by edges; a hole touches no side of the mask's box.
    """
    if not len(mask.columns):
        return mask
    part = mask.parts()
    areas = np.bincount(part, mask.ends - mask.starts)
    limit = least * areas.max()
    solid = mask.where((areas >= limit)[part])
    if not (solid.columns[1:] == solid.columns[:-1]).any():  # one run a column encloses nothing
        return solid
    return solid.with_runs(_holes(solid, limit))


def _holes(solid: Runs, limit: float) -> Runs:
    """What the mask encloses, as far as it is smaller than `limit` pixels."""
    gaps = solid.gaps()
    x0, y0, x1, y1 = solid.box
    outer = (gaps.columns == x0) | (gaps.columns == x1 - 1) | (gaps.starts == y0) | (gaps.ends == y1)
    part = gaps.parts()
    areas = np.bincount(part, gaps.ends - gaps.starts)
    closed = np.ones(len(areas), bool)
    closed[part[outer]] = False
    return gaps.where((closed & (areas < limit))[part])
