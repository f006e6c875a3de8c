"""Style by texture: how far it is in the hole from that around it, by Gram matrices of a network's features.

Gatys et al. (2016) compare the Gram matrices of two pictures; here of two regions of one picture. For each
layer G = F F^T / n over the n places of a region, and the distance of two is |G1 - G2| divided by
(|G1|^2 + |G2|^2)^(1/2), in Frobenius norms: 0 for equal ones, 1 for features that share nothing. Layers count
alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.metrics.metric import Batch, Definition, Sample
from mtadiffusion.evaluate.metrics.surroundings import around
from mtadiffusion.models.latent_vgg import VGG16_WIDTHS, LatentToRGB, LatentVGG
from mtadiffusion.models.published import HubFolder

_FILE = "model.safetensors"
_IMAGE_MEAN, _IMAGE_SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_FEWEST_PLACES = 4
"""Places of a region that a layer needs to count."""


@dataclass(kw_only=True)
class StyleGram:
    """The distance by a VGG-16 of ImageNet, at relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1."""

    weights: str = "timm/vgg16.tv_in1k"
    """Hub id or folder that holds model.safetensors with torchvision's names."""

    definition: Definition = field(
        default=Definition(
            name="style_gram",
            title="Style (Gram)",
            better="lower",
            bounds=(0, 1),
            region="hole",
            resize="none",
            scale=100,
            source="relative distance of Gram matrices of VGG-16's features (Gatys et al. 2016),"
            " hole against surroundings",
        ),
        init=False,
        repr=False,
    )
    _device: str = field(default="cpu", init=False, repr=False)
    _network: Any = field(default=None, init=False, repr=False)

    def identity(self) -> Mapping[str, Any]:
        """The VGG."""
        return {"weights": self._folder().digest()}

    def setup(self, device: str) -> None:
        """Load the VGG. Raises UserError where it cannot be had."""
        self._network = load_vgg(self._folder().fetched() / _FILE).to(device)
        self._device = device

    def score(self, batch: Batch) -> list[float | None]:
        """In [0, 1]; None where there is no hole or nothing around it."""
        return [self._distance(sample) for sample in batch.samples]

    @torch.inference_mode()
    def _distance(self, sample: Sample) -> float | None:
        pixels = torch.tensor(sample.result).to(self._device).permute(2, 0, 1).float() / 255
        mean, spread = (pixels.new_tensor(values)[:, None, None] for values in (_IMAGE_MEAN, _IMAGE_SPREAD))
        features = self._network(((pixels - mean) / spread)[None])
        return gram_distance((feature[0] for feature in features), sample.hole)

    def _folder(self) -> HubFolder:
        return HubFolder(name=self.weights, files=(_FILE,), argument="style_gram.weights")


def gram_distance(features: Iterable[Tensor], hole: np.ndarray) -> float | None:
    """The mean over layers of the Gram matrices' relative distance, hole against surroundings.

    Args:
        features: (C, h, w) each, of one picture.
        hole: bool (H, W) of that picture.

    Returns:
        In [0, 1]; None where no layer has enough places in the hole and around it.
    """
    regions = torch.from_numpy(np.stack([hole, around(hole)])).float()[None]  # (1, 2, H, W)
    distances = []
    for feature in features:
        shares = F.interpolate(regions.to(feature.device), size=feature.shape[-2:], mode="area")[0]
        inside, outside = shares > 0.5  # (h, w) each
        if min(int(inside.sum()), int(outside.sum())) >= _FEWEST_PLACES:
            distances.append(_relative(_gram(feature[:, inside]), _gram(feature[:, outside])))
    return float(np.mean(distances)) if distances else None


def load_vgg(file: Path) -> Any:
    """VGG-16's features from safetensors with torchvision's names, for RGB normalised as for ImageNet.

    Raises:
        UserError: other weights.
    """
    try:
        weights = {name: t for name, t in load_file(file).items() if name.startswith("features.")}
        ordered = dict(sorted(weights.items(), key=lambda item: int(item[0].split(".")[1])))
    except Exception as error:  # whatever the loader makes of a file that is something else
        raise UserError("style_gram.weights", "must hold VGG-16's weights", str(file)) from error
    vgg: Any = LatentVGG.from_rgb_vgg(
        ordered,
        in_channels=3,
        rgb_map=LatentToRGB(weight=torch.eye(3)),
        image_mean=(0, 0, 0),
        image_std=(1, 1, 1),
        pools=(True,) * (len(VGG16_WIDTHS) - 1),
    )
    return vgg.eval().requires_grad_(False)


def _gram(places: Tensor) -> Tensor:
    """F F^T / n of features (C, n)."""
    return places @ places.T / places.shape[1]


def _relative(one: Tensor, other: Tensor) -> float:
    total = (one.square().sum() + other.square().sum()).sqrt()
    return float((one - other).norm() / total) if total > 0 else 0.0
