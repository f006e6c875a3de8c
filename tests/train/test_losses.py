"""Losses and their targets against computations that share no code with them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.training_utils import compute_snr

from mtadiffusion.errors import UserError
from mtadiffusion.models.latent_vgg import LatentVGG
from mtadiffusion.train.losses import (
    edge_target,
    noise_loss,
    perceptual_loss,
    previous_latents,
    reference_latents,
    sobel_edges,
    structure_loss,
    style_loss,
)
from mtadiffusion.train.noise_schedule import NoiseSchedule


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def schedule(prediction_type: str = "epsilon", zero_snr: bool = False) -> tuple[NoiseSchedule, DDIMScheduler]:
    scheduler = DDIMScheduler(
        prediction_type=prediction_type, beta_schedule="scaled_linear", clip_sample=False,
        rescale_betas_zero_snr=zero_snr,
    )  # fmt: skip
    return NoiseSchedule.from_scheduler(scheduler), scheduler


def naive_sobel(image: np.ndarray) -> np.ndarray:
    """(3, H, W) -> (H, W), pixel by pixel."""
    grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    height, width = grey.shape
    result = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            gx = gy = 0.0
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    value = grey[min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)]
                    gx += dx * (2 - abs(dy)) * value
                    gy += dy * (2 - abs(dx)) * value
            result[y, x] = math.hypot(gx, gy) / math.sqrt(20)
    return result


def test_sobel_edges_equal_a_loop_over_pixels() -> None:
    image = torch.rand(2, 3, 7, 9, generator=torch.Generator().manual_seed(1))
    edges = sobel_edges(image)
    assert edges.shape == (2, 1, 7, 9)
    for one, map_ in zip(image.double().numpy(), edges[:, 0].numpy(), strict=True):
        np.testing.assert_allclose(map_, naive_sobel(one), atol=1e-6)


def test_sobel_edges_reach_one_and_no_more() -> None:
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 9).view(-1, 1, 3, 3).expand(-1, 3, -1, -1)
    middles = sobel_edges(corners)[:, 0, 1, 1]
    assert middles.max() == pytest.approx(1.0, abs=1e-6)


def test_edge_target_is_the_area_mean() -> None:
    image = torch.rand(1, 3, 12, 8, generator=torch.Generator().manual_seed(2))
    full = sobel_edges(image)[0, 0].numpy()
    expected = full.reshape(3, 4, 2, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(edge_target(2 * image - 1, (3, 2))[0, 0].numpy(), expected, atol=1e-6)


def test_edge_target_can_keep_the_strongest_edge() -> None:
    image = torch.rand(1, 3, 12, 8, generator=torch.Generator().manual_seed(2))
    full = sobel_edges(image)[0, 0].numpy()
    expected = full.reshape(3, 4, 2, 4).max(axis=(1, 3))
    found = edge_target(2 * image - 1, (3, 2), downsampling="max")[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_unknown_edge_target_is_named() -> None:
    with pytest.raises(UserError, match=r"loss\.edge_target is unknown, got 'sobl'; did you mean 'sobel'"):
        edge_target(torch.zeros(1, 3, 8, 8), (2, 2), "sobl")


def test_structure_loss_is_the_batch_mean_of_squared_norms() -> None:
    prediction, target = random(3, 1, 4, 5), random(3, 1, 4, 5, seed=1)
    norms = [np.linalg.norm((p - t)[0].numpy()) ** 2 for p, t in zip(prediction, target, strict=True)]
    assert structure_loss(prediction, target).item() == pytest.approx(np.mean(norms), rel=1e-5)
    assert structure_loss(prediction, target, "mean").item() == pytest.approx(np.mean(norms) / 20, rel=1e-5)


def test_structure_loss_in_the_hole_counts_only_its_cells() -> None:
    prediction, target = random(2, 1, 4, 5), random(2, 1, 4, 5, seed=1)
    hole = torch.zeros(2, 1, 4, 5)
    hole[0, 0, 1, 2] = hole[1, 0, 0, 0] = hole[1, 0, 3, 4] = 1
    squares = (prediction - target)[hole.bool()].square()
    assert torch.isclose(structure_loss(prediction, target, "sum", hole), squares.sum() / 2)
    expected = (squares[0] + squares[1:].mean()) / 2
    assert torch.isclose(structure_loss(prediction, target, "mean", hole), expected)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("step", [1, 50])
def test_previous_latents_equal_the_ddim_scheduler(prediction_type: str, step: int) -> None:
    ours, scheduler = schedule(prediction_type)
    noisy, prediction = random(3, 4, 6, 6), random(3, 4, 6, 6, seed=1)
    timesteps = torch.tensor([999, 500, step - 1])  # the last one lands on the clean picture
    result = previous_latents(ours, noisy, prediction, timesteps, step)
    scheduler.set_timesteps(1000 // step)
    for b in range(3):
        expected = scheduler.step(prediction[b : b + 1], timesteps[b], noisy[b : b + 1]).prev_sample
        torch.testing.assert_close(result[b : b + 1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("step", [1, 50, "x0"])
def test_a_perfect_prediction_meets_the_reference(prediction_type: str, step: int | str) -> None:
    ours, scheduler = schedule(prediction_type)
    clean, noise, timesteps = random(2, 4, 6, 6), random(2, 4, 6, 6, seed=1), torch.tensor([700, 30])
    noisy = ours.add_noise(clean, noise, timesteps)
    torch.testing.assert_close(noisy, scheduler.add_noise(clean, noise, timesteps))
    perfect = ours.target(clean, noise, timesteps)
    if prediction_type == "v_prediction":
        torch.testing.assert_close(perfect, scheduler.get_velocity(clean, noise, timesteps))
    result = previous_latents(ours, noisy, perfect, timesteps, step)
    expected = reference_latents(ours, clean, noise, timesteps, step)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


def test_v_prediction_stays_finite_at_zero_signal() -> None:
    ours, _ = schedule("v_prediction", zero_snr=True)
    noisy, timesteps = random(1, 4, 6, 6), torch.tensor([999])
    assert previous_latents(ours, noisy, random(1, 4, 6, 6, seed=1), timesteps, "x0").isfinite().all()


@pytest.mark.parametrize("normalisation", ["chw", "hw", "none"])
def test_style_loss_equals_a_loop_over_layers_and_samples(normalisation: str) -> None:
    vgg = LatentVGG(in_channels=4, widths=((6,), (8,)), pools=(True,))
    latents, reference = random(3, 4, 8, 8), random(3, 4, 8, 8, seed=1)
    loss, features_rms = style_loss(vgg, latents, reference, gram_normalisation=normalisation)
    total = 0.0
    for alpha, beta in zip(vgg(latents), vgg(reference), strict=True):
        for one, other in zip(alpha.detach().double().numpy(), beta.detach().double().numpy(), strict=True):
            a, b = one.reshape(len(one), -1), other.reshape(len(other), -1)
            divisor = {"chw": a.size, "hw": a.shape[1], "none": 1}[normalisation]
            total += np.square((a @ a.T - b @ b.T) / divisor).sum()
    assert loss.item() == pytest.approx(total / (3 * 2), rel=1e-4)
    squares = [beta.square().mean().item() for beta in vgg(reference)]
    assert features_rms.item() == pytest.approx(math.sqrt(np.mean(squares)), rel=1e-5)


def test_style_loss_in_the_hole_has_no_gradient_at_known_cells() -> None:
    vgg = LatentVGG(in_channels=4, widths=((6,), (8,)), pools=(True,))
    latents, hole = random(1, 4, 8, 8).requires_grad_(), torch.zeros(1, 1, 8, 8)
    hole[:, :, 2:5, 3:6] = 1
    style_loss(vgg, latents, random(1, 4, 8, 8, seed=1), hole)[0].backward()
    changed = latents.grad.abs().sum(dim=1, keepdim=True) > 0
    assert changed.any()
    assert not (changed & (hole == 0)).any()


def test_perceptual_loss_equals_a_loop_over_layers_and_samples() -> None:
    vgg = LatentVGG(in_channels=4, widths=((6,), (8,)), pools=(True,))
    latents, reference = random(2, 4, 8, 8), random(2, 4, 8, 8, seed=1)
    hole = torch.zeros(2, 1, 8, 8)
    hole[0, :, 2:5, 3:6], hole[1, :, :, 4:] = 1, 1
    total = 0.0
    for sample, area in enumerate((9, 32)):
        composed = torch.where(hole[sample] > 0, latents[sample], reference[sample])
        for alpha, beta in zip(vgg(composed[None]), vgg(reference[sample][None]), strict=True):
            distance = alpha.detach().double().numpy() - beta.detach().double().numpy()
            total += np.square(distance).mean() * 64 / area
    loss = perceptual_loss(vgg, latents, reference, hole)
    assert loss.item() == pytest.approx(total / (2 * 2), rel=1e-4)


def test_perceptual_loss_without_a_hole_is_zero() -> None:
    vgg = LatentVGG(in_channels=4, widths=((6,), (8,)), pools=(True,))
    loss = perceptual_loss(vgg, random(2, 4, 8, 8), random(2, 4, 8, 8, seed=1), torch.zeros(2, 1, 8, 8))
    assert loss.item() == 0


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_weights_are_those_of_diffusers_training_scripts(kind: str) -> None:
    ours, theirs = schedule(kind)
    timesteps = torch.tensor([0, 3, 250, 600, 999])
    ratio = compute_snr(theirs, timesteps)
    expected = ratio.clamp(max=5.0) / (ratio if kind == "epsilon" else ratio + 1)
    torch.testing.assert_close(ours.min_snr_weights(timesteps, 5.0), expected)


def test_min_snr_weights_are_finite_at_zero_signal() -> None:
    ours, _ = schedule("v_prediction", zero_snr=True)
    assert ours.min_snr_weights(torch.tensor([999]), 5.0).isfinite().all()


def test_weighted_noise_loss_counts_each_sample_by_its_weight() -> None:
    a, b = random(2, 4, 3, 3), random(2, 4, 3, 3, seed=1)
    apart = [noise_loss(a[i : i + 1], b[i : i + 1]).item() for i in range(2)]
    weighted = noise_loss(a, b, torch.tensor([0.5, 3.0])).item()
    assert weighted == pytest.approx((0.5 * apart[0] + 3.0 * apart[1]) / 2, rel=1e-5)


def test_places_count_in_the_noise_loss_by_their_emphasis() -> None:
    a, b = random(2, 4, 3, 3), random(2, 4, 3, 3, seed=1)
    emphasis = torch.ones(2, 1, 3, 3)
    emphasis[0, 0, 1, 2] = emphasis[1, 0, :2] = 4
    squares = (a - b) ** 2
    expected = [(squares[i] * emphasis[i]).sum() / (4 * emphasis[i].sum()) for i in range(2)]
    assert noise_loss(a, b, emphasis=emphasis).item() == pytest.approx(sum(expected).item() / 2, rel=1e-5)
    weighted = noise_loss(a, b, torch.tensor([2.0, 0.0]), emphasis).item()
    assert weighted == pytest.approx(expected[0].item(), rel=1e-5)


def test_noise_loss_is_the_mean_squared_error() -> None:
    a, b = random(2, 4, 3, 3), random(2, 4, 3, 3, seed=1)
    assert noise_loss(a, b).item() == pytest.approx(np.mean((a - b).numpy() ** 2), rel=1e-5)
