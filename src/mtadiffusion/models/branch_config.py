"""What a branch's configuration may hold, and which one fits a backbone (`docs/method.md`, section 2).

Configurations alone: no layer is built here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtadiffusion.errors import UserError, nearest_name
from mtadiffusion.models.blocks import POSITIONS, TIME_CONDITIONINGS
from mtadiffusion.models.conditioning import HOLE_FILLS

BLOCKS = ("attention", "residual")
INITIALISATIONS = ("backbone", "fresh")

_BACKBONE_BLOCKS = {
    "DownBlock2D",
    "CrossAttnDownBlock2D",
    "UpBlock2D",
    "CrossAttnUpBlock2D",
    "MidBlock2D",
    "UNetMidBlock2D",
    "UNetMidBlock2DCrossAttn",
}
_BACKBONE_DEFAULTS = {
    "act_fn": "silu",
    "center_input_sample": False,
    "class_embed_type": None,
    "conv_in_kernel": 3,
    "mid_block_scale_factor": 1,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "time_embedding_act_fn": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
}


def place_widths(
    block_out_channels: tuple[int, ...], layers: tuple[int, ...]
) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
    """The widths of the places where features are added: (down, mid, up).

    Down: after conv_in, after each layer, after each downsampler. Up: after each layer (one more a level),
    after each upsampler. 12 + 1 + 15 for SD1.5.
    """
    levels = len(block_out_channels)
    down, up = [block_out_channels[0]], []
    for index, (width, count) in enumerate(zip(block_out_channels, layers, strict=True)):
        down += [width] * (count + (index < levels - 1))
    for index in reversed(range(levels)):
        up += [block_out_channels[index]] * (layers[index] + 1 + (index > 0))
    return tuple(down), block_out_channels[-1], tuple(up)


def branch_config(unet_config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a branch that fits a backbone of this configuration.

    Raises:
        UserError: the backbone has a part that no branch is defined for.
    """
    check_family(unet_config)
    config = shared_fields(unet_config)
    types = (*unet_config["down_block_types"], unet_config["mid_block_type"], *unet_config["up_block_types"])
    if strange := sorted({str(name) for name in types} - _BACKBONE_BLOCKS):
        raise UserError("backbone", f"must be built from {sorted(_BACKBONE_BLOCKS)}", strange)
    channels = unet_config["in_channels"]
    if channels != unet_config["out_channels"]:
        rule = "must take as many channels as it puts out (a text-to-image backbone)"
        raise UserError("backbone", rule, f"{channels} in, {unet_config['out_channels']} out")
    config.update(in_channels=2 * channels + 1, latent_channels=channels)
    # In this field diffusers keeps the NUMBER of heads, under a name that says otherwise.
    heads = unet_config.get("attention_head_dim", 8)
    config["num_attention_heads"] = heads if isinstance(heads, int) else tuple(heads)
    config["mid_layers"] = 1 if unet_config["mid_block_type"] == "UNetMidBlock2D" else 2
    return config


def shared_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a backbone's, a BrushNet's and a branch's configuration share.

    Of the added embeddings a branch takes SDXL's alone; one made of the text stays the backbone's business.
    """
    layers = config["layers_per_block"]
    added = config["addition_embed_type"] if config["addition_embed_type"] != "text" else None
    return {
        "block_out_channels": tuple(config["block_out_channels"]),
        "layers_per_block": layers if isinstance(layers, int) else tuple(layers),
        **{
            name: config[name]
            for name in (
                "norm_num_groups",
                "norm_eps",
                "downsample_padding",
                "flip_sin_to_cos",
                "freq_shift",
            )
        },
        "addition_embed_type": added,
        **{
            name: config[name]
            for name in ("addition_time_embed_dim", "projection_class_embeddings_input_dim")
            if added is not None
        },
        "time_embedding_dim": config.get("time_embedding_dim"),
    }


def check_family(config: Mapping[str, Any]) -> None:
    """Raise a UserError if a UNet's or BrushNet's configuration leaves the Stable Diffusion family."""
    for field, expected in _BACKBONE_DEFAULTS.items():
        if (value := config.get(field, expected)) != expected:
            remedy = "only the Stable Diffusion 1.x, 2.x and XL families are supported"
            raise UserError("backbone", f"must have {field}={expected!r}", value, remedy)


def check_branch_config(config: Any) -> None:
    """Raise a UserError that names a field of an `InpaintBranch`'s configuration that is out of its range."""
    for field, allowed in (
        ("block", BLOCKS),
        ("position", POSITIONS),
        ("time_conditioning", TIME_CONDITIONINGS),
        ("hole_fill", tuple(HOLE_FILLS)),
    ):
        check_choice(field, config[field], allowed)
    if config.in_channels != 2 * config.latent_channels + 1:
        rule = f"must be 2 * latent_channels + 1 = {2 * config.latent_channels + 1}"
        raise UserError("in_channels", rule, config.in_channels)
    if config.addition_embed_type not in (None, "text_time"):
        rule = "must be None or 'text_time'"
        raise UserError("addition_embed_type", rule, config.addition_embed_type)
    levels = len(config.block_out_channels)
    for field in ("layers_per_block", "num_attention_heads"):
        if not isinstance(config[field], int) and len(config[field]) != levels:
            raise UserError(field, f"must have one number for each of {levels} levels", config[field])
    heads = config.num_attention_heads
    for index, width in enumerate(config.block_out_channels):
        count = heads if isinstance(heads, int) else heads[index]
        if config.block == "attention" and width % count:
            raise UserError("num_attention_heads", f"must divide the level's width {width}", count)
        if width % config.norm_num_groups:
            rule = f"must divide the level's width {width}"
            raise UserError("norm_num_groups", rule, config.norm_num_groups)


def check_choice(field: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raise a UserError with the nearest choice if `value` is none of those allowed."""
    if value not in allowed:
        remedy = nearest_name(str(value), allowed)
        raise UserError(field, f"must be one of {list(allowed)}", value, remedy)
