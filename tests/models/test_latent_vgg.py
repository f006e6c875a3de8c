"""The latent VGG's constructions, taps and scale, and the Gram matrix."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mtadiffusion.errors import UserError
from mtadiffusion.models.latent_vgg import LatentToRGB, LatentVGG, gram_matrix

WIDTHS = ((6, 6), (8, 8))
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def rgb_weights(widths: tuple[tuple[int, ...], ...] = WIDTHS) -> dict[str, Tensor]:
    """A random RGB VGG in torchvision's key layout, with a classifier."""
    generator = torch.Generator().manual_seed(0)
    weights, channels, index = {}, 3, 0
    for stage in widths:
        for width in stage:
            weights[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3, generator=generator) / 5
            weights[f"features.{index}.bias"] = torch.randn(width, generator=generator)
            channels, index = width, index + 2
        index += 1
    weights["classifier.0.weight"] = torch.randn(10, channels, generator=generator)
    weights["classifier.0.bias"] = torch.randn(10, generator=generator)
    return weights


def rgb_map() -> LatentToRGB:
    generator = torch.Generator().manual_seed(1)
    return LatentToRGB(
        weight=torch.randn(3, 4, generator=generator) / 5, bias=torch.rand(3, generator=generator)
    )


def latents(batch: int = 2, height: int = 16, width: int = 16) -> Tensor:
    return torch.randn(batch, 4, height, width, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_the_default_is_the_16_layer_vgg_with_five_taps_on_latents() -> None:
    with torch.device("meta"):
        vgg = LatentVGG()
        features = vgg(torch.empty(1, 4, 64, 64))
    assert len(vgg.convolutions()) == 13
    assert [tuple(feature.shape[1:]) for feature in features] == [
        (64, 64, 64),
        (128, 64, 64),
        (256, 64, 64),
        (512, 64, 64),
        (512, 32, 32),
    ]


@torch.no_grad()
def test_folded_equals_the_rgb_vgg_on_the_mapped_latents_in_the_interior() -> None:
    weights, to_rgb = rgb_weights(), rgb_map()
    vgg = LatentVGG.from_rgb_vgg(
        weights, construction="folded", rgb_map=to_rgb, widths=WIDTHS, pools=(False,), taps=(1, 0)
    )
    image = (to_rgb(latents()) - MEAN[:, None, None]) / STD[:, None, None]
    expected = []
    for index in (0, 2, 5):
        image = F.relu(
            F.conv2d(image, weights[f"features.{index}.weight"], weights[f"features.{index}.bias"], padding=1)
        )
        expected.append(image)
    # Each 3x3 convolution lets the border, where the paddings differ, reach one place further.
    torch.testing.assert_close(vgg(latents())[0][..., 2:-2, 2:-2], expected[1][..., 2:-2, 2:-2])
    torch.testing.assert_close(vgg(latents())[1][..., 3:-3, 3:-3], expected[2][..., 3:-3, 3:-3])


@torch.no_grad()
def test_mean_repeats_the_mean_of_the_rgb_filters() -> None:
    weights = rgb_weights()
    vgg = LatentVGG.from_rgb_vgg(weights, construction="mean", in_channels=5, widths=WIDTHS, pools=(True,))
    first = vgg.convolutions()[0]
    for channel in range(5):
        torch.testing.assert_close(first.weight[:, channel], weights["features.0.weight"].mean(dim=1))
    assert torch.equal(first.bias, weights["features.0.bias"])
    assert torch.equal(vgg.convolutions()[3].weight, weights["features.7.weight"])


def test_the_fitted_map_finds_a_linear_one() -> None:
    to_rgb = rgb_map()
    images = F.interpolate(to_rgb(latents(4)), scale_factor=4, mode="nearest")
    found = LatentToRGB.fit(latents(4), images)
    torch.testing.assert_close(found.weight, to_rgb.weight, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.bias, to_rgb.bias, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_calibrated_the_features_have_unit_rms() -> None:
    vgg = LatentVGG.from_rgb_vgg(rgb_weights(), construction="mean", widths=WIDTHS, pools=(True,))
    before = [feature.square().mean().sqrt() for feature in vgg(latents(5))]
    found = vgg.calibrate(latents(5), batch_size=2)
    torch.testing.assert_close(found, torch.stack(before))
    for feature in vgg(latents(5)):
        torch.testing.assert_close(feature.square().mean().sqrt(), torch.tensor(1.0))
    torch.testing.assert_close(vgg.calibrate(latents(5)), found)


@torch.no_grad()
def test_saved_and_loaded_it_keeps_weights_taps_and_scale(tmp_path: Path) -> None:
    vgg = LatentVGG(widths=WIDTHS, pools=(True,), taps=(None, 1), num_classes=3)
    vgg.calibrate(latents())
    vgg.save_pretrained(tmp_path)
    again = LatentVGG.from_pretrained(tmp_path)
    for one, other in zip(vgg(latents()), again(latents()), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(vgg.classify(latents()), again.classify(latents()))


@torch.no_grad()
def test_taps_choose_the_relus() -> None:
    vgg = LatentVGG(widths=WIDTHS, pools=(True,), taps=(1, None))
    first, second = vgg.convolutions()[:2]
    (feature,) = vgg(latents())
    assert torch.equal(feature, F.relu(second(F.relu(first(latents())))))


def test_it_classifies_and_learns() -> None:
    vgg = LatentVGG(widths=WIDTHS, pools=(True,), num_classes=7)
    logits = vgg.classify(latents())
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in vgg.parameters())


def test_a_gradient_reaches_the_latents() -> None:
    given = latents().requires_grad_()
    sum(feature.sum() for feature in LatentVGG(widths=WIDTHS, pools=(True,))(given)).backward()
    assert given.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pools": ()}, "pools must be 1, one between two stages"),
        ({"taps": (0,)}, "taps must be 2, one a stage"),
        ({"taps": (2, 0)}, "taps must be below the stage's 2 convolutions, got 2"),
        ({"taps": (None, None)}, "taps must name at least one feature"),
    ],
)
def test_fields_that_do_not_fit_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LatentVGG(**{"widths": WIDTHS, "pools": (True,), **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"construction": "folded"}, r"rgb_map must be given.*LatentToRGB\.fit"),
        ({"construction": "meen"}, "did you mean 'mean'"),
        ({"construction": "mean", "widths": ((6, 6), (8, 9))}, r"must have the shape \(9, 8, 3, 3\)"),
        ({"construction": "mean", "widths": ((6, 6), (8, 8, 8))}, "must hold 5 convolutions, got 4"),
    ],
)
def test_weights_that_do_not_fit_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LatentVGG.from_rgb_vgg(rgb_weights(), **{"widths": WIDTHS, "pools": (True,), **options})


def test_without_a_classifier_it_does_not_classify() -> None:
    with pytest.raises(UserError, match="num_classes must be set"):
        LatentVGG(widths=WIDTHS, pools=(True,)).classify(latents())


def test_the_gram_matrix_is_the_naive_loop_s() -> None:
    features = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    gram = gram_matrix(features)
    assert gram.shape == (2, 3, 3)
    for sample in range(2):
        for row in range(3):
            for column in range(3):
                total = sum(
                    features[sample, row, y, x] * features[sample, column, y, x]
                    for y in range(4)
                    for x in range(5)
                )
                torch.testing.assert_close(gram[sample, row, column], total / (3 * 4 * 5))


@pytest.mark.parametrize(("normalisation", "factor"), [("hw", 3), ("none", 3 * 4 * 5)])
def test_the_gram_matrix_can_be_divided_by_less(normalisation: str, factor: int) -> None:
    features = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(gram_matrix(features, normalisation), factor * gram_matrix(features))


def test_the_gram_matrix_of_half_precision_features_does_not_overflow() -> None:
    gram = gram_matrix(torch.full((1, 2, 64, 64), 100.0, dtype=torch.float16))
    torch.testing.assert_close(gram, torch.full((1, 2, 2), 5000.0))
