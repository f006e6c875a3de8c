"""Gram matrices of two regions of one picture, and the VGG that sees it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.metrics import metric_named, style
from mtadiffusion.evaluate.metrics.style import gram_distance, load_vgg
from mtadiffusion.evaluate.metrics.surroundings import around
from mtadiffusion.models.latent_vgg import VGG16_WIDTHS
from mtadiffusion.seeding import torch_generator

from .samples import batch, box, picture, sample

THIN = tuple(tuple(width // 32 for width in stage) for stage in VGG16_WIDTHS)


@pytest.fixture
def vgg_folder(tmp_path, monkeypatch):
    """A thin VGG-16 under torchvision's names, with a head that has nothing to do with it."""
    monkeypatch.setattr(style, "VGG16_WIDTHS", THIN)
    monkeypatch.setattr(
        "mtadiffusion.models.latent_vgg.LatentVGG.from_rgb_vgg", _thin(style.LatentVGG.from_rgb_vgg)
    )
    generator, weights, channels, place = torch_generator(0, "tests/vgg"), {}, 3, 0
    for stage in THIN:
        for width in stage:
            weights[f"features.{place}.weight"] = torch.randn(width, channels, 3, 3, generator=generator)
            weights[f"features.{place}.bias"] = torch.randn(width, generator=generator)
            channels, place = width, place + 2
        place += 1
    weights["pre_logits.fc1.weight"] = torch.randn(4, channels, 7, 7, generator=generator)
    save_file(weights, tmp_path / "model.safetensors")
    return tmp_path, weights


def _thin(build):
    return lambda *arguments, **options: build(*arguments, **options, widths=THIN)


def relus(weights, picture):
    """relu1_1, relu2_1, ... of a uint8 (H, W, 3) picture, in plain torch."""
    mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((torch.tensor(picture) / 255 - mean) / spread).permute(2, 0, 1)[None].float()
    found, place = [], 0
    for stage in THIN:
        for number in range(len(stage)):
            x = F.relu(
                F.conv2d(x, weights[f"features.{place}.weight"], weights[f"features.{place}.bias"], padding=1)
            )
            place += 2
            if number == 0:
                found.append(x[0])
        x, place = F.max_pool2d(x, 2), place + 1
    return found


def test_the_vgg_is_torchvisions(vgg_folder):
    folder, weights = vgg_folder
    mean, spread = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = torch.from_numpy((picture(0) / 255 - mean) / spread).permute(2, 0, 1)[None].float()
    for found, expected in zip(
        load_vgg(folder / "model.safetensors")(pixels), relus(weights, picture(0)), strict=True
    ):
        torch.testing.assert_close(found[0], expected, rtol=1e-3, atol=1e-3)


def test_style_gram_is_the_relative_distance_of_the_regions_gram_matrices(vgg_folder):
    folder, weights = vgg_folder
    metric = metric_named("style_gram", weights=str(folder))
    metric.setup("cpu")
    one = sample()
    expected = []
    for feature in relus(weights, one.result):
        inside, outside = (
            F.adaptive_avg_pool2d(torch.from_numpy(region).float()[None], feature.shape[1:])[0] > 0.5
            for region in (one.hole, around(one.hole))
        )
        if min(inside.sum(), outside.sum()) >= 4:
            grams = [np.cov(feature[:, r].numpy(), bias=True) for r in (inside, outside)]
            means = [feature[:, r].mean(1).numpy() for r in (inside, outside)]
            a, b = (gram + np.outer(mean, mean) for gram, mean in zip(grams, means, strict=True))
            expected.append(np.linalg.norm(a - b) / np.hypot(np.linalg.norm(a), np.linalg.norm(b)))
    assert len(expected) >= 3
    assert metric.score(batch(one)) == [pytest.approx(np.mean(expected), rel=1e-3)]


def test_weights_of_something_else_are_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="must hold VGG-16's weights"):
        metric_named("style_gram", weights=str(tmp_path)).setup("cpu")


def test_features_that_share_nothing_are_at_one_and_equal_ones_at_zero():
    hole = torch.from_numpy(box())
    apart = torch.stack([hole.float(), (~hole).float()])
    assert gram_distance([apart], box()) == pytest.approx(1)
    assert gram_distance([torch.ones(2, 48, 64)], box()) == pytest.approx(0)
    assert gram_distance([torch.zeros(2, 48, 64)], box()) == 0


@settings(max_examples=20)
@given(seed=st.integers(0, 999), scale=st.floats(0.1, 10))
def test_the_distance_is_in_its_bounds_and_does_not_depend_on_the_features_scale(seed, scale):
    features = torch.randn(3, 12, 16, generator=torch_generator(seed, "tests/gram"))
    distance = gram_distance([features], box())
    assert 0 <= distance <= 1
    assert gram_distance([scale * features], box()) == pytest.approx(distance, rel=1e-4)


def test_without_an_inside_or_an_outside_there_is_no_distance():
    features = [torch.ones(2, 48, 64)]
    assert gram_distance(features, np.zeros((48, 64), bool)) is None
    assert gram_distance(features, np.ones((48, 64), bool)) is None
