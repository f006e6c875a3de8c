"""The VGG that the style loss reads latents with, and the Gram matrix that it compares (`docs/method.md`,
section 4). It is made from an RGB VGG (`from_rgb_vgg`) or trained as a classifier of latents; the loss itself
lives in `mtadiffusion.train.losses`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from mtadiffusion.errors import UserError, nearest_name

VGG16_WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
LATENT_POOLS = (False, False, False, True)
"""The first three max-pools are left out: latents are already 8 times smaller than their image."""

CONSTRUCTIONS = ("mean", "folded")


@dataclass(frozen=True, kw_only=True)
class LatentToRGB:
    """A linear map from latents to RGB: rgb = weight @ z + bias at each place, RGB in [0, 1]."""

    weight: Tensor
    """(3, C)"""

    bias: Tensor = field(default_factory=lambda: torch.zeros(3))
    """(3,)"""

    @classmethod
    def fit(cls, latents: Tensor, images: Tensor) -> LatentToRGB:
        """Least squares over all places.

        Args:
            latents: (B, C, h, w), scaled as the style loss will see them.
            images: (B, 3, H, W) in [0, 1]; averaged over areas down to (h, w).
        """
        colours = F.interpolate(images, size=latents.shape[-2:], mode="area")
        places = latents.movedim(1, -1).flatten(0, -2).double()  # (B*h*w, C)
        places = torch.cat([places, torch.ones_like(places[:, :1])], dim=1)
        solution = torch.linalg.lstsq(places, colours.movedim(1, -1).flatten(0, -2).double()).solution.float()
        return cls(weight=solution[:-1].T.contiguous(), bias=solution[-1])

    def __call__(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, h, w)"""
        return F.conv2d(latents, self.weight[:, :, None, None], self.bias)


class LatentVGG(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A VGG whose first convolution takes latents and whose tapped features have unit RMS on real ones.

    Each stage is a run of 3x3 convolutions with ReLU; a stage's feature is the output of one of its ReLUs.

    Args:
        in_channels: C, the latent channels.
        widths: for each stage the width of each of its convolutions. The default is the 16-layer VGG.
        pools: for each stage but the last, whether a 2x2 max-pool follows it.
        taps: for each stage, which ReLU's output is its feature, from 0; the default 0 everywhere is relu1_1,
            relu2_1, ... A tap of None leaves the stage out.
        num_classes: outputs of a linear classifier over the last stage's mean; None for no classifier.

    Raises:
        UserError: fields that do not fit each other.
    """

    # Loosely typed, because nn.Module and ConfigMixin hide what they hold from a type checker.
    config: Any
    stages: Any
    features_rms: Tensor

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        widths: tuple[tuple[int, ...], ...] = VGG16_WIDTHS,
        pools: tuple[bool, ...] = LATENT_POOLS,
        taps: tuple[int | None, ...] | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        taps = tuple(taps) if taps is not None else (0,) * len(widths)
        _check_stages(widths, pools, taps)
        self._taps = taps
        self.stages = nn.ModuleList()
        channels = in_channels
        for stage in widths:
            sources = (channels, *stage[:-1])
            self.stages.append(
                nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(sources, stage, strict=True))
            )
            channels = stage[-1]
        for conv in self.convolutions():
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)
        self.classifier = nn.Linear(channels, num_classes) if num_classes is not None else None
        self.register_buffer("features_rms", torch.ones(sum(tap is not None for tap in taps)))

    @classmethod
    def from_rgb_vgg(
        cls,
        weights: Mapping[str, Tensor],
        *,
        construction: str = "folded",
        in_channels: int = 4,
        rgb_map: LatentToRGB | None = None,
        image_mean: Sequence[float] = (0.485, 0.456, 0.406),
        image_std: Sequence[float] = (0.229, 0.224, 0.225),
        pools: tuple[bool, ...] = LATENT_POOLS,
        taps: tuple[int | None, ...] | None = None,
        widths: tuple[tuple[int, ...], ...] = VGG16_WIDTHS,
    ) -> LatentVGG:
        """A latent VGG from an RGB VGG's weights; calibrate it before use.

        Args:
            weights: state dict with a weight and a bias a convolution, in order (torchvision's
                `features.N.weight`, `features.N.bias`); a classifier's are left out.
            construction: "folded" composes the first convolution with `rgb_map`, so that the result equals
                the RGB VGG on rgb_map(latents) away from the border (zero padding means zero latents here,
                mean grey there); "mean" repeats the mean of its RGB filters for each latent channel.
            rgb_map: latents -> RGB; "folded" needs it.
            image_mean, image_std: what the RGB VGG's input was normalised with.
            in_channels, pools, taps, widths: see the class.

        Raises:
            UserError: an unknown construction, no map where one is needed, weights of other shapes.
        """
        vgg = cls(in_channels=in_channels, widths=widths, pools=pools, taps=taps)
        kernels = [(weight, weights[_bias_of(name)]) for name, weight in weights.items() if weight.ndim == 4]
        if len(kernels) < len(vgg.convolutions()):
            rule = f"must hold {len(vgg.convolutions())} convolutions"
            raise UserError("RGB VGG weights", rule, len(kernels), "use a VGG of the widths asked for")
        if construction == "mean":
            first = kernels[0][0].mean(dim=1, keepdim=True).expand(-1, in_channels, -1, -1), kernels[0][1]
        elif construction == "folded":
            if rgb_map is None:
                raise UserError("rgb_map", "must be given to fold it in", remedy="LatentToRGB.fit makes one")
            first = _fold(*kernels[0], rgb_map, torch.tensor(image_mean), torch.tensor(image_std))
        else:
            remedy = nearest_name(construction, CONSTRUCTIONS)
            raise UserError("construction", f"must be one of {list(CONSTRUCTIONS)}", construction, remedy)
        for conv, (weight, bias) in zip(vgg.convolutions(), [first, *kernels[1:]], strict=False):
            if conv.weight.shape != weight.shape:
                rule = f"must have the shape {tuple(conv.weight.shape)} in this convolution"
                raise UserError("RGB VGG weights", rule, tuple(weight.shape), "set widths to the VGG's")
            with torch.no_grad():
                conv.weight.copy_(weight)
                conv.bias.copy_(bias)
        return vgg

    def convolutions(self) -> list[Any]:
        """All convolutions, in order."""
        return [conv for stage in self.stages for conv in stage]

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """C_i of each tap."""
        widths = zip(self.config.widths, self._taps, strict=True)
        return tuple(stage[tap] for stage, tap in widths if tap is not None)

    def forward(self, latents: Tensor) -> list[Tensor]:
        """latents (B, C, h, w) -> one feature (B, C_i, h_i, w_i) a tap, at unit RMS once calibrated."""
        features = self._tapped(latents)
        return [feature / rms for feature, rms in zip(features, self.features_rms.unbind(), strict=True)]

    def classify(self, latents: Tensor) -> Tensor:
        """latents (B, C, h, w) -> logits (B, num_classes).

        Raises:
            UserError: the VGG has no classifier.
        """
        if self.classifier is None:
            raise UserError("num_classes", "must be set to classify", remedy="build the VGG with num_classes")
        hidden = latents
        for index in range(len(self.stages)):
            for conv in self.stages[index]:
                hidden = F.relu(conv(hidden))
            hidden = self._pool(index, hidden)
        return self.classifier(hidden.mean(dim=(2, 3)))

    @torch.no_grad()
    def calibrate(self, latents: Tensor, batch_size: int = 32) -> Tensor:
        """Set the features' scale so that each tap has unit RMS over these real latents.

        Args:
            latents: (B, C, h, w), scaled as the style loss will see them.
            batch_size: latents run at once.

        Returns:
            (taps,), the RMS of each feature before scaling, now in the buffer `features_rms`.
        """
        squares = torch.zeros_like(self.features_rms, dtype=torch.float64)
        for part in latents.split(batch_size):
            means = [feature.double().square().mean() for feature in self._tapped(part)]
            squares += torch.stack(means) * (len(part) / len(latents))
        self.features_rms.copy_(squares.sqrt().clamp_min(1e-12))
        return self.features_rms

    def _tapped(self, latents: Tensor) -> list[Tensor]:
        """Run as far as the last tap."""
        features = []
        hidden = latents
        last = max(index for index, tap in enumerate(self._taps) if tap is not None)
        for index, tap in enumerate(self._taps[: last + 1]):
            for number, conv in enumerate(self.stages[index]):
                hidden = F.relu(conv(hidden))
                if number == tap:
                    features.append(hidden)
                    if index == last:
                        break
            hidden = self._pool(index, hidden)
        return features

    def _pool(self, index: int, hidden: Tensor) -> Tensor:
        pooled = index < len(self.config.pools) and self.config.pools[index]
        return F.max_pool2d(hidden, 2) if pooled else hidden


def gram_matrix(features: Tensor, normalisation: str = "chw") -> Tensor:
    """G(F) = F F^T / (C * H * W), F as C x (H * W); in float32 at least (`docs/method.md`, section 4).

    Args:
        features: (B, C, H, W).
        normalisation: what the product is divided by: "chw", "hw" or "none" of the sizes.

    Returns:
        (B, C, C)
    """
    features = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
    flat = features.flatten(2)
    channels, places = flat.shape[1:]
    divisor = {"chw": channels * places, "hw": places, "none": 1}[normalisation]
    return flat @ flat.transpose(1, 2) / divisor


def _fold(
    weight: Tensor, bias: Tensor, rgb_map: LatentToRGB, mean: Tensor, std: Tensor
) -> tuple[Tensor, Tensor]:
    """conv((M z + b - mean) / std) as one convolution of z: weight (O, C, 3, 3), bias (O,)."""
    matrix = rgb_map.weight / std[:, None]  # (3, C)
    offset = (rgb_map.bias - mean) / std  # (3,)
    folded = torch.einsum("oryx,rc->ocyx", weight, matrix)
    return folded, bias + torch.einsum("oryx,r->o", weight, offset)


def _bias_of(weight_name: str) -> str:
    return weight_name.removesuffix("weight") + "bias"


def _check_stages(widths: Sequence[Sequence[int]], pools: Sequence[bool], taps: Sequence[int | None]) -> None:
    if len(pools) != len(widths) - 1:
        raise UserError("pools", f"must be {len(widths) - 1}, one between two stages", list(pools))
    if len(taps) != len(widths):
        raise UserError("taps", f"must be {len(widths)}, one a stage (None for no tap)", list(taps))
    if all(tap is None for tap in taps):
        raise UserError("taps", "must name at least one feature", list(taps))
    for stage, tap in zip(widths, taps, strict=True):
        if tap is not None and not 0 <= tap < len(stage):
            raise UserError("taps", f"must be below the stage's {len(stage)} convolutions", tap)
