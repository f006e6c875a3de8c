from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtadiffusion.inpaint.regions import Region, find_region, resize_picture, stitch, to_model


def box_hole(height: int, width: int, box_xyxy: tuple[int, int, int, int]) -> torch.Tensor:
    hole = torch.zeros(height, width, dtype=torch.bool)
    x0, y0, x1, y1 = box_xyxy
    hole[y0:y1, x0:x1] = True
    return hole


def noise(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("size", "hole_xyxy", "box_xyxy", "work_size"),
    [
        # At least the model's resolution, centred on a small hole.
        ((200, 300), (140, 90, 160, 110), (118, 68, 182, 132), (64, 64)),
        # Moved inside at the image's corner.
        ((200, 300), (0, 190, 10, 200), (0, 136, 64, 200), (64, 64)),
        # Half of a large hole's longest side as context on each side, scaled down.
        ((200, 300), (120, 80, 180, 100), (90, 30, 210, 150), (64, 64)),
        # The image's border ends the context; the pixel count stays about the model's.
        ((100, 300), (120, 20, 180, 80), (90, 0, 210, 100), (64, 64)),
        ((50, 200), (80, 10, 160, 40), (40, 0, 200, 50), (32, 112)),
        # A small image is taken whole and enlarged.
        ((24, 24), (4, 4, 10, 10), (0, 0, 24, 24), (64, 64)),
        ((64, 64), (0, 0, 64, 64), (0, 0, 64, 64), (64, 64)),
    ],
)
def test_the_rule_for_the_crop(
    size: tuple[int, int],
    hole_xyxy: tuple[int, int, int, int],
    box_xyxy: tuple[int, int, int, int],
    work_size: tuple[int, int],
) -> None:
    region = find_region(box_hole(*size, hole_xyxy), resolution=64, multiple=16)
    assert region == Region(box_xyxy=box_xyxy, work_size=work_size)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_the_crop_always_lies_in_the_image_and_holds_the_hole(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90))
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    region = find_region(box_hole(height, width, (x0, y0, x1, y1)), resolution=32, multiple=8)
    left, top, right, bottom = region.box_xyxy
    assert 0 <= left <= x0 < x1 <= right <= width
    assert 0 <= top <= y0 < y1 <= bottom <= height
    assert min(right - left, 32) == min(width, 32)
    assert all(side % 8 == 0 and side > 0 for side in region.work_size)


def test_stitching_what_the_model_saw_gives_the_picture_back_exactly() -> None:
    picture, hole = noise(100, 120), box_hole(100, 120, (40, 30, 60, 55))
    region = find_region(hole, resolution=64, multiple=16)
    seen = resize_picture(region.cut(picture), region.work_size)
    for blend in ("paste", "none"):
        assert torch.equal(stitch(picture, hole, seen, region, blend=blend, feather=0), picture)


def test_a_painted_pixel_comes_back_at_its_place() -> None:
    picture, hole = torch.zeros(3, 100, 120), box_hole(100, 120, (40, 30, 60, 55))
    region = find_region(hole, resolution=64, multiple=16)
    painted = torch.zeros(3, 64, 64)
    x, y = 47 - region.box_xyxy[0], 33 - region.box_xyxy[1]
    painted[:, y, x] = 1
    result = stitch(picture, hole, painted, region, blend="paste", feather=0)
    assert result.nonzero().tolist() == [[channel, 33, 47] for channel in range(3)]


@pytest.mark.parametrize("size", [(30, 26), (100, 120), (333, 251)])
def test_a_pattern_painted_by_position_is_not_shifted_by_scaling(size: tuple[int, int]) -> None:
    """A model that draws each pixel's own place must give each input pixel its place."""
    height, width = size
    hole = box_hole(height, width, (4, 5, width - 3, height - 6))
    region = find_region(hole, resolution=64, multiple=16)
    rows = ((torch.arange(region.work_size[0]) + 0.5) / region.work_size[0])[:, None]
    columns = ((torch.arange(region.work_size[1]) + 0.5) / region.work_size[1])[None]
    painted = torch.stack([t.expand(region.work_size) for t in (rows, columns, rows)])
    result = stitch(torch.zeros(3, *size), hole, painted, region, blend="none", feather=0)
    crop_height, crop_width = region.size
    own_rows = ((torch.arange(crop_height) + 0.5) / crop_height)[:, None].expand(region.size)
    own_columns = ((torch.arange(crop_width) + 0.5) / crop_width)[None].expand(region.size)
    inner = (slice(6, -6), slice(6, -6))
    found = region.cut(result)
    torch.testing.assert_close(found[0][inner], own_rows[inner], atol=2e-3, rtol=0)
    torch.testing.assert_close(found[1][inner], own_columns[inner], atol=2e-3, rtol=0)


@pytest.mark.parametrize("size", [(40, 50), (64, 64), (200, 180)])
def test_the_model_sees_nothing_of_the_holes_old_content(size: tuple[int, int]) -> None:
    hole = box_hole(*size, (10, 8, 31, 27))
    picture = noise(*size)
    other = torch.where(hole, 1 - picture, picture)
    region = find_region(hole, resolution=64, multiple=16)
    seen, covered = to_model(picture, hole, region)
    assert torch.equal(seen, to_model(other, hole, region)[0])
    assert seen.shape == (3, *region.work_size)
    assert covered.dtype == torch.bool
    assert covered.shape == region.work_size


def test_a_thin_hole_does_not_vanish_when_the_region_shrinks() -> None:
    hole = torch.zeros(400, 400, dtype=torch.bool)
    hole[20:380, 201] = True
    region = find_region(hole, resolution=64, multiple=16)
    _, covered = to_model(torch.zeros(3, 400, 400), hole, region)
    assert covered.any(dim=1).sum() >= 57


def test_a_region_at_the_models_size_is_seen_pixel_for_pixel() -> None:
    picture, hole = noise(64, 64), box_hole(64, 64, (20, 20, 40, 40))
    seen, covered = to_model(picture, hole, find_region(hole, resolution=64, multiple=16))
    assert torch.equal(covered, hole)
    assert torch.equal(seen[:, ~hole], picture[:, ~hole])


@pytest.mark.parametrize(("side", "pixels"), [(64, 2), (24, 0), (40, 1), (256, 8)])
def test_the_fade_is_two_of_the_models_pixels_wide(side: int, pixels: int) -> None:
    """Depth, from the hole's edge, of input pixels that are not yet the generated picture alone."""
    hole = box_hole(side, side, (side // 4, side // 4, side - 2, side - 2))
    region = find_region(hole, resolution=64, multiple=16)
    result = stitch(torch.zeros(3, side, side), hole, torch.ones(3, 64, 64), region, blend="paste", feather=2)
    row = result[0, side // 2, side // 4 : side // 2]
    assert int((row < 1 - 1e-6).sum()) == pixels
