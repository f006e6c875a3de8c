"""The demo's rows, sheet and page."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtadiffusion import UserError
from mtadiffusion.stickers import demo


class FakePipeline:
    """Fills holes with one grey, remembering what it was asked."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def set_progress_bar_config(self, **_: object) -> None:
        """As diffusers' pipelines."""

    def __call__(
        self, prompts: list[str], images: list[Image.Image], holes: list[np.ndarray], **options: Any
    ) -> SimpleNamespace:
        self.calls.append({"prompts": prompts, **options})
        return SimpleNamespace(images=[Image.new("RGB", image.size, (9, 9, 9)) for image in images])


@pytest.fixture(scope="module")
def problems() -> list[demo.HoleProblem]:
    return demo.demo_problems("validation", 6, seed=0, size=64)


@pytest.fixture
def rows(problems: list[demo.HoleProblem]) -> list[demo.DemoRow]:
    return demo.draw_rows(FakePipeline(), problems[:2], steps=2, guidances=(3.0, 4.0), seed=0)


def test_both_results_start_from_the_same_noise_in_every_batch(problems: list[demo.HoleProblem]) -> None:
    pipeline = FakePipeline()
    rows = demo.draw_rows(pipeline, problems, steps=2, guidances=(3.0, 4.0), seed=5)
    assert [row.problem.index for row in rows] == list(range(6))
    for alone, ours in zip(pipeline.calls[::2], pipeline.calls[1::2], strict=True):
        assert (alone["branch_scale"], alone["guidance_scale"]) == (0.0, 3.0)
        assert (ours["branch_scale"], ours["guidance_scale"]) == (1.0, 4.0)
        assert alone["prompts"] == ours["prompts"]
        for one, other in zip(alone["generator"], ours["generator"], strict=True):
            assert one is not other
            assert one.initial_seed() == other.initial_seed()


def test_the_input_hides_what_the_hole_covered(rows: list[demo.DemoRow]) -> None:
    row = rows[0]
    shown, original = np.asarray(row.pictures["input"]), np.asarray(row.pictures["original"])
    hole = row.problem.hole
    assert (shown[hole] == demo.HOLE_GREY).all()
    assert (shown[~hole] == original[~hole]).all()
    assert (np.asarray(row.pictures["hole"]) == 255 * hole[..., None]).all()


def test_page_is_self_contained_and_has_a_picture_a_column_and_row(rows: list[demo.DemoRow]) -> None:
    page = demo.demo_page(rows, "facts")
    assert len(re.findall(r'<img src="data:image/png;base64,', page)) == len(rows) * len(demo.COLUMNS)
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "prefers-color-scheme: dark" in page
    assert "image-rendering: pixelated" in page


def test_page_escapes_prompts(rows: list[demo.DemoRow]) -> None:
    problem = dataclasses.replace(rows[0].problem, prompt="<script>alert(1)</script>")
    page = demo.demo_page([dataclasses.replace(rows[0], problem=problem)], "<b>")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_sheet_enlarges_by_whole_pixels(rows: list[demo.DemoRow]) -> None:
    sheet = demo.contact_sheet(rows)
    tile = np.asarray(sheet)[demo._HEADING + demo._LINE :, demo._GAP :][: demo._TILE, : demo._TILE]
    factor = demo._TILE // 64
    assert (tile[::factor, ::factor] == np.asarray(rows[0].pictures["input"])).all()


def test_sheet_shortens_prompts_that_are_too_long(rows: list[demo.DemoRow]) -> None:
    problem = dataclasses.replace(rows[0].problem, prompt="a very long wish " * 100)
    long = demo.contact_sheet([dataclasses.replace(rows[0], problem=problem)])
    assert long.size == demo.contact_sheet(rows[:1]).size


def test_demo_is_written_whole(rows: list[demo.DemoRow], tmp_path: Path) -> None:
    written = demo.write_demo(rows, tmp_path / "new", "facts")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["index.html", "sheet.png"]
    assert Image.open(written.sheet).mode == "RGB"


def test_failing_write_leaves_no_partial_file(
    rows: list[demo.DemoRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(demo, "demo_page", lambda *_: "a page")
    monkeypatch.setattr(os, "fsync", broken)
    monkeypatch.setattr(demo, "save_png", lambda _, path: path)
    with pytest.raises(UserError, match=r"--out cannot be written \(Input/output error\)"):
        demo.write_demo(rows, tmp_path, "facts")
    assert not list(tmp_path.iterdir())
