"""The frozen Stable Diffusion model that a branch is trained beside, loaded in parts as they are needed.

A run on a complete latent cache needs the UNet alone; what makes a cache needs everything but the UNet.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from mtadiffusion.config import TrainConfig
from mtadiffusion.models.loading import empty_components, load_components
from mtadiffusion.models.model_files import ENCODERS, NETWORKS, UNET_ALONE
from mtadiffusion.models.registry import resolve_backbone
from mtadiffusion.models.text_encoders import TextEncoders

_MAY_BE_HALF = ("unet", "text_encoder", "text_encoder_2")
"""The networks that are held in `frozen_dtype`; the autoencoder stays in float32."""


@dataclass(frozen=True, kw_only=True)
class Encoders:
    """What encodes pictures and texts, and decodes latents, named as a pipeline's arguments."""

    vae: Any
    """Autoencoder, in float32."""

    text_encoder: Any
    """CLIP text encoder."""

    tokenizer: Any
    """Its tokenizer."""

    text_encoder_2: Any = None
    """SDXL's second text encoder."""

    tokenizer_2: Any = None
    """Its tokenizer."""

    force_zeros_for_empty_prompt: bool = False
    """Whether an empty prompt is all zeros."""

    @property
    def of_texts(self) -> TextEncoders:
        """What the prompts are encoded with."""
        return TextEncoders(**{name: part for name, part in vars(self).items() if name != "vae"})


class Backbone:
    """A configuration's backbone on a device, its parts frozen and loaded when they are first asked for.

    Args:
        config: names it, and says how it is held and run.
        device: of its networks.
        networks: those that must be at hand from the start, so that a run does not come to miss one of them
            later; of a hub id others are fetched only when they are asked for.

    Raises:
        UserError: it is not there, or not in a layout that is known.
    """

    def __init__(
        self, config: TrainConfig, device: torch.device | str, networks: Collection[str] = NETWORKS
    ) -> None:
        self._config, self._device = config, torch.device(device)
        path = resolve_backbone(config.backbone, "backbone", networks)
        empty = empty_components(path, "backbone", ("unet", "vae"))
        halvings = {name: len(empty[name].config.block_out_channels) - 1 for name in empty}
        self.latent_factor = 2 ** halvings["vae"]
        self.picture_factor = 2 ** sum(halvings.values())

    latent_factor: int
    """Pixels a side of a latent cell."""

    picture_factor: int
    """What the sides of a picture must be multiples of, so that every level of VAE and UNet halves evenly."""

    @property
    def unet(self) -> Any:
        """Stock UNet2DConditionModel."""
        return self._unet_and_scheduler[0]

    @property
    def scheduler(self) -> Any:
        """Holds the noise levels and the prediction type."""
        return self._unet_and_scheduler[1]

    @cached_property
    def _unet_and_scheduler(self) -> tuple[Any, Any]:
        parts = self._loaded(UNET_ALONE)
        if self._config.compile:
            parts["unet"].compile_repeated_blocks()
        return parts["unet"], parts["scheduler"]

    @cached_property
    def encoders(self) -> Encoders:
        """VAE and text encoders."""
        parts = self._loaded(ENCODERS)
        parts.pop("scheduler")
        return Encoders(**parts)

    def let_encoders_go(self) -> None:
        """Free their memory; asked for again, they are loaded again."""
        self.__dict__.pop("encoders", None)

    def _loaded(self, networks: Collection[str]) -> dict[str, Any]:
        path = resolve_backbone(self._config.backbone, "backbone", networks)
        parts = load_components(path, torch.float32, "backbone", networks)
        for name, part in parts.items():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(False).eval().to(self._device)
            if name in _MAY_BE_HALF and self._config.frozen_dtype != "float32":
                part.to(getattr(torch, self._config.frozen_dtype))
        return parts


def networks_at_hand(config: TrainConfig) -> Collection[str]:
    """The networks that a run will need in any case: encoders where it has no cache, or draws pictures."""
    draws = config.validation.every > 0 and config.validation.images > 0
    return NETWORKS if draws else networks_of_a_step(config)


def networks_of_a_step(config: TrainConfig) -> Collection[str]:
    """The networks that are in memory while steps are taken: the UNet alone where they read a cache."""
    return UNET_ALONE if config.data.cached else NETWORKS
