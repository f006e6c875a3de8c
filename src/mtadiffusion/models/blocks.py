"""The layers that the branch is built from: the self-attention block of MTADiffusion, the residual block of
BrushNet, and the two resamplings (`docs/method.md`, sections 2 and 3).

Both blocks share one signature, `block(hidden (B, in, h, w), temb (B, T)) -> (B, out + extra, h, w)`, where
`temb` is the timestep embedding AFTER its SiLU, which the branch takes once for all blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

POSITIONS = ("none", "sincos", "dwconv")
TIME_CONDITIONINGS = ("scale_shift", "none")
_FEED_FORWARD_FACTOR = 4


class SelfAttentionBlock(nn.Module):
    """Self-attention over the h*w places of a feature map, told the timestep (`docs/method.md`, section 2).

    GroupNorm -> timestep scale and shift -> projection in -> [LayerNorm -> self-attention, residual]
    -> [LayerNorm -> GEGLU feed-forward, residual] -> projection out, residual around the whole. It is the
    layout of a Stable Diffusion transformer block without its cross-attention, so that it can start as one:
    with the timestep's scale and shift at identity and the depthwise convolution at zero, as they are
    initialised, it computes what the backbone's block would without the text.

    Args:
        in_channels: width of the input; another than `channels` brings a 1x1 convolution in front.
        channels: width of the block, and of its output.
        temb_channels: width of the timestep embedding.
        heads: number of attention heads; divides `channels`.
        norm_num_groups: groups of the GroupNorm.
        position: how attention learns of places: "none", "sincos" (2-D sinusoids added to the tokens) or
            "dwconv" (a depthwise 3x3 convolution, starting at zero, added to its input).
        time_conditioning: how the block is told the timestep: "scale_shift" or "none".
        feed_forward: whether it has the feed-forward part.
        extra_channels: channels that the final projection puts out beyond `channels`; the residual does not
            reach them (the edge head, section 3).
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        temb_channels: int,
        heads: int,
        norm_num_groups: int = 32,
        position: str = "dwconv",
        time_conditioning: str = "scale_shift",
        feed_forward: bool = True,
        extra_channels: int = 0,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.position = position
        self.conv_shortcut = nn.Conv2d(in_channels, channels, 1) if in_channels != channels else None
        self.norm = nn.GroupNorm(norm_num_groups, channels, eps=1e-6)
        self.time_emb_proj = (
            nn.Linear(temb_channels, 2 * channels) if time_conditioning == "scale_shift" else None
        )
        self.place_conv = (
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels) if position == "dwconv" else None
        )
        self.proj_in = nn.Linear(channels, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.to_qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.to_out = nn.Linear(channels, channels)
        self.feed_forward = feed_forward
        if feed_forward:
            inner = _FEED_FORWARD_FACTOR * channels
            self.norm3 = nn.LayerNorm(channels)
            self.ff_in = nn.Linear(channels, 2 * inner)
            self.ff_out = nn.Linear(inner, channels)
        self.proj_out = nn.Linear(channels, channels + extra_channels)
        for module in (self.time_emb_proj, self.place_conv):
            if module is not None:
                zero_parameters(module)

    def forward(self, hidden: Tensor, temb: Tensor | None) -> Tensor:
        """(B, in_channels, h, w), (B, temb_channels) -> (B, channels + extra_channels, h, w).

        Without time conditioning `temb` is not read.
        """
        if self.conv_shortcut is not None:
            hidden = self.conv_shortcut(hidden)
        batch, channels, height, width = hidden.shape
        inner = self.norm(hidden)
        if self.time_emb_proj is not None:
            scale, shift = self.time_emb_proj(temb)[:, :, None, None].chunk(2, dim=1)
            inner = torch.addcmul(shift, inner, 1 + scale)
        if self.place_conv is not None:
            inner = inner + self.place_conv(inner)
        # From here on the layout is (B, h*w, c); what goes out is a channels-last view, which costs no copy
        # here nor in the next block.
        tokens = self.proj_in(inner.permute(0, 2, 3, 1).reshape(batch, height * width, channels))
        if self.position == "sincos":
            tokens = tokens + sincos_places(height, width, channels).to(tokens)
        tokens = tokens + self.attend(self.norm1(tokens))
        if self.feed_forward:
            value, gate = self.ff_in(self.norm3(tokens)).chunk(2, dim=-1)
            tokens = tokens + self.ff_out(value * F.gelu(gate))
        out = self.proj_out(tokens).view(batch, height, width, -1).permute(0, 3, 1, 2)
        return add_to_first_channels(hidden, out)

    def attend(self, tokens: Tensor) -> Tensor:
        """Multi-head self-attention, (B, N, c) -> (B, N, c)."""
        batch, count, channels = tokens.shape
        qkv = self.to_qkv(tokens).view(batch, count, 3, self.heads, channels // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.to_out(attended.transpose(1, 2).reshape(batch, count, channels))

    def initialise_from(self, transformer: Any) -> None:
        """Take over the self-attending part of a backbone's transformer block of the same width.

        Of several stacked transformer blocks (SDXL) the first one is taken.
        """
        block: Any = transformer.transformer_blocks[0]
        copy_rows(self.norm, transformer.norm)
        copy_rows(self.proj_in, transformer.proj_in)
        copy_rows(self.norm1, block.norm1)
        qkv = torch.cat([block.attn1.to_q.weight, block.attn1.to_k.weight, block.attn1.to_v.weight])
        copy_tensors(self.to_qkv, {"weight": qkv})
        copy_rows(self.to_out, block.attn1.to_out[0])
        if self.feed_forward:
            copy_rows(self.norm3, block.norm3)
            copy_rows(self.ff_in, block.ff.net[0].proj)
            copy_rows(self.ff_out, block.ff.net[2])
        copy_rows(self.proj_out, transformer.proj_out)

    def can_start_from(self, source: object) -> bool:
        """Whether `source` is a transformer block with a self-attention of this block's width."""
        if not isinstance(source, Transformer2DModel) or not source.is_input_continuous:
            return False
        if source.transformer_blocks[0].only_cross_attention:
            return False
        return source.in_channels == source.inner_dim == self.norm.num_channels


class ResidualBlock(nn.Module):
    """BrushNet's block, the residual block of the backbone with its parameter names (section 2).

    GroupNorm -> SiLU -> 3x3 convolution -> + timestep -> GroupNorm -> SiLU -> 3x3 convolution, residual.

    Args: as for `SelfAttentionBlock`; `norm_eps` is the epsilon of both GroupNorms.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        temb_channels: int,
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        extra_channels: int = 0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(norm_num_groups, in_channels, eps=norm_eps)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(temb_channels, channels)
        self.norm2 = nn.GroupNorm(norm_num_groups, channels, eps=norm_eps)
        self.conv2 = nn.Conv2d(channels, channels + extra_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, channels, 1) if in_channels != channels else None

    def forward(self, hidden: Tensor, temb: Tensor) -> Tensor:
        """(B, in_channels, h, w), (B, temb_channels) -> (B, channels + extra_channels, h, w)."""
        inner = self.conv1(F.silu(self.norm1(hidden)))
        inner = inner + self.time_emb_proj(temb)[:, :, None, None]
        inner = self.conv2(F.silu(self.norm2(inner)))
        if self.conv_shortcut is not None:
            hidden = self.conv_shortcut(hidden)
        return add_to_first_channels(hidden, inner)


class Downsampler(nn.Module):
    """Halve the resolution by a strided 3x3 convolution, as the backbone does.

    `padding` 0 pads below and to the right only, as the backbone's configuration field of that name means.
    """

    def __init__(self, channels: int, *, padding: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)
        self.pads_one_side = padding == 0

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, c, h, w) -> (B, c, ceil(h/2), ceil(w/2)), floor with `padding` 0."""
        return self.conv(F.pad(hidden, (0, 1, 0, 1)) if self.pads_one_side else hidden)


class Upsampler(nn.Module):
    """Bring features to the size of the next skip connection: nearest neighbour, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, c, h, w), (h2, w2) -> (B, c, h2, w2)."""
        return self.conv(F.interpolate(hidden, size=size, mode="nearest"))


def add_to_first_channels(residual: Tensor, update: Tensor) -> Tensor:
    """residual (B, c, h, w) added to the first c channels of update (B, c + extra, h, w)."""
    channels = residual.shape[1]
    if update.shape[1] == channels:
        return residual + update
    return torch.cat([residual + update[:, :channels], update[:, channels:]], dim=1)


@lru_cache(maxsize=32)
def sincos_places(height: int, width: int, channels: int) -> Tensor:
    """2-D sinusoids of the places of a feature map, row-major: (h*w, channels), float32 on the CPU.

    One half of the channels tells the row, the other the column, each as sines and cosines of wavelengths
    from 2 pi to 20,000 pi cells, the form of "Attention Is All You Need", section 3.5.
    """
    quarter = math.ceil(channels / 4)
    frequencies = torch.exp(torch.arange(quarter) * (-math.log(10000.0) / quarter))
    rows = torch.arange(height)[:, None] * frequencies
    columns = torch.arange(width)[:, None] * frequencies
    row_waves = torch.cat([rows.sin(), rows.cos()], dim=-1)[:, None].expand(-1, width, -1)
    column_waves = torch.cat([columns.sin(), columns.cos()], dim=-1)[None].expand(height, -1, -1)
    return torch.cat([row_waves, column_waves], dim=-1)[..., :channels].reshape(height * width, channels)


def zero_parameters(module: nn.Module) -> None:
    """Set every parameter of `module` to zero."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


@torch.no_grad()
def copy_tensors(module: nn.Module, source: Mapping[str, Tensor]) -> None:
    """Copy tensors by name into the first rows of `module`'s parameters, reshaping what has as many elements
    a row (a 1x1 convolution and a linear layer hold the same numbers). Rows beyond keep their values."""
    for name, parameter in module.named_parameters():
        value = source[name]
        rows = parameter[: value.shape[0]]
        rows.copy_(value.reshape(rows.shape))


def copy_rows(module: nn.Module, source: nn.Module) -> None:
    """`copy_tensors` from another module with the same parameter names."""
    copy_tensors(module, dict(source.named_parameters()))
