"""The tool that made StickerBench's lists."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import sticker_bench
from PIL import Image

from mtadiffusion.stickers.assets import STYLES
from mtadiffusion.stickers.bench import HOLES, read_list


@pytest.fixture(scope="module")
def made() -> list:
    return sticker_bench.made_list("test", 4)


def test_a_list_fills_its_cells_in_order(made: list) -> None:
    assert [(entry.style, entry.hole, entry.held_out) for entry in made] == [
        sticker_bench.cell(number) for number in range(4)
    ]
    assert sticker_bench.made_list("test", 4) == made


def test_cells_have_every_style_with_every_hole_and_a_quarter_held_out() -> None:
    cells = [sticker_bench.cell(number) for number in range(48)]
    assert len({cell[:2] for cell in cells[:12]}) == len(STYLES) * len(HOLES)
    assert sum(held_out for _, _, held_out in cells) == 12


def test_what_is_drawn_otherwise_is_named(made: list) -> None:
    wrong = dataclasses.replace(made[1], checksum="ff" * 64)
    assert sticker_bench.changed([made[0], wrong]) == [wrong.item_id]


def test_the_sheet_shows_every_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sheet.png"
    monkeypatch.setattr("sys.argv", ["sticker_bench.py", "--sheet", str(path), "--items", "5"])
    sticker_bench.main()
    with Image.open(path) as sheet:
        assert sheet.size[1] > 2 * 128
        assert len(set(sheet.resize((64, 64)).get_flattened_data())) > 100


def test_writing_a_list_makes_lines_that_are_read_back(
    tmp_path: Path, made: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bench-test.jsonl"
    monkeypatch.setattr(sticker_bench, "made_list", lambda _split: made)
    monkeypatch.setattr(sticker_bench, "list_path", lambda _split: path)
    monkeypatch.setattr("mtadiffusion.stickers.bench.list_path", lambda _split: path)
    sticker_bench.write_list("test")
    assert read_list("test") == made
