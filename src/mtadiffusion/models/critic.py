"""The critic of the adversarial loss: tells true latents from predicted ones, given the text that they have.

It sees latents through the features of a VGG (Sauer et al. 2021, arXiv 2111.01007: projected GANs learn
sooner), with the hole beside them, and weighs what it sees by the text (Miyato and Koyama 2018, arXiv
1802.05637). Its losses are `mtadiffusion.train.losses`'s; at inference nothing reads it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

_SLOPE = 0.2
"""Of the leaky ReLUs below zero."""


class LatentCritic(nn.Module):
    """A cascade of convolutions over latents that takes in a VGG's features, tap by tap.

    All layers have spectral norm 1 (Miyato et al. 2018, arXiv 1802.05957), so that the critic's gradient
    stays of one size however sure it is.

    Args:
        latent_channels: C.
        feature_channels: C_i of each tap, from fine to coarse.
        text_width: D of the text states.
        width: of the critic's own layers.
    """

    def __init__(
        self, latent_channels: int, feature_channels: Sequence[int], text_width: int, width: int = 96
    ) -> None:
        super().__init__()
        inputs = [latent_channels + 1, *[width] * (len(feature_channels) - 1)]
        self.taps = nn.ModuleList(
            spectral_norm(nn.Conv2d(own + seen, width, 3, padding=1))
            for own, seen in zip(inputs, feature_channels, strict=True)
        )
        self.last = spectral_norm(nn.Conv2d(width, width, 3, padding=1))
        self.places = spectral_norm(nn.Conv2d(width, 1, 1))
        self.whole = spectral_norm(nn.Linear(width, 1))
        self.text = spectral_norm(nn.Linear(text_width, width, bias=False))

    def forward(self, latents: Tensor, features: Sequence[Tensor], hole: Tensor, text: Tensor) -> Tensor:
        """How true the latents are and how well the text fits them: scores (B,), higher is better.

        Args:
            latents: (B, C, h, w).
            features: the VGG's of the latents, one (B, C_i, h_i, w_i) a tap.
            hole: (B, 1, h, w), 1 = hole.
            text: states of the text encoder, (B, L, D); their mean is read.
        """
        hidden = torch.cat([latents, hole], dim=1)
        for tap, feature in zip(self.taps, features, strict=True):
            seen = F.adaptive_avg_pool2d(hidden, (feature.shape[-2], feature.shape[-1]))
            hidden = F.leaky_relu(tap(torch.cat([seen, feature], dim=1)), _SLOPE)
        everywhere = self.places(hidden).mean(dim=(1, 2, 3))
        summary = F.leaky_relu(self.last(hidden), _SLOPE).mean(dim=(2, 3))  # (B, width)
        words = F.layer_norm(text.float().mean(dim=1), text.shape[2:])  # (B, D)
        fit = (self.text(words) * summary).sum(dim=1)
        return everywhere + self.whole(summary)[:, 0] + fit
