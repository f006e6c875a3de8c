"""The branch's blocks, apart from the branch."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from mtadiffusion.models.blocks import (
    ResidualBlock,
    SelfAttentionBlock,
    add_to_first_channels,
    sincos_places,
    zero_parameters,
)


def attention_block(**options: object) -> SelfAttentionBlock:
    settings = {"temb_channels": 8, "heads": 4, "norm_num_groups": 4, "position": "none", **options}
    return SelfAttentionBlock(settings.pop("in_channels", 16), 16, **settings)


def without_text(transformer: torch.nn.Module, hidden: Tensor) -> Tensor:
    """The backbone's own transformer with its cross-attention silenced."""
    attn2 = transformer.transformer_blocks[0].attn2
    torch.nn.init.zeros_(attn2.to_out[0].weight)
    torch.nn.init.zeros_(attn2.to_out[0].bias)
    return transformer(hidden, encoder_hidden_states=torch.randn(len(hidden), 3, 16)).sample


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("position", ["none", "dwconv"])
@torch.no_grad()
def test_it_starts_as_the_backbones_transformer_without_its_text(
    unet_factory: type[UNet2DConditionModel], linear: bool, position: str
) -> None:
    unet = unet_factory(use_linear_projection=linear)
    transformer = unet.down_blocks[1].attentions[0]
    block = SelfAttentionBlock(32, 32, temb_channels=8, heads=4, norm_num_groups=8, position=position)
    assert block.can_start_from(transformer)
    block.initialise_from(transformer)
    hidden = torch.randn(2, 32, 5, 3)
    torch.testing.assert_close(block(hidden, torch.randn(2, 8)), without_text(transformer, hidden))


@torch.no_grad()
def test_an_extra_channel_leaves_the_others_as_they_are(unet: UNet2DConditionModel) -> None:
    transformer = unet.up_blocks[-1].attentions[-1]
    plain = SelfAttentionBlock(16, 16, temb_channels=8, heads=4, norm_num_groups=8)
    extra = SelfAttentionBlock(16, 16, temb_channels=8, heads=4, norm_num_groups=8, extra_channels=1)
    plain.initialise_from(transformer)
    extra.initialise_from(transformer)
    hidden, temb = torch.randn(2, 16, 4, 6), torch.randn(2, 8)
    out = extra(hidden, temb)
    assert out.shape == (2, 17, 4, 6)
    torch.testing.assert_close(out[:, :16], plain(hidden, temb))


@torch.no_grad()
def test_the_residual_does_not_reach_the_extra_channel() -> None:
    hidden = torch.randn(1, 16, 4, 4)
    for block in (
        attention_block(extra_channels=1),
        ResidualBlock(16, 16, temb_channels=8, norm_num_groups=4, extra_channels=1),
    ):
        last = block.proj_out if isinstance(block, SelfAttentionBlock) else block.conv2
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
        out = block(hidden, torch.randn(1, 8))
        assert torch.equal(out[:, :16], hidden)
        assert torch.equal(out[:, 16:], torch.zeros(1, 1, 4, 4))


def test_adding_to_the_first_channels_passes_the_rest() -> None:
    residual, update = torch.randn(2, 3, 2, 2), torch.randn(2, 5, 2, 2)
    out = add_to_first_channels(residual, update)
    assert torch.equal(out[:, :3], residual + update[:, :3])
    assert torch.equal(out[:, 3:], update[:, 3:])


@torch.no_grad()
def test_without_a_position_attention_does_not_see_places() -> None:
    block = attention_block(position="none")
    hidden, temb = torch.randn(1, 16, 4, 4), torch.randn(1, 8)
    order = torch.randperm(16)

    def shuffled(features: Tensor) -> Tensor:
        return features.flatten(2)[..., order].view(1, 16, 4, 4)

    torch.testing.assert_close(block(shuffled(hidden), temb), shuffled(block(hidden, temb)))


@pytest.mark.parametrize("position", ["sincos", "dwconv"])
@torch.no_grad()
def test_with_a_position_it_does(position: str) -> None:
    block = attention_block(position=position)
    if position == "dwconv":
        torch.nn.init.normal_(block.place_conv.weight)
    hidden, temb = torch.randn(1, 16, 4, 4), torch.randn(1, 8)
    flipped = block(hidden.flip(-1), temb)
    assert not torch.allclose(flipped, block(hidden, temb).flip(-1), atol=1e-3)


@torch.no_grad()
def test_the_timestep_starts_without_effect_and_then_scales_and_shifts() -> None:
    block = attention_block()
    hidden = torch.randn(2, 16, 4, 4)
    one, other = torch.randn(2, 8), torch.randn(2, 8)
    assert torch.equal(block(hidden, one), block(hidden, other))
    torch.nn.init.normal_(block.time_emb_proj.weight)
    assert not torch.allclose(block(hidden, one), block(hidden, other))


@torch.no_grad()
def test_without_time_conditioning_it_does_not_read_the_timestep() -> None:
    block = attention_block(time_conditioning="none")
    told = attention_block()
    told.load_state_dict(block.state_dict(), strict=False)  # whose scale and shift start at identity
    hidden = torch.randn(2, 16, 4, 4)
    torch.testing.assert_close(block(hidden, None), told(hidden, torch.randn(2, 8)))


@torch.no_grad()
def test_without_a_feed_forward_part_it_is_the_block_whose_part_is_silent() -> None:
    short = attention_block(feed_forward=False)
    whole = attention_block()
    whole.load_state_dict(short.state_dict(), strict=False)
    zero_parameters(whole.ff_out)
    hidden, temb = torch.randn(2, 16, 4, 4), torch.randn(2, 8)
    torch.testing.assert_close(short(hidden, temb), whole(hidden, temb))
    assert not any(name.startswith(("ff_", "norm3")) for name in short.state_dict())


@torch.no_grad()
def test_both_memory_layouts_give_the_same() -> None:
    block = attention_block(in_channels=24, position="dwconv")
    hidden, temb = torch.randn(2, 24, 6, 4), torch.randn(2, 8)
    relaid = hidden.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(block(hidden, temb), block(relaid, temb))


@pytest.mark.parametrize("channels", [4, 16, 18, 30])
def test_every_place_has_its_own_sinusoids(channels: int) -> None:
    places = sincos_places(7, 9, channels)
    assert places.shape == (63, channels)
    assert places.abs().max() <= 1
    distances = torch.cdist(places, places) + torch.eye(63)
    assert distances.min() > 0.01


def test_the_first_half_of_the_sinusoids_tells_the_row_only() -> None:
    places = sincos_places(5, 6, 16).view(5, 6, 16)
    assert torch.equal(places[:, 0, :8], places[:, 5, :8])
    assert torch.equal(places[0, :, 8:], places[4, :, 8:])
