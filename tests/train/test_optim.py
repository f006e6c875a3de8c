"""Schedules, groups, clipping and the moving average."""

from __future__ import annotations

import itertools

import pytest
import torch

from mtadiffusion.config import OptimConfig
from mtadiffusion.train.optim import (
    MovingAverage,
    build_optimizer,
    clip_gradients,
    lr_factor,
    set_learning_rate,
)


def test_warm_up_rises_to_one_and_stays() -> None:
    config = OptimConfig(warmup=4)
    factors = [lr_factor(step, 100, config) for step in range(100)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert set(factors[4:]) == {1.0}


def test_constant_rate_decays_over_its_last_share() -> None:
    config = OptimConfig(warmup=0, decay_share=0.2, final=0.1)
    assert lr_factor(80, 100, config) == 1.0
    assert lr_factor(90, 100, config) == pytest.approx(0.55)
    assert lr_factor(100, 100, config) == pytest.approx(0.1)


def test_cosine_falls_to_its_end() -> None:
    config = OptimConfig(warmup=10, schedule="cosine", final=0.1)
    factors = [lr_factor(step, 110, config) for step in range(9, 110)]
    assert factors[0] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(factors))
    assert lr_factor(60, 110, config) == pytest.approx(0.55)
    assert lr_factor(110, 110, config) == pytest.approx(0.1)


def test_each_network_has_its_own_rate() -> None:
    branch, vgg = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    vgg.bias.requires_grad_(False)
    optimizer = build_optimizer(OptimConfig(lr=1e-3), branch, vgg, 1e-7)
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [5e-4, 5e-8]
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 1]
    vgg.requires_grad_(False)
    assert len(build_optimizer(OptimConfig(), branch, vgg, 1e-7).param_groups) == 1


def test_one_networks_gradient_does_not_clip_the_others() -> None:
    small, large = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2))
    small.grad, large.grad = torch.tensor([0.3, 0.4]), torch.tensor([30.0, 40.0])
    clip_gradients([[small], [large]], 1.0)
    torch.testing.assert_close(small.grad, torch.tensor([0.3, 0.4]))
    torch.testing.assert_close(large.grad, torch.tensor([0.6, 0.8]), rtol=1e-4, atol=1e-4)


def test_moving_average_follows_its_formula() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(0.0)
    ema = MovingAverage(layer, 0.9)
    layer.weight.data.fill_(1.0)
    ema.update(layer, 0)
    assert ema.weights["weight"].item() == pytest.approx(0.9)  # (1 + 0) / (10 + 0) kept
    ema.update(layer, 10**6)
    assert ema.weights["weight"].item() == pytest.approx(0.91)
    assert ema.gathered()["weight"].item() == pytest.approx(0.91)
