"""The floor of every table: holes filled by Laplace's equation, without weights or prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mtadiffusion.evaluate.methods.canvas import Canvas
from mtadiffusion.evaluate.methods.template import CanvasMethod

if TYPE_CHECKING:
    import torch

_NEIGHBOURS = ((0, 1), (1, 0), (0, -1), (-1, 0))
_GREY = 0.5


@dataclass(kw_only=True)
class Harmonic(CanvasMethod):
    """Every pixel of the hole is the mean of its four neighbours."""

    kind: ClassVar[str] = "harmonic"

    def fill(self, canvas: Canvas, prompt: str, seed: int) -> torch.Tensor:
        """The harmonic continuation: float32 (3, h, w) in [0, 1]."""
        import torch

        picture = canvas.picture.permute(1, 2, 0).double().numpy()
        filled = fill_harmonic(picture, canvas.work_hole.numpy())
        return torch.from_numpy(filled).permute(2, 0, 1).float()


def fill_harmonic(picture: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The picture, float64 (h, w, 3), with its hole, bool (h, w), filled; grey if nothing is known.

    Solves Laplace's equation on the grid's four-neighbour graph: known pixels are fixed, nothing flows over
    the picture's border.
    """
    from scipy.sparse.linalg import spsolve

    filled = picture.copy()
    if hole.all():
        filled[:] = _GREY
    elif hole.any():
        matrix, sums = _equations(picture, hole)
        filled[hole] = spsolve(matrix, sums)
    return filled


def _equations(picture: np.ndarray, hole: np.ndarray) -> tuple[object, np.ndarray]:
    """A sparse (n, n) matrix and its right side (n, 3) for the hole's n pixels: degree times the pixel, less
    its neighbours in the hole, is the sum of its known neighbours."""
    from scipy.sparse import coo_array

    rows, columns = np.nonzero(hole)
    count = len(rows)
    number = np.full(hole.shape, -1)
    number[hole] = np.arange(count)
    degree, sums = np.zeros(count), np.zeros((count, picture.shape[2]))
    links: list[tuple[np.ndarray, np.ndarray]] = []
    for down, right in _NEIGHBOURS:
        y, x = rows + down, columns + right
        inside = np.flatnonzero((y >= 0) & (y < hole.shape[0]) & (x >= 0) & (x < hole.shape[1]))
        degree[inside] += 1
        other = number[y[inside], x[inside]]
        links.append((inside[other >= 0], other[other >= 0]))
        known = inside[other < 0]
        sums[known] += picture[y[known], x[known]]
    here = np.concatenate([np.arange(count), *(link[0] for link in links)])
    there = np.concatenate([np.arange(count), *(link[1] for link in links)])
    values = np.concatenate([degree, np.full(len(here) - count, -1.0)])
    return coo_array((values, (here, there)), shape=(count, count)).tocsc(), sums
