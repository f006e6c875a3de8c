"""Features inside a stock UNet: nothing before, the sum within, nothing after."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from mtadiffusion.errors import UserError
from mtadiffusion.models.branch import InpaintBranch
from mtadiffusion.models.injection import BranchInjection, add_repeated, check_fit

KINDS = [{"block": "attention"}, {"block": "residual"}]


def call(unet: UNet2DConditionModel, batch: int = 2, size: tuple[int, int] = (16, 16)) -> Tensor:
    """The backbone on fixed noise; sample i of the batch has its own text."""
    generator = torch.Generator().manual_seed(3)
    text = torch.randn(batch, 5, 16, generator=generator)
    return unet(noise(batch, size), torch.arange(batch) % 2 * 400 + 99, encoder_hidden_states=text).sample


def noise(batch: int = 2, size: tuple[int, int] = (16, 16)) -> Tensor:
    """(batch, 4, h, w), the second half like the first, as in classifier-free guidance."""
    half = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(4))
    return half.repeat(max(batch // 2, 1), 1, 1, 1)[:batch]


def features_of(branch: InpaintBranch, size: tuple[int, int] = (16, 16)) -> tuple[Tensor, ...]:
    masked = torch.randn(2, 5, *size, generator=torch.Generator().manual_seed(6))
    sample = torch.cat([noise(size=size), masked], dim=1)
    return branch(sample, torch.tensor([99, 499])).features


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("size", [(16, 16), (8, 24), (13, 10)])
@torch.no_grad()
def test_untrained_the_whole_equals_the_backbone_bit_for_bit(
    unet: UNet2DConditionModel, options: dict[str, str], size: tuple[int, int]
) -> None:
    alone = call(unet, size=size)
    injection = BranchInjection(unet)
    assert injection.count == 28
    with injection.features(features_of(InpaintBranch.from_unet(unet, **options), size)):
        assert torch.equal(call(unet, size=size), alone)


@torch.no_grad()
def test_outside_of_the_block_and_after_removal_the_backbone_is_stock(
    unet: UNet2DConditionModel, branch: InpaintBranch
) -> None:
    alone, keys = call(unet), list(unet.state_dict())
    injection = BranchInjection(unet)
    assert torch.equal(call(unet), alone)
    with injection.features(features_of(branch)):
        assert not torch.allclose(call(unet), alone, atol=1e-3)
    assert torch.equal(call(unet), alone)
    assert list(unet.state_dict()) == keys
    assert type(unet) is UNet2DConditionModel
    injection.remove()
    injection.remove()
    with injection.features(features_of(branch)):
        assert torch.equal(call(unet), alone)


@torch.no_grad()
def test_every_place_has_an_effect(unet: UNet2DConditionModel, branch: InpaintBranch) -> None:
    injection = BranchInjection(unet)
    features = features_of(branch)
    alone = call(unet)
    for place in range(injection.count):
        only = [f if i == place else torch.zeros_like(f) for i, f in enumerate(features)]
        with injection.features(only):
            assert not torch.equal(call(unet), alone), place


@torch.no_grad()
def test_the_block_closes_on_an_error_too(unet: UNet2DConditionModel, branch: InpaintBranch) -> None:
    alone = call(unet)
    injection = BranchInjection(unet)
    with pytest.raises(KeyError), injection.features(features_of(branch)):
        raise KeyError
    assert torch.equal(call(unet), alone)


@torch.no_grad()
def test_scale_zero_is_the_backbone_and_the_scale_multiplies_the_features(
    unet: UNet2DConditionModel, branch: InpaintBranch
) -> None:
    alone = call(unet)
    injection, features = BranchInjection(unet), features_of(branch)
    with injection.features(features, scale=0.0):
        assert torch.equal(call(unet), alone)
    with injection.features(features, scale=0.5):
        halved = call(unet)
    with injection.features([0.5 * feature for feature in features]):
        torch.testing.assert_close(call(unet), halved)


@pytest.mark.parametrize("times", [2, 3])
@torch.no_grad()
def test_features_serve_a_batch_k_times_as_large(
    unet: UNet2DConditionModel, branch: InpaintBranch, times: int
) -> None:
    injection, features = BranchInjection(unet), features_of(branch)
    with injection.features(features):
        broadcast = call(unet, batch=2 * times)
    with injection.features([feature.repeat(times, 1, 1, 1) for feature in features]):
        torch.testing.assert_close(call(unet, batch=2 * times), broadcast)


def test_repeats_lie_behind_each_other() -> None:
    hidden, feature = torch.zeros(4, 1, 1, 1), torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)
    assert add_repeated(hidden, feature, 10.0).flatten().tolist() == [10, 20, 10, 20]


def test_features_take_the_backbones_dtype() -> None:
    assert (
        add_repeated(torch.zeros(2, 1, 1, 1, dtype=torch.float16), torch.ones(1, 1, 1, 1)).dtype == torch.half
    )


def test_a_batch_that_is_no_multiple_is_refused() -> None:
    with pytest.raises(UserError, match="the backbone's batch must be a multiple of 2, got 3"):
        add_repeated(torch.zeros(3, 1, 1, 1), torch.zeros(2, 1, 1, 1))


def test_another_number_of_features_is_refused(unet: UNet2DConditionModel) -> None:
    with (
        pytest.raises(UserError, match=r"features must be 28 tensors.*got 3"),
        BranchInjection(unet).features([torch.zeros(1)] * 3),
    ):
        pass


def gradients(branch: InpaintBranch, loss: Tensor) -> list[Tensor]:
    branch.zero_grad()
    loss.backward()
    return [
        p.grad.clone() for n, p in branch.named_parameters() if "proj_out" not in n or "3.layers.2" not in n
    ]


def test_gradients_flow_through_the_frozen_backbone(
    unet: UNet2DConditionModel, branch: InpaintBranch
) -> None:
    injection = BranchInjection(unet)
    with injection.features(features_of(branch)):
        found = gradients(branch, call(unet).square().mean())
    assert all(gradient.abs().sum() > 0 for gradient in found)
    assert all(parameter.grad is None for parameter in unet.parameters())


@pytest.mark.parametrize("plain", [False, True])
def test_checkpointing_the_backbone_changes_no_gradient(
    unet_factory: Callable[..., UNet2DConditionModel],
    branch_factory: Callable[..., InpaintBranch],
    plain: bool,
) -> None:
    unet = (
        unet_factory(down_block_types=("DownBlock2D",) * 4, up_block_types=("UpBlock2D",) * 4)
        if plain
        else (unet_factory())
    )
    branch = branch_factory(unet)
    injection = BranchInjection(unet)
    found = []
    for enable in (unet.disable_gradient_checkpointing, unet.enable_gradient_checkpointing):
        enable()
        with injection.features(features_of(branch)):
            loss = call(unet).square().mean()
        # The backward pass runs after the block is closed, the checkpointed layers a second time with it.
        found.append(gradients(branch, loss))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)
    assert len(injection._pending) == 0


def test_two_checkpointed_passes_before_one_backward_keep_their_own_features(
    unet: UNet2DConditionModel, branch: InpaintBranch
) -> None:
    injection = BranchInjection(unet)
    found = []
    for enable in (unet.disable_gradient_checkpointing, unet.enable_gradient_checkpointing):
        enable()
        loss = torch.zeros(())
        for scale in (1.0, 0.3):
            with injection.features(features_of(branch), scale):
                loss = loss + call(unet).square().mean()
        found.append(gradients(branch, loss))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"block_out_channels": (16, 32, 32, 64)}, r"widths \(16, 32, 32, 64\), got \(16, 32, 32, 32\)"),
        ({"layers_per_block": 1}, r"layers a level \(1, 1, 1, 1\), got \(2, 2, 2, 2\)"),
        ({"in_channels": 8, "out_channels": 8}, "latent channels 8, got 4"),
    ],
)
def test_a_branch_for_another_backbone_is_refused_with_both_sides_named(
    branch: InpaintBranch,
    unet_factory: Callable[..., UNet2DConditionModel],
    overrides: dict[str, object],
    message: str,
) -> None:
    with pytest.raises(UserError, match=rf"branch must have the backbone's {message}.*from_unet"):
        check_fit(branch, unet_factory(**overrides))


def test_a_branch_fits_the_backbone_that_it_was_made_for(
    branch: InpaintBranch, unet: UNet2DConditionModel
) -> None:
    check_fit(branch, unet)


def test_a_branch_for_other_pooled_texts_or_sizes_is_refused(
    sdxl_unet_factory: Callable[..., UNet2DConditionModel],
) -> None:
    branch = InpaintBranch.from_unet(sdxl_unet_factory())
    check_fit(branch, sdxl_unet_factory())
    wider = sdxl_unet_factory(projection_class_embeddings_input_dim=20 + 6 * 8)
    with pytest.raises(UserError, match="backbone's width of pooled text and sizes 68, got 60"):
        check_fit(branch, wider)
    coarser = sdxl_unet_factory(addition_time_embed_dim=4)
    with pytest.raises(UserError, match="backbone's width of an embedded size 4, got 8"):
        check_fit(branch, coarser)
