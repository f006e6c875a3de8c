"""FLOPs counted without weights, against counts by hand and what is known of Stable Diffusion 1.5."""

from __future__ import annotations

import pytest
import torch

from mtadiffusion.config import BranchConfig
from mtadiffusion.train.throughput import attainable_flops, peak_memory_gb, sample_flops

from .conftest import make_unet


@pytest.mark.parametrize("block", ["attention", "residual"])
def test_training_is_three_passes_of_the_branch_and_two_and_a_bit_of_the_backbone(block: str) -> None:
    counts = sample_flops(BranchConfig(block=block), make_unet(), 16)
    least = 3 * counts["branch"] + 2 * counts["unet"]
    assert 0.95 * least < counts["training"] < 1.1 * least


def test_flops_grow_at_least_with_the_area() -> None:
    small, large = (sample_flops(BranchConfig(), make_unet(), side)["unet"] for side in (8, 16))
    assert 3.5 * small < large < 16 * small


def test_a_device_has_a_speed_and_a_memory() -> None:
    assert attainable_flops("cpu", torch.float32) > 1e8
    assert 0.05 < peak_memory_gb(torch.device("cpu")) < 64
