"""A small classifier of an object's art style and colour word, from a crop of the object on grey."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from PIL import Image
from torch import Tensor, nn

from mtadiffusion.annotate.describe import GREY
from mtadiffusion.stickers.layers import strided_body


class Attributes(NamedTuple):
    """Logits of B crops."""

    style: Tensor
    """(B, styles)."""
    colour: Tensor
    """(B, colours + 1), the last one is no colour word."""


class AttributeNet(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Strided convolutions, a mean over the crop, two linear heads.

    Args:
        styles: art styles that it can answer.
        colours: colour words that it can answer, besides none.
        side: of the crops, in pixels.
        widths: channels of the convolutions.
        strides: of the convolutions.
    """

    config: Any

    @register_to_config
    def __init__(
        self,
        styles: Sequence[str] = (),
        colours: Sequence[str] = (),
        side: int = 48,
        widths: tuple[int, ...] = (24, 48, 64, 96, 128),
        strides: tuple[int, ...] = (2, 2, 1, 2, 2),
    ) -> None:
        super().__init__()
        self.body = strided_body(widths, strides)
        self.style = nn.Linear(widths[-1], len(styles))
        self.colour = nn.Linear(widths[-1], len(colours) + 1)

    def forward(self, crops: Tensor) -> Attributes:
        """crops (B, 3, side, side) in [-1, 1], grey where the object is not."""
        features = self.body(crops).mean(dim=(2, 3))
        return Attributes(self.style(features), self.colour(features))

    @torch.inference_mode()
    def answers(self, crops: Sequence[Image.Image]) -> list[tuple[str, str | None]]:
        """(style, colour word or None) of every crop, of any size."""
        logits = self(torch.stack([crop_pixels(crop, self.config.side) for crop in crops]))
        colours = (*self.config.colours, None)
        pairs = zip(logits.style.argmax(1).tolist(), logits.colour.argmax(1).tolist(), strict=True)
        return [(self.config.styles[style], colours[colour]) for style, colour in pairs]


def crop_pixels(crop: Image.Image, side: int) -> Tensor:
    """A crop padded with grey to a square and resized: (3, side, side) in [-1, 1]."""
    longest = max(crop.size)
    square = Image.new("RGB", (longest, longest), GREY)
    square.paste(crop, ((longest - crop.width) // 2, (longest - crop.height) // 2))
    pixels = np.array(square.resize((side, side), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div(127.5).sub(1)
