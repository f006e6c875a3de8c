"""The layers that the small classifiers of sticker views share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def strided_body(widths: Sequence[int], strides: Sequence[int]) -> nn.Sequential:
    """3x3 convolutions over RGB, each with batch normalisation and ReLU."""
    return nn.Sequential(
        *(
            nn.Sequential(
                nn.Conv2d(inner, outer, 3, stride, 1, bias=False),
                nn.BatchNorm2d(outer),
                nn.ReLU(inplace=True),
            )
            for (inner, outer), stride in zip(pairwise((3, *widths)), strides, strict=True)
        )
    )
