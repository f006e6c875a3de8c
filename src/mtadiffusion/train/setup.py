"""Builds the networks that are trained: the branch, the style loss's VGG, and the adversarial loss's critic.
`backbone` has the frozen ones.

What is done with the networks is `trainer`'s business.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mtadiffusion.config import BranchConfig, StyleVGGConfig, TrainConfig
from mtadiffusion.errors import UserError
from mtadiffusion.models.branch import InpaintBranch
from mtadiffusion.models.critic import LatentCritic
from mtadiffusion.models.injection import check_fit
from mtadiffusion.models.latent_vgg import LatentToRGB, LatentVGG
from mtadiffusion.models.registry import load_branch, resolve_branch, resolve_style_vgg
from mtadiffusion.seeding import stream_seed
from mtadiffusion.train.losses import check_edge_target


def check_named(config: TrainConfig) -> None:
    """Raises UserError if something that a run comes to need is not there, before anything is computed."""
    check_edge_target(config.loss.edge_target)
    if config.branch.start_from:
        resolve_branch(config.branch.start_from, "branch.start_from")
    if config.loss.needs_vgg:
        check_style_vgg(config.style_vgg)


def check_style_vgg(config: StyleVGGConfig) -> None:
    """Raises UserError if the weights of the style loss's VGG are not there."""
    if config.initialise == "trained":
        resolve_style_vgg(config.weights, "style_vgg.weights")
    elif config.initialise != "random" and not Path(config.weights).is_file():
        raise UserError("style_vgg.weights", "must be a safetensors file of an RGB VGG-16", config.weights)


def build_branch(config: TrainConfig, unet: Any) -> Any:
    """The branch to train: from the UNet's weights, or the folder that the run starts from."""
    settings = config.branch
    if settings.start_from:
        folder = resolve_branch(settings.start_from, "branch.start_from")
        branch = load_branch(folder, torch.float32, "branch.start_from")
        check_fit(branch, unet)
        if config.loss.eta > 0 and not branch.config.edge_head:
            raise UserError("branch.start_from", "needs an edge head for loss.eta", settings.start_from)
    else:
        branch = new_branch(settings, unet, settings.initialise, stream_seed(config.seed, "branch"))
    if settings.gradient_checkpointing:
        branch.enable_gradient_checkpointing()
        unet.enable_gradient_checkpointing()
    return branch.to(unet.device).train()


def new_branch(settings: BranchConfig, unet: Any, initialise: str, seed: int | None = None) -> InpaintBranch:
    """An untrained branch of these settings that fits `unet`; see `InpaintBranch.from_unet`."""
    return InpaintBranch.from_unet(
        unet,
        block=settings.block,
        position=settings.position,
        time_conditioning=settings.time_conditioning,
        feed_forward=settings.feed_forward,
        edge_head=settings.edge_head,
        hole_fill=settings.hole_fill,
        initialise=initialise,
        seed=seed,
    )


def build_style_vgg(config: StyleVGGConfig, seed: int, latents: Tensor, images: Tensor) -> LatentVGG:
    """The VGG of the style loss, its features rescaled on real latents (docs/method.md, section 4).

    Args:
        config: which VGG.
        seed: for fresh weights.
        latents: z_0 of some training images, (n, C, h, w).
        images: the same images, (n, 3, H, W) in [-1, 1]; `folded` fits its map from latents to RGB on them.
    """
    vgg = _initialised_vgg(config, seed, latents, images)
    if vgg.config.in_channels != latents.shape[1]:
        rule = f"must take the backbone's {latents.shape[1]} latent channels"
        raise UserError("style_vgg.weights", rule, vgg.config.in_channels, "use one made for this backbone")
    if config.calibration_images:
        vgg.calibrate(latents)
    vgg.requires_grad_(not config.freeze)
    return vgg.eval()


def build_critic(config: TrainConfig, unet: Any, vgg: Any) -> Any:
    """An untrained critic of what `unet` draws, which sees it through `vgg`."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(stream_seed(config.seed, "critic"))
        return LatentCritic(
            latent_channels=unet.config.in_channels,
            feature_channels=vgg.feature_channels,
            text_width=unet.config.cross_attention_dim,
            width=config.critic.width,
        )


def _initialised_vgg(config: StyleVGGConfig, seed: int, latents: Tensor, images: Tensor) -> LatentVGG:
    shape: dict[str, Any] = {
        "in_channels": latents.shape[1],
        "widths": config.widths,
        "pools": config.pools,
        "taps": config.taps or None,
    }
    if config.initialise == "random":
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(stream_seed(seed, "style vgg"))
            return LatentVGG(**shape)
    if config.initialise == "trained":
        folder = resolve_style_vgg(config.weights, "style_vgg.weights")
        return LatentVGG.from_pretrained(folder, torch_dtype=torch.float32, use_safetensors=True)
    check_style_vgg(config)
    rgb_map = LatentToRGB.fit(latents, (images + 1) / 2)
    weights = load_file(config.weights)
    return LatentVGG.from_rgb_vgg(weights, construction=config.initialise, rgb_map=rgb_map, **shape)
