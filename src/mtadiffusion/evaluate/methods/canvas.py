"""A picture as methods see it, and what they drew on its way back: blanked, resized, blended in one place.

No method gets the picture itself. What it gets has the hole's old content replaced by a continuation of the
known surroundings before anything is resized.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from mtadiffusion.errors import UserError

if TYPE_CHECKING:
    import torch

    from mtadiffusion.imaging.blending import Blend
    from mtadiffusion.inpaint.regions import Region

FEATHER = 2.0
"""For `paste`: over how many of the method's pixels what it drew fades in, inside the hole."""

MULTIPLE = 64
"""Sides of pictures that are not square are rounded to this, which every backbone can halve evenly."""


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """One picture with its hole, and the view of it that a method works on. Everything lies on the CPU."""

    original: torch.Tensor
    """float32 (3, H, W) in [0, 1], RGB: the input, never handed to a model."""

    hole: torch.Tensor
    """bool (H, W), True = to be generated."""

    region: Region
    """The whole picture, and the size that the method works at."""

    picture: torch.Tensor
    """float32 (3, h, w) in [0, 1], RGB: the known pixels and their continuation into the hole."""

    work_hole: torch.Tensor
    """bool (h, w): True where any pixel of the hole lies."""

    @property
    def size(self) -> tuple[int, int]:
        """(h, w), what the method works at."""
        return self.region.work_size

    def masked(self, value: float) -> torch.Tensor:
        """float32 (3, h, w): the known pixels in [0, 1], `value` in the hole."""
        return self.picture.masked_fill(self.work_hole, value)

    def finish(self, drawn: torch.Tensor, blend: str) -> np.ndarray:
        """The result, uint8 (H, W, 3), RGB.

        Args:
            drawn: float (3, h, w) in [0, 1], what the method made of the whole picture.
            blend: how it is laid over the original, see imaging/blending.py.

        Raises:
            UserError: it holds NaN or infinity; an unknown blend.
        """
        from mtadiffusion.inpaint.outputs import check_finite
        from mtadiffusion.inpaint.regions import stitch

        check_finite(drawn, drawn.dtype)
        generated = drawn.detach().float().cpu().clamp(0, 1)
        way = cast("Blend", blend)
        result = stitch(self.original, self.hole, generated, self.region, blend=way, feather=FEATHER)
        pixels: np.ndarray = (result.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        return pixels


def prepare(image: np.ndarray, hole: np.ndarray, size: int) -> Canvas:
    """The canvas of a picture, uint8 (H, W, 3), and its hole, bool (H, W).

    Args:
        image: RGB; what lies in the hole does not reach the canvas's picture.
        hole: True = to be generated.
        size: side of the square that a square picture is worked at; other shapes get as many pixels.
    """
    import torch

    from mtadiffusion.inpaint.regions import Region, to_model

    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise UserError("image", "must be uint8 (H, W, 3)", f"{image.dtype} {image.shape}")
    if hole.dtype != np.bool_ or hole.shape != image.shape[:2]:
        rule = f"must be bool {image.shape[:2]}, the image's height and width"
        raise UserError("hole", rule, f"{hole.dtype} {hole.shape}")
    original = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255
    mask = torch.from_numpy(np.ascontiguousarray(hole))
    height, width = hole.shape
    region = Region(box_xyxy=(0, 0, width, height), work_size=_work_size(height, width, size))
    picture, work_hole = to_model(original, mask, region)
    return Canvas(original=original, hole=mask, region=region, picture=picture, work_hole=work_hole)


def _work_size(height: int, width: int, size: int) -> tuple[int, int]:
    if height == width:
        return size, size
    factor = size / math.sqrt(height * width)
    rounded = [max(MULTIPLE, round(side * factor / MULTIPLE) * MULTIPLE) for side in (height, width)]
    return rounded[0], rounded[1]
