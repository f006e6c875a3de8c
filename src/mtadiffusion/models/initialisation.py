"""Where a new branch's weights start: as the backbone's of the same place (`docs/method.md`, section 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from mtadiffusion.models.blocks import ResidualBlock, copy_rows, copy_tensors

if TYPE_CHECKING:
    from mtadiffusion.models.branch import InpaintBranch


@torch.no_grad()
def initialise_from_unet(branch: InpaintBranch, unet: UNet2DConditionModel) -> None:
    """Start `branch` from the backbone that it fits. Zero convolutions are left alone.

    `conv_in` goes into the first C and the next C channels and the mask channel starts at zero;
    timestep embedding and resamplings are copied. A residual block starts as the backbone's. An attention
    block starts as the backbone's transformer block of the same level and layer where it has one; its
    1x1 convolution, where the width changes, as the shortcut of the residual block there.
    """
    kernel, bias = unet.conv_in.parameters()  # (width, C, 3, 3), (width,)
    kernels = torch.cat([kernel, kernel, torch.zeros_like(kernel[:, :1])], dim=1)
    copy_tensors(branch.conv_in, {"weight": kernels, "bias": bias})
    for name in ("time_embedding", "add_embedding"):
        if hasattr(branch, name):
            copy_rows(getattr(branch, name).linear_1, getattr(unet, name).linear_1)
            copy_rows(getattr(branch, name).linear_2, getattr(unet, name).linear_2)
    source: Any
    levels = [*zip(branch.down_levels, unet.down_blocks, strict=True)]
    levels += [*zip(branch.up_levels, unet.up_blocks, strict=True)]
    for level, source in levels:
        _initialise_layers(level.layers, source)
        if level.resampler is not None:
            samplers = getattr(source, "downsamplers", None) or source.upsamplers
            copy_rows(level.resampler.conv, samplers[0].conv)
    _initialise_layers(branch.mid_level.layers, unet.mid_block)


def _initialise_layers(layers: nn.ModuleList, source: Any) -> None:
    """Start each layer from the backbone's of the same place in `source`, a block of its UNet."""
    transformers = list(getattr(source, "attentions", None) or [])
    layer: Any
    for index, layer in enumerate(layers):
        resnet = source.resnets[index]
        if isinstance(layer, ResidualBlock):
            copy_rows(layer, resnet)
            continue
        if index < len(transformers) and layer.can_start_from(transformers[index]):
            layer.initialise_from(transformers[index])
        if layer.conv_shortcut is not None:
            copy_rows(layer.conv_shortcut, resnet.conv_shortcut)
