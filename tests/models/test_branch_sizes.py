"""The branches of the real backbones, built without memory on the meta device: places and parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mtadiffusion.models import loading, single_file
from mtadiffusion.models.branch import InpaintBranch
from mtadiffusion.models.injection import injection_places

NETWORKS = {
    "sd15": {"unet": 859.5, "vae": 83.7, "text_encoder": 123.1},
    "sdxl": {"unet": 2567.5, "vae": 83.7, "text_encoder": 123.1, "text_encoder_2": 694.7},
}
"""Millions of parameters, as published."""


def millions(network: torch.nn.Module) -> float:
    return round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 1)


@pytest.fixture(scope="module")
def networks() -> dict[str, dict[str, Any]]:
    return {kind: loading.empty_components(single_file.shipped_layout(kind)) for kind in NETWORKS}


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_shipped_layouts_have_the_published_sizes(networks: dict[str, dict[str, Any]], kind: str) -> None:
    assert {name: millions(network) for name, network in networks[kind].items()} == NETWORKS[kind]


@pytest.mark.parametrize(
    ("kind", "block", "edge_head", "places", "size"),
    [
        ("sd15", "attention", True, 28, 556.6),
        ("sd15", "residual", True, 28, 618.8),
        ("sd15", "residual", False, 28, 618.8),
        ("sdxl", "attention", True, 21, 347.0),
        ("sdxl", "residual", False, 21, 373.3),
    ],
)
def test_the_branch_of_a_real_backbone(
    networks: dict[str, dict[str, Any]], kind: str, block: str, edge_head: bool, places: int, size: float
) -> None:
    unet = networks[kind]["unet"]
    branch = InpaintBranch.from_unet(unet, block=block, edge_head=edge_head, initialise="fresh")
    assert branch.count == len(injection_places(unet)) == places
    assert millions(branch) == size
