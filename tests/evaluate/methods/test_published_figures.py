"""What others published: every row with its source, its protocol, and metrics by their names."""

from __future__ import annotations

import pytest

from mtadiffusion.evaluate.methods.published import (
    BRUSHNET_PAPER,
    MTADIFFUSION_PAPER,
    PublishedRow,
    published,
)
from mtadiffusion.evaluate.methods.registry import METHODS

METRICS = {
    "image_reward", "hps", "aesthetic", "psnr_brushnet", "mse_brushnet", "lpips_brushnet", "clip_similarity",
    "vqa_score",
}  # fmt: skip
ROWS = [*published("brushbench"), *published("editbench-brushnet")]


def row(benchmark: str, group: str, method: str, source: str, blended: bool | None) -> PublishedRow:
    wanted = (method, source, blended)
    rows = [one for one in published(benchmark, group) if (one.method, one.source, one.blended) == wanted]
    assert len(rows) == 1
    return rows[0]


def test_every_row_has_a_source_a_protocol_and_known_metrics() -> None:
    for one in ROWS:
        assert one.source
        assert one.protocol
        assert one.figures
        assert set(one.figures) <= METRICS
        assert one.method.partition(",")[0] in METHODS


def test_brushnets_blended_row_is_the_papers() -> None:
    one = row("brushbench", "inside", "brushnet", BRUSHNET_PAPER, True)
    assert one.figures == {
        "image_reward": 12.64, "hps": 27.78, "aesthetic": 6.51, "psnr_brushnet": 31.94, "mse_brushnet": 0.80,
        "lpips_brushnet": 18.67, "clip_similarity": 26.39,
    }  # fmt: skip


def test_mtadiffusions_figures_are_the_papers() -> None:
    one = row("brushbench", "inside", "mtadiffusion", MTADIFFUSION_PAPER, None)
    assert one.figures == {"image_reward": 12.69, "clip_similarity": 26.52, "vqa_score": 68.97}
    other = row("editbench-brushnet", "all", "mtadiffusion", MTADIFFUSION_PAPER, None)
    assert other.figures == {"image_reward": 4.82, "clip_similarity": 29.12}


@pytest.mark.parametrize(
    "name", ["hd-painter", "powerpaint", "controlnet-inpaint", "blended-latent", "sd-inpainting"]
)
def test_the_peers_stand_in_brushnets_table(name: str) -> None:
    rows = [one for one in published("brushbench", "inside") if one.source == BRUSHNET_PAPER]
    assert name in {one.method for one in rows}


def test_a_group_is_part_of_its_benchmark() -> None:
    groups = {one.group for one in published("brushbench")}
    assert groups == {"inside", "outside", "unknown"}
    parts = [one for group in sorted(groups) for one in published("brushbench", group)]
    assert sorted(map(id, parts)) == sorted(map(id, published("brushbench")))


def test_other_benchmarks_have_no_published_rows() -> None:
    assert published("object-holes") == ()


def test_no_row_stands_twice() -> None:
    keys = [(one.method, one.benchmark, one.group, one.source, one.blended) for one in ROWS]
    assert len(set(keys)) == len(keys)
