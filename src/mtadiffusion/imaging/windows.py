"""A window on a picture at another size: where it lies, and the pixels of pictures and masks in it.

What chooses windows for training is `train/crops.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BoxXYXY = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Window:
    """A rectangle of a picture that was scaled, in pixels of the scaled picture."""

    scaled: tuple[int, int]
    """(height, width) of the whole scaled picture."""

    top: int
    left: int

    height: int
    width: int

    @classmethod
    def whole(cls, height: int, width: int) -> Window:
        """All of a picture scaled to this size."""
        return cls(scaled=(height, width), top=0, left=0, height=height, width=width)

    def box(self, box_xyxy: BoxXYXY, size: tuple[int, int]) -> BoxXYXY:
        """A box of the picture of this size (height, width), in the window's pixels; may stick out of it."""
        x, y = self.scaled[1] / size[1], self.scaled[0] / size[0]
        x0, y0, x1, y1 = box_xyxy
        return x0 * x - self.left, y0 * y - self.top, x1 * x - self.left, y1 * y - self.top

    def share(self, box_xyxy: BoxXYXY, size: tuple[int, int]) -> float:
        """How much of a box's area lies within the window, in [0, 1]."""
        x0, y0, x1, y1 = self.box(box_xyxy, size)
        if x1 <= x0 or y1 <= y0:
            return 0.0
        across = max(0.0, min(x1, self.width) - max(x0, 0.0)) / (x1 - x0)
        down = max(0.0, min(y1, self.height) - max(y0, 0.0)) / (y1 - y0)
        return across * down


def cut_image(image: np.ndarray, window: Window) -> np.ndarray:
    """The window's pixels of the whole picture: uint8 (H, W, 3) -> uint8 (height, width, 3).

    Scaled by an antialiased cubic filter, unless the picture has the scaled size already.
    """
    if image.shape[:2] != window.scaled:
        image = _scaled(image, window.scaled)
    rows, columns = _slices(window)
    return np.ascontiguousarray(image[rows, columns])


def _scaled(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Torch's kernel for bytes, some five times as quick as Pillow's, on colours that lie side by side."""
    import torch
    from torch.nn import functional as F

    writable = image if image.flags.writeable else image.copy()
    planes = torch.from_numpy(writable)[None].permute(0, 3, 1, 2)
    return F.interpolate(planes, size=size, mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()


def cut_mask(mask: np.ndarray, window: Window) -> np.ndarray:
    """The window's pixels of the whole mask, by nearest neighbour: bool (H, W) -> bool (height, width)."""
    if mask.shape == window.scaled:
        return np.ascontiguousarray(mask[_slices(window)])
    rows = _nearest(window.top, window.height, window.scaled[0], mask.shape[0])
    columns = _nearest(window.left, window.width, window.scaled[1], mask.shape[1])
    if mask.flags.f_contiguous:  # as run-length codes decode, which are written column by column
        return np.ascontiguousarray(mask.T[columns][:, rows].T)
    return np.ascontiguousarray(mask[rows][:, columns])


def _slices(window: Window) -> tuple[slice, slice]:
    return (
        slice(window.top, window.top + window.height),
        slice(window.left, window.left + window.width),
    )


def _nearest(first: int, count: int, scaled: int, side: int) -> np.ndarray:
    """Which of `side` pixels the pixels `first`, first + 1, ... of `scaled` have their centres in."""
    return ((np.arange(first, first + count) + 0.5) * side / scaled).astype(int)
