"""The training step: gradients loss by loss, samples apart from their batch, nothing frozen learns."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from mtadiffusion.config import LossConfig, TrainConfig
from mtadiffusion.seeding import torch_generator
from mtadiffusion.train import trainer
from mtadiffusion.train.step import (
    LatentBatch,
    StepModels,
    backward_apart,
    draw_timesteps,
    offset_noise,
    training_step,
)


@pytest.fixture
def models(config: TrainConfig, tmp_path: Path) -> StepModels:
    source = trainer.record_source("shapes", "train", 0, 64)
    config = dataclasses.replace(config, loss=dataclasses.replace(config.loss, adversarial=0.5))
    models = trainer.TrainingRun(config, tmp_path, source, None).models
    models.critic.eval()  # else each forward pass moves its estimate of the spectral norms
    for index, conv in enumerate(models.branch.zero_convs()):
        generator = torch.Generator().manual_seed(index)
        conv.weight.data.copy_(0.05 * torch.randn(conv.weight.shape, generator=generator))
    return models


@pytest.fixture
def batch() -> LatentBatch:
    generator = torch.Generator().manual_seed(0)
    known = torch.ones(3, 1, 16, 16)
    known[:, :, 4:9, 5:12] = 0
    return LatentBatch(
        latents=torch.randn(3, 4, 16, 16, generator=generator),
        masked_latents=torch.randn(3, 4, 16, 16, generator=generator),
        known=known,
        edge=torch.rand(3, 1, 16, 16, generator=generator),
        text=torch.randn(3, 24, 16, generator=generator),
    )


def generators(count: int = 3, first: int = 0) -> list[torch.Generator]:
    return [torch_generator(0, "noise", first + number) for number in range(count)]


@pytest.mark.parametrize(("power", "late"), [(1.0, 0.4), (0.75, 0.494), (2.0, 0.225)])
def test_timesteps_are_a_uniform_number_to_a_power(power: float, late: float) -> None:
    drawn = draw_timesteps(1000, generators(4000), "cpu", power)
    assert 0 <= drawn.min() < 20
    assert 980 < drawn.max() < 1000
    assert (drawn >= 600).float().mean().item() == pytest.approx(late, abs=0.03)


def test_errors_in_the_hole_count_as_often_as_asked(models: StepModels, batch: LatentBatch) -> None:
    hole = 1 - batch.known[0].mean().item()
    losses, shares = {}, {}
    for weight in (1.0, 3.0, 100.0):
        config = LossConfig(delta=0.0, eta=0.0, hole_weight=weight)
        losses[weight] = training_step(models, batch, config, generators()).terms["noise"].item()
        shares[weight] = weight * hole / (weight * hole + 1 - hole)
    slope = (losses[100.0] - losses[1.0]) / (shares[100.0] - shares[1.0])
    assert abs(slope) > 1e-3
    assert losses[3.0] == pytest.approx(losses[1.0] + slope * (shares[3.0] - shares[1.0]), rel=1e-4)


def test_weighted_gradients_add_up_to_the_totals_gradient(models: StepModels, batch: LatentBatch) -> None:
    config = LossConfig(style_step=50)
    parameters = [p for p in models.branch.parameters() if p.requires_grad]
    others = list(models.vgg.parameters())
    norms = backward_apart(training_step(models, batch, config, generators()), parameters, others)
    apart = [None if p.grad is None else p.grad.clone() for p in (*parameters, *others)]
    models.branch.zero_grad()
    models.vgg.zero_grad()
    training_step(models, batch, config, generators()).total.backward()
    for one, parameter in zip(apart, (*parameters, *others), strict=True):
        torch.testing.assert_close(one, parameter.grad, rtol=1e-3, atol=1e-5)
    total = torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()
    assert norms["total"] == pytest.approx(total.item(), rel=1e-3)
    assert norms["total"] <= norms["noise"] + norms["style"] + norms["structure"] + 1e-6


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("noise", "gamma"),
        ("style", "delta"),
        ("structure", "eta"),
        ("perceptual", "perceptual"),
        ("adversarial", "adversarial"),
    ],
)
def test_logged_norm_is_that_of_the_loss_alone(
    models: StepModels, batch: LatentBatch, name: str, weight: str
) -> None:
    parameters = list(models.branch.parameters())
    joint = LossConfig(style_step=50, perceptual=0.5, adversarial=0.5)
    norms = backward_apart(training_step(models, batch, joint, generators()), parameters)
    alone = LossConfig(
        **{"gamma": 0.0, "delta": 0.0, "eta": 0.0, "style_step": 50, weight: getattr(joint, weight)}
    )
    models.branch.zero_grad()
    training_step(models, batch, alone, generators()).total.backward()
    expected = torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm().item()
    assert norms[name] == pytest.approx(expected, rel=1e-3)


def test_losses_of_a_batch_are_the_mean_of_its_members(models: StepModels, batch: LatentBatch) -> None:
    config = LossConfig(style_step=50)
    with torch.no_grad():
        whole = training_step(models, batch, config, generators()).terms
        members = []
        for b in range(3):
            one = LatentBatch(
                **{name: value[b : b + 1] for name, value in vars(batch).items() if value is not None}
            )
            members.append(training_step(models, one, config, generators(1, b)).terms)
    for name, value in whole.items():
        mean = torch.stack([member[name] for member in members]).mean()
        torch.testing.assert_close(value, mean, rtol=1e-3, atol=1e-7)


def test_a_longer_style_step_weighs_more(models: StepModels, batch: LatentBatch) -> None:
    with torch.no_grad():
        styles = [
            training_step(models, batch, LossConfig(style_step=step), generators()).terms["style"].item()
            for step in (1, 50, "x0")
        ]
    assert styles[0] < styles[1] < styles[2]


def test_regions_change_style_and_structure(models: StepModels, batch: LatentBatch) -> None:
    with torch.no_grad():
        whole = training_step(models, batch, LossConfig(style_step=50), generators()).terms
        config = LossConfig(style_step=50, style_region="hole", edge_region="hole", edge_reduction="mean")
        hole = training_step(models, batch, config, generators()).terms
    assert hole["style"] < whole["style"]
    assert hole["structure"] < whole["structure"]
    assert hole["noise"] == whole["noise"]


def test_fresh_style_noise_changes_the_style_alone(models: StepModels, batch: LatentBatch) -> None:
    with torch.no_grad():
        same, fresh, again = (
            training_step(
                models, batch, LossConfig(style_step=50, style_noise=style_noise), generators()
            ).terms
            for style_noise in ("same", "fresh", "fresh")
        )
    assert fresh["style"] != same["style"]
    assert fresh["style"] == again["style"]
    assert (fresh["noise"], fresh["structure"]) == (same["noise"], same["structure"])


def test_gram_normalisation_reaches_the_style_loss(models: StepModels, batch: LatentBatch) -> None:
    with torch.no_grad():
        styles = [
            training_step(models, batch, LossConfig(gram_normalisation=name), generators()).terms["style"]
            for name in ("chw", "hw", "none")
        ]
    assert styles[0] < styles[1] < styles[2]


def test_frozen_vgg_and_unet_take_no_gradient(models: StepModels, batch: LatentBatch) -> None:
    models.vgg.requires_grad_(False)
    training_step(models, batch, LossConfig(style_step=50), generators()).total.backward()
    assert all(parameter.grad is None for parameter in models.unet.parameters())
    assert all(parameter.grad is None for parameter in models.vgg.parameters())


def test_autocast_stays_near_full_precision(models: StepModels, batch: LatentBatch) -> None:
    with torch.no_grad():
        full = training_step(models, batch, LossConfig(), generators()).terms
        half = training_step(
            dataclasses.replace(models, autocast=True), batch, LossConfig(), generators()
        ).terms
    assert half["noise"].dtype == torch.float32
    torch.testing.assert_close(half["noise"], full["noise"], rtol=0.02, atol=0)


def test_offset_noise_shifts_each_channel_of_each_sample_alike() -> None:
    noise = torch.zeros(2, 3, 4, 4)
    generators = [torch_generator(0, "offset", number) for number in range(2)]
    shifted = offset_noise(noise, 0.5, generators)
    assert torch.equal(shifted, shifted[:, :, :1, :1].expand_as(shifted))
    assert len(shifted[:, :, 0, 0].unique()) == 6
    assert offset_noise(noise, 0.0, generators) is noise
