"""Where in a picture the model works: a crop around the hole at the model's resolution, and back.

The rule: the crop is centred on the hole's box and leaves half the box's longest side as context on each
side; it is at least as large as the model's picture, ends at the image's border (shifting first, then
shrinking), and so is the entire image where that is small. It is worked on at the model's pixel count,
square where the crop is square. Frame: boxes are in pixels of the input image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from mtadiffusion.imaging.blending import Blend, blend_pictures, fill_from_known

CONTEXT = 0.5
"""Context on each side of the hole's box, as a share of its longest side."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """One crop and the size at which the model sees it."""

    box_xyxy: tuple[int, int, int, int]
    """x0, y0 inclusive, x1, y1 exclusive, in pixels of the input image."""

    work_size: tuple[int, int]
    """(height, width) in pixels of the model's picture."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the crop in the input image."""
        x0, y0, x1, y1 = self.box_xyxy
        return y1 - y0, x1 - x0

    @property
    def scale(self) -> float:
        """Pixels of the input image for one of the model's (the larger direction)."""
        return max(side / work for side, work in zip(self.size, self.work_size, strict=True))

    def cut(self, pixels: torch.Tensor) -> torch.Tensor:
        """The crop of a picture (..., H, W), as a view."""
        x0, y0, x1, y1 = self.box_xyxy
        return pixels[..., y0:y1, x0:x1]


def find_region(hole: torch.Tensor, resolution: int, multiple: int) -> Region:
    """The region for a hole, bool (H, W) with at least one True.

    Args:
        hole: True = to be generated.
        resolution: side of the model's square picture in pixels.
        multiple: both sides of a picture that is not square are rounded to a multiple of this.
    """
    rows, columns = hole.any(dim=1).nonzero(), hole.any(dim=0).nonzero()
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    x0, x1 = int(columns[0]), int(columns[-1]) + 1
    side = max(resolution, math.ceil((1 + 2 * CONTEXT) * max(x1 - x0, y1 - y0)))
    left, right = _span(x0, x1, side, hole.shape[1])
    top, bottom = _span(y0, y1, side, hole.shape[0])
    work_size = _work_size(bottom - top, right - left, resolution, multiple)
    return Region(box_xyxy=(left, top, right, bottom), work_size=work_size)


def _span(start: int, end: int, side: int, limit: int) -> tuple[int, int]:
    """`side` pixels centred on [start, end), moved into [0, limit); all of it where it is shorter."""
    side = min(side, limit)
    first = min(max((start + end - side) // 2, 0), limit - side)
    return first, first + side


def _work_size(height: int, width: int, resolution: int, multiple: int) -> tuple[int, int]:
    if height == width:
        return resolution, resolution
    factor = resolution / math.sqrt(height * width)
    rounded = [max(multiple, round(side * factor / multiple) * multiple) for side in (height, width)]
    return rounded[0], rounded[1]


def to_model(picture: torch.Tensor, hole: torch.Tensor, region: Region) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's view of a region: picture (3, h, w) float32 in [0, 1], hole (h, w) bool.

    The hole's old content is replaced by a continuation of its surroundings before anything is resized,
    so that nothing of it reaches the model; a model's pixel that touches the hole is hole.

    Args:
        picture: float (3, H, W) in [0, 1], the input image.
        hole: bool (H, W), True = to be generated.
        region: from `find_region`.
    """
    hole = region.cut(hole)
    picture = fill_from_known(region.cut(picture).float(), hole)
    covered = F.adaptive_max_pool2d(hole[None].float(), region.work_size)[0] > 0
    return resize_picture(picture, region.work_size), covered


def stitch(
    picture: torch.Tensor,
    hole: torch.Tensor,
    generated: torch.Tensor,
    region: Region,
    *,
    blend: Blend,
    feather: float,
) -> torch.Tensor:
    """The input picture (3, H, W) with the model's result (3, h, w) put back, in the picture's dtype.

    Args:
        picture: float (3, H, W) in [0, 1], the input image.
        hole: bool (H, W), True = generated.
        generated: float32 (3, h, w) in [0, 1], the model's picture of the region.
        region: from `find_region`.
        blend: see `blending.blend_pictures`. Outside the crop nothing changes in any mode.
        feather: width of the fade inside the hole's edge, in pixels of the model.
    """
    width = math.floor(feather * region.scale)
    generated = resize_picture(generated, region.size)
    result = picture.clone()
    blended = blend_pictures(region.cut(picture), generated, region.cut(hole), blend, width)
    region.cut(result).copy_(blended)
    return result


def resize_picture(picture: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A float picture (3, H, W) in [0, 1] at another size (height, width): bicubic, antialiased."""
    if tuple(picture.shape[-2:]) == size:
        return picture
    resized = F.interpolate(picture[None], size=size, mode="bicubic", antialias=True, align_corners=False)
    return resized[0].clamp(0, 1)
