"""The inpainting branch: a second network beside the frozen backbone that reads the noisy latents, the
masked image's latents and the known mask, and puts out one feature map for each place of the backbone where
something is added (`docs/method.md`, sections 2 and 3). How the features enter the backbone is
`injection.py`; what the input is made of, `conditioning.py`.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from mtadiffusion.errors import UserError, nearest_name
from mtadiffusion.models.blocks import (
    POSITIONS,
    TIME_CONDITIONINGS,
    Downsampler,
    ResidualBlock,
    SelfAttentionBlock,
    Upsampler,
    copy_rows,
    copy_tensors,
    zero_parameters,
)
from mtadiffusion.models.conditioning import HOLE_FILLS

BLOCKS = ("attention", "residual")
INITIALISATIONS = ("backbone", "fresh")

# Official BrushNet checkpoints, and the backbone's own blocks, against this module's names.
_BRUSHNET_NAMES = (
    (r"^conv_in_condition\.", "conv_in."),
    (r"^(down|up)_blocks\.(\d+)\.resnets\.", r"\1_levels.\2.layers."),
    (r"^(down|up)_blocks\.(\d+)\.(down|up)samplers\.0\.", r"\1_levels.\2.resampler."),
    (r"^mid_block\.resnets\.", "mid_level.layers."),
    (r"^brushnet_(down|up)_blocks\.", r"zero_\1."),
    (r"^brushnet_mid_block\.", "zero_mid."),
)

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


@dataclass
class BranchOutput(BaseOutput):
    """What the branch puts out."""

    features: tuple[Tensor, ...]
    """One (B, c_i, h_i, w_i) a place of the backbone, ordered down_0..., mid, up_0...; 28 for SD1.5."""

    edge: Tensor | None = None
    """(B, 1, h, w), the predicted edge map; None without an edge head."""


class Level(nn.Module):
    """The layers of one resolution and, but for the last level, the way to the next."""

    def __init__(self, layers: list[nn.Module], resampler: nn.Module | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.resampler = resampler


class InpaintBranch(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """The branch over cat[z_t, z_m, known], with the level layout of its backbone and no text input.

    Build one with `from_unet`; load one with `from_pretrained`, or an official BrushNet with `from_brushnet`.

    Args:
        in_channels: 2 * latent_channels + 1.
        latent_channels: C, the channels of the backbone's latents.
        block_out_channels: width of each level, from the finest.
        layers_per_block: blocks of a level on the way down, one number or one a level; one more
            on the way up.
        mid_layers: blocks at the coarsest resolution between the two ways.
        block: "attention" (MTADiffusion) or "residual" (BrushNet).
        position: how the attention learns of places: "none", "sincos" or "dwconv".
        time_conditioning: how attention blocks hear the timestep and what is added to its embedding:
            "scale_shift" or "none".
        feed_forward: whether attention blocks have a feed-forward part. Neither this nor the two before nor
            the heads are used by "residual".
        edge_head: whether the last block also puts out an edge map (section 3).
        hole_fill: what the hole of the masked image was filled with: "black" or "grey" (section 1). The
            branch does not use it; whoever builds its input must.
        num_attention_heads: heads a level, one number or one a level.
        norm_num_groups, norm_eps, downsample_padding, flip_sin_to_cos, freq_shift, time_embedding_dim: as in
            the backbone's configuration.
        addition_embed_type: None, or "text_time" for SDXL's added embedding of pooled text and sizes.
        addition_time_embed_dim, projection_class_embeddings_input_dim: of "text_time", as in the backbone.

    Raises:
        UserError: a field out of its range.
    """

    _supports_gradient_checkpointing = True

    # Loosely typed, because nn.Module and ConfigMixin hide what they hold from a type checker.
    config: Any
    down_levels: Any
    up_levels: Any

    @register_to_config
    def __init__(
        self,
        in_channels: int = 9,
        latent_channels: int = 4,
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers_per_block: int | tuple[int, ...] = 2,
        mid_layers: int = 2,
        block: str = "attention",
        position: str = "dwconv",
        time_conditioning: str = "scale_shift",
        feed_forward: bool = True,
        edge_head: bool = True,
        hole_fill: str = "black",
        num_attention_heads: int | tuple[int, ...] = 8,
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        downsample_padding: int = 1,
        flip_sin_to_cos: bool = True,
        freq_shift: int = 0,
        time_embedding_dim: int | None = None,
        addition_embed_type: str | None = None,
        addition_time_embed_dim: int = 256,
        projection_class_embeddings_input_dim: int = 2816,
    ) -> None:
        super().__init__()
        self._check_config()
        widths = tuple(block_out_channels)
        temb_channels = time_embedding_dim or 4 * widths[0]
        self.gradient_checkpointing = False
        self._gradient_checkpointing_func: Any = None
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.hears_time = block == "residual" or time_conditioning != "none"
        if self.hears_time:
            self.time_proj = Timesteps(widths[0], flip_sin_to_cos, freq_shift)
            self.time_embedding = TimestepEmbedding(widths[0], temb_channels)
        if self.hears_time and addition_embed_type == "text_time":
            self.add_time_proj = Timesteps(addition_time_embed_dim, flip_sin_to_cos, freq_shift)
            self.add_embedding = TimestepEmbedding(projection_class_embeddings_input_dim, temb_channels)

        self.down_levels = nn.ModuleList(self._build_down_levels(temb_channels))
        self.mid_level = Level(
            [self._layer(-1, widths[-1], widths[-1], temb_channels) for _ in range(mid_layers)], None
        )
        self.up_levels = nn.ModuleList(self._build_up_levels(temb_channels))

        down, mid, up = place_widths(widths, self._layers_of_levels())
        self.zero_down = nn.ModuleList(nn.Conv2d(width, width, 1) for width in down)
        self.zero_mid = nn.Conv2d(mid, mid, 1)
        self.zero_up = nn.ModuleList(nn.Conv2d(width, width, 1) for width in up)
        for conv in self.zero_convs():
            zero_parameters(conv)

    @classmethod
    def from_unet(
        cls,
        unet: UNet2DConditionModel,
        *,
        block: str = "attention",
        position: str = "dwconv",
        time_conditioning: str = "scale_shift",
        feed_forward: bool = True,
        edge_head: bool = True,
        hole_fill: str = "black",
        initialise: str = "backbone",
        seed: int | None = None,
    ) -> InpaintBranch:
        """A branch that fits `unet`, in float32 on its device.

        Args:
            unet: the backbone, a stock `UNet2DConditionModel` of the SD1.5 / SD2.1 / SDXL family.
            block, position, time_conditioning, feed_forward, edge_head, hole_fill: see the class.
            initialise: "backbone" (`initialise_from_unet`), or "fresh" for random weights. Either way the
                zero convolutions start at zero.
            seed: draw the fresh weights from this seed, leaving torch's global generator alone; None draws
                them from the global generator.

        Raises:
            UserError: a choice is unknown, or the backbone has a part that no branch is defined for.
        """
        _check_choice("initialise", initialise, INITIALISATIONS)
        config = branch_config(unet.config)
        config.update(
            block=block,
            position=position,
            time_conditioning=time_conditioning,
            feed_forward=feed_forward,
            edge_head=edge_head,
            hole_fill=hole_fill,
        )
        with _fresh_weights(seed), torch.device("meta" if unet.device.type == "meta" else "cpu"):
            branch = cls(**config)
        branch = branch.to(unet.device)
        if initialise == "backbone":
            branch.initialise_from_unet(unet)
        return branch

    @classmethod
    def from_brushnet(cls, folder: str | Path) -> InpaintBranch:
        """A residual branch from an official BrushNet, a folder with config.json and safetensors."""
        from safetensors.torch import load_file

        folder = Path(folder)
        for name in ("config.json", "diffusion_pytorch_model.safetensors"):
            if not (folder / name).is_file():
                remedy = "point at the folder that holds both; pickled .bin weights are not read"
                raise UserError("branch", f"must be a folder with {name}", str(folder), remedy)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "diffusion_pytorch_model.safetensors")
        branch = cls(**brushnet_config(config))
        branch.load_brushnet_state_dict(weights)
        return branch

    def load_brushnet_state_dict(self, weights: Mapping[str, Tensor]) -> None:
        """Load weights in the key layout of official BrushNet checkpoints into a residual branch.

        An edge head, which BrushNet has not, keeps its own weights.

        Raises:
            UserError: the branch is not residual, or the keys or shapes do not match it.
        """
        if self.config.block != "residual":
            raise UserError("block", "must be 'residual' to take BrushNet's weights", self.config.block)
        renamed = {_renamed(key): value for key, value in weights.items()}
        own = dict(self.named_parameters())
        if strange := sorted(own.keys() ^ renamed.keys()):
            raise UserError(
                "BrushNet weights", "must have the branch's layers", strange[:3], _REMEDY_BRUSHNET
            )
        edge = f"up_levels.{len(self.up_levels) - 1}.layers.{len(self.up_levels[-1].layers) - 1}.conv2."
        for name, value in renamed.items():
            extra = int(self.config.edge_head and name.startswith(edge))
            shape = (own[name].shape[0] - extra, *own[name].shape[1:])
            if tuple(value.shape) != shape:
                rule = f"must have the branch's shape {shape} in {name}"
                raise UserError("BrushNet weights", rule, tuple(value.shape), _REMEDY_BRUSHNET)
        copy_tensors(self, renamed)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        added_cond_kwargs: Mapping[str, Tensor] | None = None,
    ) -> BranchOutput:
        """The features for the backbone, and the edge map.

        Args:
            sample: (B, 2C + 1, h, w), from `conditioning.branch_input`.
            timestep: (B,), or one for all.
            added_cond_kwargs: with `addition_embed_type` "text_time" only: "text_embeds" (B, d) and
                "time_ids" (B, n), as the SDXL backbone takes them.
        """
        # (B, temb_channels), after SiLU
        temb = self._embed(sample, timestep, added_cond_kwargs) if self.hears_time else None
        hidden = self.conv_in(sample)
        skips = [hidden]
        for level in self.down_levels:
            for layer in level.layers:
                hidden = self._run(layer, hidden, temb)
                skips.append(hidden)
            if level.resampler is not None:
                hidden = level.resampler(hidden)
                skips.append(hidden)
        down = tuple(conv(skip) for conv, skip in zip(self.zero_down, skips, strict=True))

        for layer in self.mid_level.layers:
            hidden = self._run(layer, hidden, temb)
        mid = self.zero_mid(hidden)

        risen = []
        for level in self.up_levels:
            for layer in level.layers:
                hidden = self._run(layer, torch.cat([hidden, skips.pop()], dim=1), temb)
                risen.append(hidden)
            if level.resampler is not None:
                hidden = level.resampler(hidden, skips[-1].shape[-2:])
                risen.append(hidden)
        edge = None
        if self.config.edge_head:
            risen[-1], edge = hidden[:, :-1], hidden[:, -1:]
        up = tuple(conv(hidden) for conv, hidden in zip(self.zero_up, risen, strict=True))
        return BranchOutput(features=(*down, mid, *up), edge=edge)

    def zero_convs(self) -> list[nn.Conv2d]:
        """The zero-initialised 1x1 convolutions that carry the features out, in the features' order."""
        return [*self.zero_down, self.zero_mid, *self.zero_up]

    @property
    def count(self) -> int:
        """The number of features: 28 for SD1.5."""
        return len(self.zero_down) + 1 + len(self.zero_up)

    @torch.no_grad()
    def initialise_from_unet(self, unet: UNet2DConditionModel) -> None:
        """Start from the backbone (`docs/method.md`, section 2). Zero convolutions are left alone.

        `conv_in` goes into the first C and the next C channels and the mask channel starts at zero;
        timestep embedding and resamplings are copied. A residual block starts as the backbone's. An attention
        block starts as the backbone's transformer block of the same level and layer where it has one; its
        1x1 convolution, where the width changes, as the shortcut of the residual block there.
        """
        kernel, bias = unet.conv_in.parameters()  # (width, C, 3, 3), (width,)
        kernels = torch.cat([kernel, kernel, torch.zeros_like(kernel[:, :1])], dim=1)
        copy_tensors(self.conv_in, {"weight": kernels, "bias": bias})
        for name in ("time_embedding", "add_embedding"):
            if hasattr(self, name):
                copy_rows(getattr(self, name).linear_1, getattr(unet, name).linear_1)
                copy_rows(getattr(self, name).linear_2, getattr(unet, name).linear_2)
        source: Any
        levels = [*zip(self.down_levels, unet.down_blocks, strict=True)]
        levels += [*zip(self.up_levels, unet.up_blocks, strict=True)]
        for level, source in levels:
            _initialise_layers(level.layers, source)
            if level.resampler is not None:
                samplers = getattr(source, "downsamplers", None) or source.upsamplers
                copy_rows(level.resampler.conv, samplers[0].conv)
        _initialise_layers(self.mid_level.layers, unet.mid_block)

    def _embed(
        self, sample: Tensor, timestep: Tensor | float | int, added: Mapping[str, Tensor] | None
    ) -> Tensor:
        timesteps = torch.as_tensor(timestep, device=sample.device).expand(sample.shape[0])
        temb = self.time_embedding(self.time_proj(timesteps).to(sample.dtype))
        if self.config.addition_embed_type == "text_time":
            temb = temb + self._embed_added(sample, added)
        return nn.functional.silu(temb)

    def _embed_added(self, sample: Tensor, added: Mapping[str, Tensor] | None) -> Tensor:
        if added is None or not {"text_embeds", "time_ids"} <= added.keys():
            rule = "must hold 'text_embeds' and 'time_ids' for this branch"
            raise UserError(
                "added_cond_kwargs", rule, sorted(added or ()), "pass what the SDXL backbone takes"
            )
        sizes = self.add_time_proj(added["time_ids"].flatten()).reshape(len(added["time_ids"]), -1)
        embedded = torch.cat([added["text_embeds"], sizes.to(added["text_embeds"].dtype)], dim=-1)
        return self.add_embedding(embedded.to(sample.dtype))

    def _run(self, layer: nn.Module, hidden: Tensor, temb: Tensor | None) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(layer, hidden, temb)
        return layer(hidden, temb)

    def _build_down_levels(self, temb_channels: int) -> Iterator[Level]:
        widths, layers = self.config.block_out_channels, self._layers_of_levels()
        for index, (width, count) in enumerate(zip(widths, layers, strict=True)):
            sources = [widths[max(index - 1, 0)]] + [width] * (count - 1)
            last = index == len(widths) - 1
            yield Level(
                [self._layer(index, source, width, temb_channels) for source in sources],
                None if last else Downsampler(width, padding=self.config.downsample_padding),
            )

    def _build_up_levels(self, temb_channels: int) -> Iterator[Level]:
        skips, _, _ = place_widths(self.config.block_out_channels, self._layers_of_levels())
        remaining = list(skips)
        hidden = self.config.block_out_channels[-1]
        for index in reversed(range(len(self.config.block_out_channels))):
            width = self.config.block_out_channels[index]
            count = self._layers_of_levels()[index] + 1
            layers = []
            for layer in range(count):
                extra = int(self.config.edge_head and index == 0 and layer == count - 1)
                layers.append(self._layer(index, hidden + remaining.pop(), width, temb_channels, extra))
                hidden = width
            yield Level(layers, Upsampler(width) if index > 0 else None)

    def _layer(
        self, level: int, in_channels: int, channels: int, temb_channels: int, extra_channels: int = 0
    ) -> nn.Module:
        if self.config.block == "residual":
            return ResidualBlock(
                in_channels,
                channels,
                temb_channels=temb_channels,
                norm_num_groups=self.config.norm_num_groups,
                norm_eps=self.config.norm_eps,
                extra_channels=extra_channels,
            )
        heads = self.config.num_attention_heads
        return SelfAttentionBlock(
            in_channels,
            channels,
            temb_channels=temb_channels,
            heads=heads if isinstance(heads, int) else heads[level],
            norm_num_groups=self.config.norm_num_groups,
            position=self.config.position,
            time_conditioning=self.config.time_conditioning,
            feed_forward=self.config.feed_forward,
            extra_channels=extra_channels,
        )

    def _layers_of_levels(self) -> tuple[int, ...]:
        layers, levels = self.config.layers_per_block, len(self.config.block_out_channels)
        return (layers,) * levels if isinstance(layers, int) else tuple(layers)

    def _check_config(self) -> None:
        config = self.config
        for field, allowed in (
            ("block", BLOCKS),
            ("position", POSITIONS),
            ("time_conditioning", TIME_CONDITIONINGS),
            ("hole_fill", tuple(HOLE_FILLS)),
        ):
            _check_choice(field, config[field], allowed)
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


_REMEDY_BRUSHNET = "the checkpoint belongs to another backbone, or is no BrushNet"


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
    _check_backbone(unet_config)
    config = _shared_fields(unet_config)
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


def brushnet_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the residual branch that an official BrushNet's config.json describes.

    Raises:
        UserError: a BrushNet with attention or another part that no branch is defined for.
    """
    if "conditioning_channels" not in config:
        raise UserError(
            "branch", "must hold a BrushNet's config.json", None, "use from_pretrained for our own"
        )
    _check_backbone(config)
    types = {*config["down_block_types"], config["mid_block_type"], *config["up_block_types"]}
    if strange := sorted(types - {"DownBlock2D", "MidBlock2D", "UpBlock2D"}):
        raise UserError("branch", "must be a BrushNet without attention", strange)
    channels = config["in_channels"]
    result = _shared_fields(config)
    result.update(in_channels=channels + config["conditioning_channels"], latent_channels=channels)
    result.update(block="residual", position="none", edge_head=False, hole_fill="black")
    return result


def _shared_fields(config: Mapping[str, Any]) -> dict[str, Any]:
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


def _check_backbone(config: Mapping[str, Any]) -> None:
    for field, expected in _BACKBONE_DEFAULTS.items():
        if (value := config.get(field, expected)) != expected:
            remedy = "only the Stable Diffusion 1.x, 2.x and XL families are supported"
            raise UserError("backbone", f"must have {field}={expected!r}", value, remedy)


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


def _renamed(key: str) -> str:
    for pattern, replacement in _BRUSHNET_NAMES:
        key, found = re.subn(pattern, replacement, key)
        if found:
            break
    return key


def _check_choice(field: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        remedy = nearest_name(str(value), allowed)
        raise UserError(field, f"must be one of {list(allowed)}", value, remedy)


@contextlib.contextmanager
def _fresh_weights(seed: int | None) -> Iterator[None]:
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        yield
