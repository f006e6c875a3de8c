"""The network of instances: masks drawn by dynamic convolutions, peaks as objects."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mtadiffusion.stickers.instances import STRIDE, InstanceMaps, InstanceNet

LABELS = ("apple", "car", "house")


@pytest.fixture(scope="module")
def network() -> InstanceNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return InstanceNet(labels=LABELS, side=32, widths=(4, 6, 8, 8), mask_width=4).eval()


def test_maps_have_a_cell_every_four_pixels_and_features_at_every_pixel(network):
    maps = network(torch.zeros(2, 3, 32, 32))
    assert maps.centres.shape == (2, 3, 8, 8)
    assert maps.features.shape == (2, 4, 32, 32)
    assert maps.drawers.shape == (2, (6 * 4 + 4) + (4 * 4 + 4) + (4 + 1), 8, 8)


def test_masks_equal_three_convolutions_with_the_cell_s_own_weights(network):
    maps = network(torch.rand(2, 3, 32, 32))
    cells = torch.tensor([[1, 2], [7, 0], [3, 3]])
    drawn = network.masks(maps, torch.tensor([0, 1, 1]), cells)
    for picture, (row, column), mask in zip([0, 1, 1], cells.tolist(), drawn, strict=True):
        line = torch.arange(32) + 0.5
        down = (line - (row + 0.5) * STRIDE)[:, None].expand(32, 32) / 16
        across = (line - (column + 0.5) * STRIDE)[None].expand(32, 32) / 16
        hidden = torch.cat([maps.features[picture], torch.stack([down, across])])[None]
        weights = maps.drawers[picture, :, row, column]
        for inner, outer in ((6, 4), (4, 4), (4, 1)):
            kernel, bias, weights = weights.split(
                [inner * outer, outer, len(weights) - inner * outer - outer]
            )
            hidden = F.conv2d(hidden, kernel.view(outer, inner, 1, 1), bias)
            hidden = F.relu(hidden) if outer > 1 else hidden
        torch.testing.assert_close(hidden[0, 0], mask, rtol=1e-4, atol=1e-5)


def test_an_object_is_a_peak_above_the_score_with_a_mask(network, monkeypatch):
    centres = torch.full((1, 3, 8, 8), -9.0)
    centres[0, 1, 2, 5], centres[0, 1, 2, 6], centres[0, 0, 6, 1] = 3.0, 2.0, 0.5
    drawers = torch.zeros(1, 53, 8, 8)
    drawers[:, -1] = 1.0  # the last bias: the whole picture is mask
    maps = InstanceMaps(centres, drawers, torch.zeros(1, 4, 32, 32))
    monkeypatch.setattr(InstanceNet, "forward", lambda self, pixels: maps)
    (found,) = network.find(torch.zeros(1, 3, 32, 32), 0.3)
    assert [one.label for one in found] == ["car", "apple"]
    assert found[0].score == pytest.approx(torch.sigmoid(torch.tensor(3.0)).item())
    assert found[0].quality == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item())
    assert found[0].mask((48, 20)).shape == (20, 48)
    (sure,) = network.find(torch.zeros(1, 3, 32, 32), 0.7)
    assert [one.label for one in sure] == ["car"]


def test_an_empty_picture_has_no_objects(network):
    assert network.find(torch.zeros(2, 3, 32, 32), 0.999) == [[], []]


def test_it_is_written_and_read_in_the_diffusers_layout(network, tmp_path):
    network.save_pretrained(tmp_path)
    again = InstanceNet.from_pretrained(tmp_path).eval()
    assert tuple(again.config.labels) == LABELS
    picture = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(again(picture).centres, network(picture).centres)
