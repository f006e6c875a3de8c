"""The branch as a whole: layout, initialisation, edge head, saving, gradients, mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from mtadiffusion.errors import UserError
from mtadiffusion.models.branch import InpaintBranch
from mtadiffusion.models.injection import BranchInjection, check_fit

SD15_UNET = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "down_block_types": (
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "DownBlock2D",
    ),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}

KINDS = [
    {"block": "attention", "position": "dwconv"},
    {"block": "attention", "position": "sincos"},
    {"block": "attention", "position": "none"},
    {"block": "attention", "time_conditioning": "none", "feed_forward": False},
    {"block": "residual"},
    {"block": "residual", "time_conditioning": "none", "feed_forward": False},
]


@pytest.fixture(scope="module")
def sd15() -> UNet2DConditionModel:
    with torch.device("meta"):
        return UNet2DConditionModel(**SD15_UNET)


def inputs(batch: int = 2, height: int = 16, width: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    sample = torch.randn(batch, 9, height, width, generator=generator)
    return sample, torch.randint(0, 1000, (batch,), generator=generator)


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({"block": "residual", "edge_head": False}, 618_830_080),
        ({"block": "residual", "edge_head": True}, 618_832_961),
        ({"block": "attention", "position": "none", "edge_head": False}, 556_404_160),
        ({"block": "attention", "position": "dwconv", "edge_head": True}, 556_606_081),
        ({"block": "attention", "position": "none", "edge_head": False, "feed_forward": False}, 289_532_800),
        (
            {"block": "attention", "position": "none", "edge_head": False, "time_conditioning": "none"},
            502_703_680,
        ),
    ],
)
def test_the_full_size_branch_of_sd15(
    sd15: UNet2DConditionModel, options: dict[str, object], parameters: int
) -> None:
    branch = InpaintBranch.from_unet(sd15, **options)
    assert branch.device.type == "meta"
    assert branch.conv_in.weight.shape == (320, 9, 3, 3)
    assert branch.count == len(branch.zero_convs()) == 28
    assert (len(branch.zero_down), len(branch.zero_up)) == (12, 15)
    assert branch.num_parameters() == parameters


def test_the_places_of_sd15_have_its_widths_and_resolutions(sd15: UNet2DConditionModel) -> None:
    branch = InpaintBranch.from_unet(sd15)
    sample = torch.empty(1, 9, 64, 64, device="meta")
    output = branch(sample, torch.empty(1, device="meta"))
    widths = [feature.shape[1] for feature in output.features]
    sizes = [feature.shape[-1] for feature in output.features]
    assert widths[:12] == [320] * 4 + [640] * 3 + [1280] * 5
    assert sizes[:12] == [64] * 3 + [32] * 3 + [16] * 3 + [8] * 3
    assert (widths[12], sizes[12]) == (1280, 8)
    assert widths[13:] == [1280] * 8 + [640] * 4 + [320] * 3
    assert sizes[13:] == [8] * 3 + [16] * 4 + [32] * 4 + [64] * 4
    assert output.edge.shape == (1, 1, 64, 64)


@pytest.mark.parametrize("options", KINDS)
@torch.no_grad()
def test_untrained_every_feature_is_zero(unet: UNet2DConditionModel, options: dict[str, str]) -> None:
    output = InpaintBranch.from_unet(unet, **options)(*inputs())
    assert all((feature == 0).all() for feature in output.features)
    assert output.edge.abs().sum() > 0


def test_conv_in_starts_twice_as_the_backbones_and_the_mask_at_zero(unet: UNet2DConditionModel) -> None:
    branch = InpaintBranch.from_unet(unet)
    assert torch.equal(branch.conv_in.weight[:, :4], unet.conv_in.weight)
    assert torch.equal(branch.conv_in.weight[:, 4:8], unet.conv_in.weight)
    assert (branch.conv_in.weight[:, 8] == 0).all()
    assert torch.equal(branch.conv_in.bias, unet.conv_in.bias)


def test_a_residual_branch_starts_with_the_backbones_residual_blocks(unet: UNet2DConditionModel) -> None:
    branch = InpaintBranch.from_unet(unet, block="residual", edge_head=False)
    theirs = unet.state_dict()
    for place, source in (
        ("down_levels.1.layers.0.", "down_blocks.1.resnets.0."),
        ("up_levels.3.layers.2.", "up_blocks.3.resnets.2."),
        ("mid_level.layers.1.", "mid_block.resnets.1."),
        ("up_levels.0.resampler.", "up_blocks.0.upsamplers.0."),
        ("time_embedding.", "time_embedding."),
    ):
        ours = {k.removeprefix(place): v for k, v in branch.state_dict().items() if k.startswith(place)}
        assert ours
        assert all(torch.equal(value, theirs[source + name]) for name, value in ours.items())


def test_attention_starts_from_the_backbones_where_it_has_one(unet: UNet2DConditionModel) -> None:
    branch = InpaintBranch.from_unet(unet)
    for layers, source in (
        (branch.down_levels[2].layers, unet.down_blocks[2]),
        (branch.mid_level.layers, unet.mid_block),
        (branch.up_levels[3].layers, unet.up_blocks[3]),
    ):
        for layer, transformer in zip(layers, source.attentions, strict=False):
            assert torch.equal(layer.ff_out.weight, transformer.transformer_blocks[0].ff.net[2].weight)
    shortcut = unet.up_blocks[1].resnets[0].conv_shortcut
    assert torch.equal(branch.up_levels[1].layers[0].conv_shortcut.weight, shortcut.weight)


def test_a_fresh_branch_takes_nothing_from_the_backbone(unet: UNet2DConditionModel) -> None:
    branch = InpaintBranch.from_unet(unet, initialise="fresh", seed=1)
    assert not torch.equal(branch.conv_in.weight[:, :4], unet.conv_in.weight)
    assert branch.conv_in.weight[:, 8].abs().sum() > 0
    with torch.random.fork_rng():
        torch.manual_seed(1)
        expected = InpaintBranch(**branch.config).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in branch.state_dict().items())
    assert all((feature == 0).all() for feature in branch(*inputs()).features)


@torch.no_grad()
def test_without_time_conditioning_all_timesteps_are_one(
    unet: UNet2DConditionModel, branch_factory: Callable[..., InpaintBranch]
) -> None:
    sample, _ = inputs()
    for block, deaf in (("attention", True), ("residual", False)):
        branch = branch_factory(unet, block=block, time_conditioning="none")
        assert torch.equal(branch(sample, 3).edge, branch(sample, 900).edge) == deaf


def test_fresh_weights_come_from_the_seed_alone(unet: UNet2DConditionModel) -> None:
    before = torch.random.get_rng_state()
    one, same, other = (InpaintBranch.from_unet(unet, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    name = "down_levels.3.layers.0.to_qkv.weight"
    assert torch.equal(one.state_dict()[name], same.state_dict()[name])
    assert not torch.equal(one.state_dict()[name], other.state_dict()[name])


@pytest.mark.parametrize("options", KINDS)
@torch.no_grad()
def test_saved_and_loaded_it_puts_out_the_same(
    unet: UNet2DConditionModel,
    branch_factory: Callable[..., InpaintBranch],
    tmp_path: Path,
    options: dict[str, str],
) -> None:
    branch = branch_factory(unet, **options)
    branch.save_pretrained(tmp_path)
    assert (tmp_path / "diffusion_pytorch_model.safetensors").is_file()
    again = InpaintBranch.from_pretrained(tmp_path)
    assert all(again.config[name] == value for name, value in options.items())
    one, other = branch(*inputs()), again(*inputs())
    assert torch.equal(one.edge, other.edge)
    assert all(torch.equal(a, b) for a, b in zip(one.features, other.features, strict=True))


@pytest.mark.parametrize("options", KINDS)
def test_a_gradient_reaches_every_parameter(
    unet: UNet2DConditionModel, branch_factory: Callable[..., InpaintBranch], options: dict[str, str]
) -> None:
    branch = branch_factory(unet, **options).train()
    output = branch(*inputs())
    sum(map(torch.sum, output.features), output.edge.square().sum()).backward()
    silent = [n for n, p in branch.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_untrained_the_features_reach_the_zero_convolutions_only(unet: UNet2DConditionModel) -> None:
    branch = InpaintBranch.from_unet(unet, edge_head=False)
    sum(feature.square().sum() + feature.sum() for feature in branch(*inputs()).features).backward()
    moved = {n for n, p in branch.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved
    assert all(name.startswith("zero_") for name in moved)


def test_gradient_checkpointing_changes_no_gradient(branch: InpaintBranch) -> None:
    gradients = []
    for enable in (branch.disable_gradient_checkpointing, branch.enable_gradient_checkpointing):
        enable()
        branch.zero_grad()
        output = branch(*inputs())
        sum(map(torch.sum, output.features), output.edge.sum()).backward()
        gradients.append([parameter.grad.clone() for parameter in branch.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("height", "width"), [(8, 24), (13, 7), (16, 9)])
@pytest.mark.parametrize("block", ["attention", "residual"])
@torch.no_grad()
def test_any_latent_size_works(
    unet: UNet2DConditionModel,
    branch_factory: Callable[..., InpaintBranch],
    block: str,
    height: int,
    width: int,
) -> None:
    output = branch_factory(unet, block=block)(*inputs(height=height, width=width))
    assert output.features[0].shape[-2:] == output.edge.shape[-2:] == (height, width)


@pytest.mark.parametrize("options", KINDS)
@torch.no_grad()
def test_a_batch_equals_its_members(
    unet: UNet2DConditionModel, branch_factory: Callable[..., InpaintBranch], options: dict[str, str]
) -> None:
    branch = branch_factory(unet, **options)
    sample, timestep = inputs(batch=3)
    together = branch(sample, timestep)
    alone = branch(sample[1:2], timestep[1:2])
    torch.testing.assert_close(together.edge[1:2], alone.edge, atol=1e-4, rtol=1e-4)
    for one, other in zip(together.features, alone.features, strict=True):
        torch.testing.assert_close(one[1:2], other, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_one_timestep_serves_the_whole_batch(branch: InpaintBranch) -> None:
    sample, _ = inputs()
    expected = branch(sample, torch.tensor([7, 7])).edge
    assert torch.equal(branch(sample, 7).edge, expected)
    assert torch.equal(branch(sample, torch.tensor(7)).edge, expected)


def test_without_an_edge_head_there_is_no_edge(unet: UNet2DConditionModel) -> None:
    assert InpaintBranch.from_unet(unet, edge_head=False)(*inputs()).edge is None


@pytest.fixture
def sdxl(unet_factory: Callable[..., UNet2DConditionModel]) -> UNet2DConditionModel:
    """A tiny backbone in the layout of SDXL."""
    return unet_factory(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(16, 32, 64),
        transformer_layers_per_block=(1, 2, 3),
        attention_head_dim=(2, 4, 8),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 12,
    )


@pytest.mark.parametrize("block", ["attention", "residual"])
@torch.no_grad()
def test_an_sdxl_branch_takes_the_added_embedding(
    sdxl: UNet2DConditionModel, branch_factory: Callable[..., InpaintBranch], tmp_path: Path, block: str
) -> None:
    branch = branch_factory(sdxl, block=block)
    branch.save_pretrained(tmp_path)
    branch = InpaintBranch.from_pretrained(tmp_path)
    added = {"text_embeds": torch.randn(2, 12), "time_ids": torch.randint(0, 1024, (2, 6))}
    output = branch(*inputs(), added_cond_kwargs=added)
    assert len(output.features) == branch.count == 9 + 1 + 11
    other = branch(*inputs(), added_cond_kwargs={**added, "text_embeds": torch.randn(2, 12)})
    assert not torch.allclose(output.edge, other.edge)


def test_an_sdxl_branch_asks_for_its_added_embedding(sdxl: UNet2DConditionModel) -> None:
    with pytest.raises(UserError, match="added_cond_kwargs must hold 'text_embeds' and 'time_ids'"):
        InpaintBranch.from_unet(sdxl)(*inputs(), added_cond_kwargs={"text_embeds": torch.zeros(2, 12)})


@torch.no_grad()
def test_a_backbone_of_the_small_world_s_layout(unet_factory: Callable[..., UNet2DConditionModel]) -> None:
    unet = unet_factory(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=(1, 2),
        attention_head_dim=4,
    )
    output = InpaintBranch.from_unet(unet)(*inputs())
    assert [feature.shape[1] for feature in output.features] == [16, 16, 16, 32, 32, 32, *[32] * 4, 16, 16]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("block", "atention", "did you mean 'attention'"),
        ("position", "rope", "position must be one of"),
        ("time_conditioning", "shift", "did you mean 'scale_shift'"),
        ("hole_fill", "white", "hole_fill must be one of"),
        ("in_channels", 8, r"in_channels must be 2 \* latent_channels \+ 1 = 9, got 8"),
        ("addition_embed_type", "image", "must be None or 'text_time'"),
        ("layers_per_block", (2, 2), "one number for each of 4 levels"),
        ("num_attention_heads", 7, "must divide the level's width 16"),
        ("norm_num_groups", 24, "must divide the level's width 16"),
    ],
)
def test_a_field_out_of_range_is_named(field: str, value: object, message: str) -> None:
    config = {"block_out_channels": (16, 32, 32, 32), "norm_num_groups": 8, "num_attention_heads": 4}
    with pytest.raises(UserError, match=message):
        InpaintBranch(**{**config, field: value})


def test_an_unknown_initialisation_is_named(unet: UNet2DConditionModel) -> None:
    with pytest.raises(UserError, match=r"initialise must be one of.*did you mean 'fresh'"):
        InpaintBranch.from_unet(unet, initialise="frsh")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"in_channels": 9}, "must take as many channels as it puts out.*9 in, 4 out"),
        ({"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift='default'"),
        ({"class_embed_type": "timestep"}, "class_embed_type=None"),
        ({"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, "SimpleCrossAttn"),
    ],
)
def test_a_backbone_that_no_branch_is_defined_for_is_refused(
    unet_factory: Callable[..., UNet2DConditionModel], overrides: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        InpaintBranch.from_unet(unet_factory(**overrides))


def test_a_backbone_whose_timestep_hears_the_text_gets_a_branch_that_does_not(
    unet_factory: Callable[..., UNet2DConditionModel],
) -> None:
    unet = unet_factory(addition_embed_type="text", addition_embed_type_num_heads=4)
    branch = InpaintBranch.from_unet(unet)
    assert branch.config.addition_embed_type is None
    check_fit(branch, unet)
    features = branch(torch.randn(1, 9, 16, 16), 10).features
    injection = BranchInjection(unet)
    with torch.no_grad(), injection.features(features):
        unet(torch.randn(1, 4, 16, 16), 10, encoder_hidden_states=torch.randn(1, 7, 16))
    injection.remove()
