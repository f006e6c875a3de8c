"""A small network that finds the objects of a picture: label, confidence and mask of each.

At every cell of a coarse map it says which object has its centre there (Zhou et al. 2019, "Objects as
Points") and gives the weights of three 1x1 convolutions, which draw that object's mask from features at full
resolution (Tian et al. 2020, "Conditional Convolutions for Instance Segmentation"). Boxes are those of masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

STRIDE = 4
"""Pixels a cell of the map of centres."""

_PRIOR = -4.0
"""Centres' first logit: nearly every cell holds none (Lin et al. 2017)."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One object that the network makes out."""

    label: str
    """One of the network's."""

    score: float
    """Confidence in [0, 1]."""

    chances: np.ndarray
    """float32 (side, side): the probability of each pixel to show the object; some exceed one half."""

    @property
    def quality(self) -> float:
        """How sure the mask is of its own pixels, in [0, 1]: their mean probability."""
        return float(self.chances[self.chances > 0.5].mean())

    def mask(self, size: tuple[int, int]) -> np.ndarray:
        """bool (H, W) at a size (width, height)."""
        chances = torch.from_numpy(self.chances)[None, None]
        return (F.interpolate(chances, size[::-1], mode="bilinear")[0, 0] > 0.5).numpy()


class InstanceMaps(NamedTuple):
    """What the network says of B pictures; h = w = side / STRIDE."""

    centres: Tensor
    """(B, labels, h, w), logits."""
    drawers: Tensor
    """(B, P, h, w), the weights that draw the mask of the object whose centre lies there."""
    features: Tensor
    """(B, C, side, side), what masks are drawn from."""


class InstanceNet(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """An encoder and decoder of convolutions with three heads.

    Args:
        labels: what it can find.
        side: of the pictures, in pixels; a multiple of 8.
        widths: channels at full, half, quarter and eighth resolution.
        mask_width: channels of the features that masks are drawn from, and of the drawing layers.
    """

    # Loosely typed, because nn.Module and ConfigMixin hide what they hold from a type checker.
    config: Any

    @register_to_config
    def __init__(
        self,
        labels: Sequence[str] = (),
        side: int = 64,
        widths: tuple[int, int, int, int] = (16, 32, 64, 128),
        mask_width: int = 8,
    ) -> None:
        super().__init__()
        full, half, quarter, eighth = widths
        self.stem = _layers(3, full)
        self.to_half = _layers(full, half, stride=2)
        self.to_quarter = _layers(half, quarter, quarter, stride=2)
        self.to_eighth = _layers(quarter, eighth, eighth, eighth, stride=2)
        self.at_quarter = _layers(eighth + quarter, quarter, quarter)
        self.at_half = _layers(quarter + half, half)
        self.at_full = _layers(half + full, full)
        last = nn.Conv2d(eighth, len(labels), 1)
        nn.init.constant_(last.bias, _PRIOR)  # type: ignore[arg-type]
        self.centres = nn.Sequential(_layers(quarter, eighth), last)
        self.drawers = nn.Sequential(_layers(quarter, quarter), nn.Conv2d(quarter, self._drawer_size(), 1))
        self.features = nn.Conv2d(full, mask_width, 1)

    def forward(self, pixels: Tensor) -> InstanceMaps:
        """pixels (B, 3, side, side) in [-1, 1]."""
        full = self.stem(pixels)
        half = self.to_half(full)
        quarter = self.to_quarter(half)
        deep = self.to_eighth(quarter)
        quarter = self.at_quarter(torch.cat([_doubled(deep), quarter], 1))
        half = self.at_half(torch.cat([_doubled(quarter), half], 1))
        full = self.at_full(torch.cat([_doubled(half), full], 1))
        return InstanceMaps(self.centres(quarter), self.drawers(quarter), self.features(full))

    def masks(self, maps: InstanceMaps, pictures: Tensor, cells: Tensor) -> Tensor:
        """Mask logits (N, side, side) of the objects at some cells.

        Args:
            maps: of the pictures.
            pictures: int (N,), which picture each cell is of.
            cells: int (N, 2), row and column.
        """
        drawers = maps.drawers[pictures, :, cells[:, 0], cells[:, 1]]  # (N, P)
        hidden = torch.cat([maps.features[pictures], _offsets(cells, maps.features.shape[-1])], 1)
        hidden = hidden.flatten(2)  # (N, C + 2, side * side)
        sizes = self._layer_sizes()
        parts = drawers.split([n for a, b in sizes for n in (a * b, b)], dim=1)
        for layer, (inner, outer) in enumerate(sizes):
            weight = parts[2 * layer].view(-1, outer, inner)
            hidden = torch.baddbmm(parts[2 * layer + 1][..., None], weight, hidden)
            hidden = F.relu(hidden) if layer < len(sizes) - 1 else hidden
        return hidden.view(-1, *maps.features.shape[-2:])

    @torch.inference_mode()
    def find(self, pixels: Tensor, min_score: float) -> list[list[Instance]]:
        """The objects of each picture (B, 3, side, side) above `min_score`, the surest first."""
        maps = self(pixels)
        scores, labels = maps.centres.sigmoid().max(1)  # (B, h, w)
        peaks = (scores == F.max_pool2d(scores, 3, 1, 1)) & (scores > min_score)
        pictures, rows, columns = peaks.nonzero(as_tuple=True)
        found: list[list[Instance]] = [[] for _ in pixels]
        if not len(pictures):
            return found
        chances = self.masks(maps, pictures, torch.stack([rows, columns], 1)).sigmoid()
        for number, chance in enumerate(chances):
            place = pictures[number], rows[number], columns[number]
            if (chance > 0.5).any():
                label = self.config.labels[int(labels[place])]
                instance = Instance(label=label, score=float(scores[place]), chances=chance.cpu().numpy())
                found[int(place[0])].append(instance)
        return [sorted(one, key=lambda instance: -instance.score) for one in found]

    def _layer_sizes(self) -> tuple[tuple[int, int], ...]:
        width = self.config.mask_width
        return tuple(pairwise((width + 2, width, width, 1)))

    def _drawer_size(self) -> int:
        return sum(inner * outer + outer for inner, outer in self._layer_sizes())


def _layers(inner: int, *widths: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolutions with batch normalisation and ReLU, the first one with the stride."""
    return nn.Sequential(*_convolutions((inner, *widths), stride))


def _convolutions(widths: Sequence[int], stride: int) -> Iterator[nn.Module]:
    for number, (inner, outer) in enumerate(pairwise(widths)):
        yield nn.Conv2d(inner, outer, 3, stride if number == 0 else 1, 1, bias=False)
        yield nn.BatchNorm2d(outer)
        yield nn.ReLU(inplace=True)


def _doubled(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2, mode="nearest")


def _offsets(cells: Tensor, side: int) -> Tensor:
    """(N, 2, side, side): how far every pixel lies from the middle of a cell, in units of 16 pixels."""
    middles = (cells.float() + 0.5) * STRIDE  # (N, 2)
    line = torch.arange(side, device=cells.device) + 0.5
    down, across = (line[None] - middles[:, :1]) / 16, (line[None] - middles[:, 1:]) / 16
    return torch.stack(
        [down[:, :, None].expand(-1, side, side), across[:, None].expand(-1, side, side)], dim=1
    )
