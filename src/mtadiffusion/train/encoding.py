"""Pixels and texts to what a training step reads of them: latents, known maps, edge targets, text states.

Docs/method.md, sections 1 and 3. When it happens, at every visit or once before, is the business of `batches`
and `latent_cache`.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtadiffusion.config import TrainConfig
from mtadiffusion.models.autoencoders import encode_posterior
from mtadiffusion.models.conditioning import latent_known, masked_image
from mtadiffusion.models.text_encoders import TextEncoders, TextStates
from mtadiffusion.seeding import numpy_generator, torch_generator
from mtadiffusion.train.backbone import Backbone
from mtadiffusion.train.faults import Faults
from mtadiffusion.train.losses import edge_target


class Posterior(NamedTuple):
    """The VAE's posterior of pictures, shifted and scaled as the UNet takes latents."""

    mean: Tensor
    """(B, C, h, w)"""

    deviation: Tensor
    """(B, C, h, w), 0 where the autoencoder gives a point."""


@dataclass(frozen=True, kw_only=True)
class LatentEncoder:
    """Pixels to all that a step reads of them. Results lie on the CPU in fp32."""

    vae: Any
    """Frozen diffusers autoencoder."""

    hole_fill: str = "black"
    """What the VAE sees in a hole."""

    known_mode: str = "nearest"
    """How the hole reaches latent size."""

    edge_target: str = "sobel"
    """Name of the structure target."""

    edge_downsampling: str = "area"
    """How it reaches latent size."""

    @torch.no_grad()
    def image(self, image: Tensor) -> tuple[Posterior, Tensor]:
        """(B, 3, H, W) in [-1, 1] -> the posterior of z_0 and the edge target (B, 1, h, w)."""
        image = image.to(self.vae.device)
        posterior = self._posterior(image)
        size = (posterior.mean.shape[-2], posterior.mean.shape[-1])
        edge = edge_target(image, size, self.edge_target, self.edge_downsampling)
        return posterior, edge.cpu()

    @torch.no_grad()
    def hole(self, image: Tensor, hole: Tensor) -> tuple[Posterior, Tensor]:
        """Image and hole (B, 1, H, W) -> the posterior of z_m and the known map (B, 1, h, w)."""
        posterior = self._posterior(masked_image(image, hole, self.hole_fill))
        size = (posterior.mean.shape[-2], posterior.mean.shape[-1])
        return posterior, latent_known(hole, size, self.known_mode)

    def _posterior(self, image: Tensor) -> Posterior:
        moments = encode_posterior(self.vae, image.to(self.vae.device))
        return Posterior(*(moment.float().cpu().contiguous() for moment in moments))


def drawn_latents(
    kind: str, image: Posterior, masked: Posterior, seed: int, numbers: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """z_0 and z_m of the samples `numbers` from their posteriors: the means, or samples by their streams."""
    if kind == "mean":
        return image.mean, masked.mean
    noise = [
        torch.randn(2, *image.mean.shape[1:], generator=torch_generator(seed, "posterior", number))
        for number in numbers
    ]
    of_image, of_masked = torch.stack(noise, dim=1)
    return image.mean + image.deviation * of_image, masked.mean + masked.deviation * of_masked


def thinned_prompts(prompts: Sequence[str], seed: int, numbers: Sequence[int], empty: float) -> list[str]:
    """The prompts with some emptied, each by the stream of its sample number (docs/method.md, section 5)."""
    return ["" if is_emptied(seed, n, empty) else prompt for prompt, n in zip(prompts, numbers, strict=True)]


def is_emptied(seed: int, number: int, empty: float) -> bool:
    """Whether the sample `number` loses its prompt, with the probability `empty`."""
    return bool(numpy_generator(seed, "empty prompt", number).uniform() < empty)


class PromptEncoder:
    """Text encoder states by prompt.

    Args:
        encoders: the backbone's, frozen.
        on_cut: told of each text that is too long, with what is kept of it.
    """

    def __init__(self, encoders: TextEncoders, on_cut: Callable[[str, str], None] | None = None) -> None:
        self.encoders, self._on_cut = encoders, on_cut
        self.length = encoders.length

    def __call__(self, prompts: Sequence[str]) -> TextStates:
        """The states of B texts, fp32 on the CPU. A text that is too long is cut at a word."""
        fitted = [self._fitted(prompt) for prompt in prompts]
        device = self.encoders.text_encoder.device
        return self.encoders.encode(fitted, device).to("cpu", torch.float32)

    def _fitted(self, text: str) -> str:
        if self._tokens(text) <= self.length:
            return text
        words = text.split()
        fitting = bisect.bisect_right(
            range(len(words) + 1), self.length, key=lambda count: self._tokens(" ".join(words[:count]))
        )
        kept = " ".join(words[: max(1, fitting - 1)])
        if self._on_cut is not None:
            self._on_cut(text, kept)
        return kept

    def _tokens(self, text: str) -> int:
        return len(self.encoders.tokenizer(text, truncation=False, verbose=False).input_ids)


def build_encoders(
    backbone: Backbone, config: TrainConfig, faults: Faults
) -> tuple[LatentEncoder, PromptEncoder]:
    """What encodes pictures and texts for a run; `faults` counts the texts that are cut."""
    encoder = LatentEncoder(
        vae=backbone.encoders.vae,
        hole_fill=config.branch.hole_fill,
        known_mode=config.branch.latent_known,
        edge_target=config.loss.edge_target,
        edge_downsampling=config.loss.edge_downsampling,
    )
    return encoder, PromptEncoder(backbone.encoders.of_texts, faults.truncate)
