"""The optimizer of the base model's inner layers."""

from __future__ import annotations

import muon
import pytest
import torch
from diffusers import UNet2DConditionModel


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (8, 8)])
def test_singular_values_come_near_one_and_directions_stay(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = muon.orthogonalised(matrix)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    values = torch.linalg.svdvals(result)
    assert ((values > 0.6) & (values < 1.3)).all()
    assert torch.linalg.norm(result - u @ v) < 0.35 * torch.linalg.norm(u @ v)
    assert s.max() / s.min() > values.max() / values.min()


def test_an_update_has_the_size_of_adamw_s():
    weight = torch.nn.Parameter(torch.zeros(16, 48))
    weight.grad = torch.randn(16, 48, generator=torch.Generator().manual_seed(0))
    muon.Muon([weight], lr=1.0).step()
    assert weight.detach().square().mean().sqrt() == pytest.approx(0.2, rel=0.2)


def test_a_quadratic_is_minimised():
    target = torch.randn(6, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    weight = torch.nn.Parameter(torch.zeros_like(target))
    optimizer = muon.Muon([weight], lr=0.1)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 300)
        optimizer.zero_grad()
        (weight - target).square().sum().backward()
        optimizer.step()
    assert (weight - target).square().mean() < 1e-3


def test_vectors_and_the_outermost_layers_are_left_to_another_optimizer():
    unet = UNet2DConditionModel(
        block_out_channels=(8, 8), norm_num_groups=4, cross_attention_dim=8, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), layers_per_block=1,
    )  # fmt: skip
    inner = muon.inner_matrices(unet)
    assert {id(unet.conv_in.weight), id(unet.conv_out.weight)}.isdisjoint(map(id, inner))
    assert min(parameter.ndim for parameter in inner) == 2
