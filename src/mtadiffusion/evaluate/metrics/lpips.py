"""LPIPS (Zhang et al. 2018) with SqueezeNet 1.1: how different known pixels look, as BrushNet measures it.

The networks are ours; their weights are torchvision's SqueezeNet 1.1 and LPIPS v0.1, in the layouts in which
they are published.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.metrics.metric import Batch, Definition, Metric, Sample
from mtadiffusion.models.published import WebFile

_FEATURES_URL = "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth"
_LINEAR_URL = (
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/squeeze.pth"
)
_TAPS = {1: 64, 4: 128, 7: 256, 9: 384, 10: 384, 11: 512, 12: 512}
"""Layers of SqueezeNet whose outputs are compared, and their channels."""

_SHIFT, _SPREAD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""ImageNet's mean and spread, for values in [-1, 1]."""

_LEAST = 1e-10


class Fire(nn.Module):
    """SqueezeNet's block (Iandola et al. 2016): squeeze, then 1x1 and 3x3 convolutions side by side."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, channels, h, w) -> (B, 2 expanded, h, w)"""
        squeezed = F.relu(self.squeeze(hidden))
        return torch.cat([F.relu(self.expand1x1(squeezed)), F.relu(self.expand3x3(squeezed))], 1)


class Lpips(nn.Module):
    """SqueezeNet 1.1's features, and a weight for each of their channels."""

    shift: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool, Fire(64, 16, 64), Fire(128, 16, 64),
            pool, Fire(128, 32, 128), Fire(256, 32, 128),
            pool, Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
        )  # fmt: skip
        self.weights = nn.ParameterList(torch.zeros(width) for width in _TAPS.values())
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None])
        self.register_buffer("spread", torch.tensor(_SPREAD)[:, None, None])

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Distances (B,) of pictures (B, 3, H, W) in [-1, 1]."""
        pairs = zip(self._unit(one), self._unit(other), self.weights, strict=True)
        layers = [((a - b).square() * w[:, None, None]).sum(1).mean((1, 2)) for a, b, w in pairs]
        return torch.stack(layers).sum(0)

    def _unit(self, images: Tensor) -> Iterator[Tensor]:
        hidden = (images - self.shift) / self.spread
        for place, layer in enumerate(self.features):
            hidden = layer(hidden)
            if place in _TAPS:
                yield hidden / (hidden.square().sum(1, keepdim=True).sqrt() + _LEAST)


@dataclass(kw_only=True)
class PerceptualDistance:
    """LPIPS of result and original."""

    definition: Definition
    """Which form it is."""

    black_hole: bool
    """Whether the hole is black in both pictures, so that known pixels alone differ."""

    features: str | None = None
    """File of SqueezeNet 1.1's weights; None: torchvision's, fetched."""

    linear: str | None = None
    """File of LPIPS's weights; None: the authors', fetched."""

    _device: str = field(default="cpu", init=False, repr=False)
    _network: Lpips | None = field(default=None, init=False, repr=False)

    def identity(self) -> Mapping[str, Any]:
        """The two files."""
        return {"features": self._features().digest(), "linear": self._linear().digest()}

    def setup(self, device: str) -> None:
        """Load both files. Raises UserError where they cannot be had."""
        self._network = load_lpips(self._features().fetched(), self._linear().fetched()).to(device)
        self._device = device

    def score(self, batch: Batch) -> list[float | None]:
        """From 0, equal; None where nothing is looked at."""
        applies = [not self.black_hole or not sample.hole.all() for sample in batch.samples]
        distances: list[float | None] = [None] * len(batch.samples)
        for places in _same_size(batch.samples):
            chosen = [place for place in places if applies[place]]
            for place, value in zip(chosen, self._distances([batch.samples[i] for i in chosen]), strict=True):
                distances[place] = value
        return distances

    @torch.inference_mode()
    def _distances(self, samples: Sequence[Sample]) -> list[float]:
        assert self._network is not None, "setup comes first"
        if not samples:
            return []
        pairs = [
            self._pixels([getattr(s, name) for s in samples], samples) for name in ("result", "original")
        ]
        return self._network(*pairs).tolist()

    def _pixels(self, pictures: Sequence[np.ndarray], samples: Sequence[Sample]) -> Tensor:
        """(B, 3, H, W) in [-1, 1]."""
        pixels = torch.from_numpy(np.stack(pictures)).to(self._device).permute(0, 3, 1, 2).float() / 255
        if self.black_hole:
            holes = torch.from_numpy(np.stack([sample.hole for sample in samples])).to(self._device)
            pixels = pixels * ~holes[:, None]
        return pixels * 2 - 1

    def _features(self) -> WebFile:
        return WebFile(
            url=_FEATURES_URL,
            saved_as="squeezenet1_1-b8a52dc0.pth",
            path=self.features,
            argument=f"{self.definition.name}.features",
        )

    def _linear(self) -> WebFile:
        return WebFile(
            url=_LINEAR_URL,
            saved_as="lpips-v0.1-squeeze.pth",
            path=self.linear,
            argument=f"{self.definition.name}.linear",
        )


def lpips(features: str | None = None, linear: str | None = None) -> Metric:
    """LPIPS of the whole pictures, the usual form."""
    definition = _definition("lpips", "LPIPS", "image", "LPIPS v0.1 with SqueezeNet 1.1 on whole pictures")
    return PerceptualDistance(definition=definition, black_hole=False, features=features, linear=linear)


def lpips_brushnet(features: str | None = None, linear: str | None = None) -> Metric:
    """LPIPS with the hole black in both pictures, averaged over the whole picture."""
    source = "BrushNet's evaluation code: LPIPS v0.1 with SqueezeNet 1.1, the hole black in both pictures"
    definition = _definition("lpips_brushnet", "LPIPS (BrushNet)", "known", source)
    return PerceptualDistance(definition=definition, black_hole=True, features=features, linear=linear)


def load_lpips(features: Path, linear: Path) -> Lpips:
    """The network from torchvision's `features.N...` and LPIPS's `linN.model.1.weight`.

    Raises:
        UserError: other files.
    """
    network = Lpips()
    try:
        weights = torch.load(features, map_location="cpu", weights_only=True)
        own = {name: weights[f"features.{name}"] for name in network.features.state_dict()}
        network.features.load_state_dict(own)
    except Exception as error:  # whatever the loader makes of a file that is something else
        raise UserError("lpips.features", "must hold SqueezeNet 1.1's weights", str(features)) from error
    try:
        weights = torch.load(linear, map_location="cpu", weights_only=True)
        for place, weight in enumerate(network.weights):
            weight.data = weights[f"lin{place}.model.1.weight"].reshape(weight.shape)
    except Exception as error:
        raise UserError("lpips.linear", "must hold LPIPS's weights for SqueezeNet", str(linear)) from error
    return network.eval().requires_grad_(False)


def _definition(name: str, title: str, region: Literal["image", "known"], source: str) -> Definition:
    return Definition(
        name=name, title=title, better="lower", bounds=(0, math.inf), region=region, resize="none",
        scale=1000, source=source, equal=0 if region == "known" else None,
    )  # fmt: skip


def _same_size(samples: Sequence[Sample]) -> list[list[int]]:
    """The places of samples, those of one size together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, sample in enumerate(samples):
        groups.setdefault(sample.result.shape, []).append(place)
    return list(groups.values())
