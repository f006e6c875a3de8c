"""EditBench, from a small folder of the published form."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.benchmarks import benchmark

SIDE = 128
"""The published pictures have 1024; nothing depends on it."""

COLUMNS = ("", "aos", "prompt_full", "prompt_mask-simple", "prompt_mask-rich", "object")
AOS = {"natural": ("7", "12"), "generated": ("7", "count common indoor")}


def rows(kind: str) -> list[dict[str, str]]:
    return [
        {
            "": str(n),
            "aos": aos,
            "prompt_full": f"a red cat, on a mat ({kind} {aos})",
            "prompt_mask-simple": "a red cat",
            "prompt_mask-rich": 'a small, red, "fluffy" cat',
            "object": "cat" if n else "",
        }
        for n, aos in enumerate(AOS[kind])
    ]


def write_csv(
    folder: Path, kind: str, lines: list[dict[str, str]], columns: tuple[str, ...] = COLUMNS
) -> None:
    with (folder / f"annotations_{kind}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(lines)


def stroke(left: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[10:50, left : left + 30] = True
    return mask


@pytest.fixture(scope="session")
def _drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("EditBench")
    for number, kind in enumerate(AOS):
        write_csv(folder, kind, rows(kind))
        for part in ("references", "masks"):
            (folder / f"{part}_{kind}").mkdir()
        for n, aos in enumerate(AOS[kind]):
            Image.new("RGB", (SIDE, SIDE), (50 * n, 90, 100 * number)).save(
                folder / f"references_{kind}/{aos}.png"
            )
            mask = Image.fromarray(stroke(20 * n + 10 * number).astype(np.uint8) * 255)
            mask.convert("RGB").save(folder / f"masks_{kind}/{aos}.png")
    return folder


@pytest.fixture
def folder(_drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_drawn, tmp_path / "EditBench"))


def said(folder: Path, **options: object) -> str:
    with pytest.raises(UserError) as error:
        benchmark("editbench", folder, **options).items()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_picture_gives_an_item_for_each_of_its_prompts(folder: Path) -> None:
    items = benchmark("editbench", folder).items()
    assert [item.item_id for item in items] == [
        f"{name}-{group}"
        for name in ("natural-7", "natural-12", "generated-7", "generated-count-common-indoor")
        for group in ("full", "simple", "rich")
    ]
    assert items[0].prompt == "a red cat, on a mat (natural 7)"
    assert items[5].prompt == 'a small, red, "fluffy" cat'
    assert items[5].group == "rich"
    assert dict(items[5].facts) == {"aos": "12", "object": "cat", "kind": "natural"}
    assert dict(items[0].facts) == {"aos": "7", "kind": "natural"}


def test_white_is_the_hole_and_the_picture_is_its_own(folder: Path) -> None:
    bench = benchmark("editbench", folder, groups="rich")
    for item, left, colour in zip(
        bench.items(), (0, 20, 10, 30), ((0, 0), (50, 0), (0, 100), (50, 100)), strict=True
    ):
        expected = stroke(left).repeat(512 // SIDE, axis=0).repeat(512 // SIDE, axis=1)
        np.testing.assert_array_equal(bench.hole(item), expected)
        picture = bench.picture(item)
        assert (picture.shape, picture.dtype) == ((512, 512, 3), np.uint8)
        assert (picture == (colour[0], 90, colour[1])).all()


def test_a_thin_stroke_of_a_large_mask_does_not_vanish(folder: Path) -> None:
    mask = np.zeros((1024, 1024), dtype=np.uint8)
    mask[301, 100:900] = 255
    Image.fromarray(mask).save(folder / "masks_natural/7.png")
    Image.new("RGB", (1024, 1024)).save(folder / "references_natural/7.png")
    bench = benchmark("editbench", folder)
    hole = bench.hole(bench.items()[0])
    assert hole[150, 50:450].all()
    assert hole.sum() == 400


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA"])
def test_masks_of_every_mode_mean_the_same(folder: Path, mode: str) -> None:
    path = folder / "masks_natural/7.png"
    Image.open(path).convert(mode).save(path)
    bench = benchmark("editbench", folder)
    assert bench.hole(bench.items()[0]).mean() == pytest.approx(stroke(0).mean())


def test_missing_lists_and_folders_are_named(folder: Path, tmp_path: Path) -> None:
    assert "--path must be the folder of EditBench" in said(tmp_path / "none")
    (folder / "annotations_generated.csv").unlink()
    assert "must hold annotations_generated.csv, as EditBench does" in said(folder)


def test_missing_pictures_and_masks_are_counted_and_may_be_left_out(folder: Path) -> None:
    (folder / "masks_natural/7.png").unlink()
    (folder / "references_generated/7.png").unlink()
    message = said(folder)
    assert "2 of 8 are missing" in message
    assert "download masks_natural/7.png, references_generated/7.png, or" in message
    bench = benchmark("editbench", folder, allow_missing=True, groups="simple")
    assert [item.item_id for item in bench.items()] == [
        "natural-12-simple",
        "generated-count-common-indoor-simple",
    ]
    assert len(bench.missing) == 2  # type: ignore[attr-defined]


def test_missing_columns_are_named(folder: Path) -> None:
    write_csv(folder, "natural", rows("natural"), ("aos", "prompt_full", "object"))
    message = said(folder)
    assert "annotations_natural.csv must have the columns aos, prompt_full, prompt_mask-simple" in message
    assert message.endswith("missing: prompt_mask-simple, prompt_mask-rich")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("aos", "7", "aos 7: must not stand twice"),
        ("aos", "", "must have a text 'aos'; the cell is empty"),
        ("aos", "../../7", "must name a picture by a path inside the benchmark's folder"),
        ("aos", "x" * 200, "must have an id of letters"),
        ("prompt_mask-rich", " ", "aos 12: must have a text 'prompt_mask-rich'; the cell is empty"),
    ],
)
def test_a_wrong_row_is_named_with_its_file(folder: Path, field: str, value: str, message: str) -> None:
    lines = rows("natural")
    lines[1][field] = value
    write_csv(folder, "natural", lines)
    line = said(folder)
    assert "annotations_natural.csv" in line
    assert message in line


def test_rows_that_are_no_rows_are_named(folder: Path) -> None:
    path = folder / "annotations_natural.csv"
    text = path.read_text()
    path.write_text(text + "3,99,too,many,cells,in,this,row\n")
    assert "line 4: must have 6 cells like the header, got 8" in said(folder)
    path.write_text(text.splitlines()[0] + "\n")
    assert "annotations_natural.csv has no rows" in said(folder)
    path.write_text("")
    assert "must have the columns" in said(folder)
    path.write_text(text + '4,"5')
    assert "is not CSV (line" in said(folder)


def test_a_byte_order_mark_is_no_matter_and_another_encoding_is_named(folder: Path) -> None:
    path = folder / "annotations_natural.csv"
    text = path.read_text().removeprefix(",").replace("\n0,", "\n").replace("\n1,", "\n")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert len(benchmark("editbench", folder).items()) == 12
    path.write_bytes(text.replace("a mat", "a mât").encode("latin-1"))
    assert "annotations_natural.csv must be UTF-8" in said(folder)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((SIDE, SIDE)), "masks_natural/7.png has no hole"),
        (np.ones((SIDE, SIDE)), "must leave a part of the picture"),
        (np.ones((SIDE, SIDE // 2)), "must have a picture of 64x128 like its mask, got '7.png of 128x128'"),
        (np.ones((SIDE // 2, SIDE // 2)), "must have a picture of 64x64 like its mask"),
    ],
)
def test_a_mask_that_does_not_fit_is_named(folder: Path, mask: np.ndarray, message: str) -> None:
    Image.fromarray((mask * 255).astype(np.uint8)).save(folder / "masks_natural/7.png")
    line = said(folder)
    assert "annotations_natural.csv aos 7:" in line
    assert message in line


def test_pictures_that_are_not_square_are_refused_instead_of_stretched(folder: Path) -> None:
    for part in ("references", "masks"):
        path = folder / f"{part}_natural/12.png"
        Image.open(path).crop((0, 0, SIDE, SIDE - 8)).save(path)
    assert "aos 12: must be square, got '128x120'" in said(folder)


def test_a_broken_picture_is_named(folder: Path) -> None:
    path = folder / "references_natural/12.png"
    path.write_bytes(path.read_bytes()[:60])
    bench = benchmark("editbench", folder)
    item = next(item for item in bench.items() if item.item_id == "natural-12-full")
    with pytest.raises(UserError, match=r"12\.png of item natural-12-full: cannot be decoded"):
        bench.picture(item)


def test_a_copy_has_the_same_fingerprint_and_a_changed_mask_another(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    first = benchmark("editbench", folder).fingerprint()
    assert benchmark("editbench", copy).fingerprint() == first
    path = copy / "masks_natural/7.png"
    mask = Image.open(path)
    mask.putpixel((100, 100), (255, 255, 255))
    mask.save(path)
    assert benchmark("editbench", copy).fingerprint() != first
