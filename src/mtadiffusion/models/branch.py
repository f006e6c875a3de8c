"""The inpainting branch: a second network beside the frozen backbone that reads the noisy latents, the
masked image's latents and the known mask, and puts out one feature map for each place of the backbone where
something is added (`docs/method.md`, sections 2 and 3). How the features enter the backbone is
`injection.py`; what the input is made of, `conditioning.py`.
"""

from __future__ import annotations

import contextlib
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

from mtadiffusion.errors import UserError
from mtadiffusion.models.blocks import (
    Downsampler,
    ResidualBlock,
    SelfAttentionBlock,
    Upsampler,
    zero_parameters,
)
from mtadiffusion.models.branch_config import (
    INITIALISATIONS,
    branch_config,
    check_branch_config,
    check_choice,
    place_widths,
)
from mtadiffusion.models.brushnet import load_brushnet_weights, read_brushnet
from mtadiffusion.models.initialisation import initialise_from_unet


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
        check_branch_config(self.config)
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
            initialise: "backbone" (see `initialisation`), or "fresh" for random weights. Either way the
                zero convolutions start at zero.
            seed: draw the fresh weights from this seed, leaving torch's global generator alone; None draws
                them from the global generator.

        Raises:
            UserError: a choice is unknown, or the backbone has a part that no branch is defined for.
        """
        check_choice("initialise", initialise, INITIALISATIONS)
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
            initialise_from_unet(branch, unet)
        return branch

    @classmethod
    def from_brushnet(cls, path: str | Path) -> InpaintBranch:
        """A residual branch from an official BrushNet: its folder or its safetensors file.

        Without a config.json beside the weights the layout is read off them (`brushnet.config_of_weights`).
        """
        config, weights = read_brushnet(Path(path))
        branch = cls(**config)
        branch.load_brushnet_state_dict(weights)
        return branch

    def load_brushnet_state_dict(self, weights: Mapping[str, Tensor]) -> None:
        """Load weights in the key layout of official BrushNet checkpoints into a residual branch.

        An edge head, which BrushNet has not, keeps its own weights.

        Raises:
            UserError: the branch is not residual, or the keys or shapes do not match it.
        """
        load_brushnet_weights(self, weights)

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


@contextlib.contextmanager
def _fresh_weights(seed: int | None) -> Iterator[None]:
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        yield
