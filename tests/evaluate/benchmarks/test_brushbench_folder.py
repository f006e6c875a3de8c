"""BrushBench and BrushNet's EditBench, from small folders of the real form."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.benchmarks import benchmark
from mtadiffusion.evaluate.metrics import metric_named
from mtadiffusion.evaluate.metrics.metric import Batch, Sample

SIDE = 512
KEYS = ("000000000", "000000001", "000000017")


def disc(x: int, y: int, radius: int) -> np.ndarray:
    """bool (512, 512), True in a disc that is not symmetric to the diagonal."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def row_runs(mask: np.ndarray) -> list[int]:
    """Independent encoder: walk the pixels row by row, count from 1."""
    runs: list[int] = []
    for row in np.flatnonzero(mask.any(axis=1)):
        columns = np.flatnonzero(mask[row])
        assert columns[-1] - columns[0] + 1 == len(columns), "one run a row"
        runs += [int(row * SIDE + columns[0] + 1), len(columns)]
    return runs


HOLES = [disc(100 + 60 * n, 300, 40 + n) for n in range(len(KEYS))]


def mapping() -> dict[str, dict]:
    return {
        key: {
            "image": f"images/{key}.jpg",
            "caption": f"a thing of kind {n}",
            "inpainting_mask": row_runs(HOLES[n]),
            "outpainting_mask": [1, SIDE * 10 * (n + 1)],
        }
        for n, key in enumerate(KEYS)
    }


def write_mapping(folder: Path, entries: object) -> None:
    (folder / "mapping_file.json").write_text(
        entries if isinstance(entries, str) else json.dumps(entries), encoding="utf-8"
    )


@pytest.fixture(scope="session")
def _drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("BrushBench")
    (folder / "images").mkdir()
    for n, key in enumerate(KEYS):
        image = Image.new("RGB", (SIDE, SIDE), (40, 90 + 30 * n, 160))
        ImageDraw.Draw(image).ellipse([60 + 60 * n, 260, 140 + 60 * n, 340], fill=(220, 60, 20))
        image.save(folder / "images" / f"{key}.jpg", quality=95)
    write_mapping(folder, mapping())
    return folder


@pytest.fixture
def folder(_drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_drawn, tmp_path / "BrushBench"))


def said(folder: Path, name: str = "brushbench", **options: object) -> str:
    """The one line that reading the folder is refused with."""
    with pytest.raises(UserError) as error:
        benchmark(name, folder, **options).items()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_picture_gives_an_inside_and_an_outside_item(folder: Path) -> None:
    bench = benchmark("brushbench", folder)
    items = bench.items()
    assert [item.item_id for item in items[:3]] == [
        "000000000-inside",
        "000000000-outside",
        "000000001-inside",
    ]
    assert len(items) == 6
    assert {item.group for item in items} == {"inside", "outside"}
    assert items[2].prompt == "a thing of kind 1"
    assert bench.picture(items[0]).shape == (SIDE, SIDE, 3)
    assert bench.picture(items[0]).dtype == np.uint8


def test_the_originals_are_references_for_what_is_drawn_inside_of_their_holes(folder: Path) -> None:
    bench, metric = benchmark("brushbench", folder), metric_named("edge_f1")
    samples = [
        Sample(item=item, original=bench.picture(item), hole=bench.hole(item), result=bench.picture(item))
        for item in bench.items()
    ]
    scores = {
        sample.item.item_id: score
        for sample, score in zip(samples, metric.score(Batch(samples=samples)), strict=True)
    }
    assert all(score == (1.0 if name.endswith("-inside") else None) for name, score in scores.items())


def test_masks_are_read_row_by_row_from_one(folder: Path) -> None:
    bench = benchmark("brushbench", folder, groups=("inside",))
    for item, hole in zip(bench.items(), HOLES, strict=True):
        np.testing.assert_array_equal(bench.hole(item), hole)
    (outside, *_) = benchmark("brushbench", folder, groups="outside").items()
    top = benchmark("brushbench", folder).hole(outside)
    assert top[:10].all()
    assert not top[10:].any()


def test_the_hole_lies_on_the_thing_that_was_drawn(folder: Path) -> None:
    bench = benchmark("brushbench", folder, groups=("inside",))
    for item in bench.items():
        red = bench.picture(item)[..., 0] > 150
        assert (red & bench.hole(item)).sum() > 0.95 * red.sum()


def test_settings_are_those_of_the_published_protocol(folder: Path) -> None:
    for name in ("brushbench", "editbench-brushnet"):
        settings = benchmark(name, folder).settings
        assert (settings.size, settings.steps, settings.guidance_scale) == (512, 50, 7.5)
        assert (settings.scheduler, settings.seed, settings.seed_per_item) == (
            "UniPCMultistepScheduler",
            1234,
            False,
        )
        assert settings.blend == "brushnet"


def test_a_benchmark_travels_to_another_process(folder: Path) -> None:
    bench = benchmark("brushbench", folder)
    for fresh in (pickle.loads(pickle.dumps(bench)), bench):
        items = fresh.items()
        again = pickle.loads(pickle.dumps(fresh))
        assert again.items() == items
        np.testing.assert_array_equal(again.hole(items[3]), bench.hole(items[3]))


@pytest.mark.parametrize("key", ["mask", "inpainting_mask"])
def test_the_processed_editbench_names_its_masks_either_way(folder: Path, key: str) -> None:
    entries = {
        name: {"image": entry["image"], "caption": entry["caption"], key: entry["inpainting_mask"]}
        for name, entry in mapping().items()
    }
    write_mapping(folder, entries)
    bench = benchmark("editbench-brushnet", folder)
    assert [item.item_id for item in bench.items()] == list(KEYS)
    assert {item.group for item in bench.items()} == {"all"}
    np.testing.assert_array_equal(bench.hole(bench.items()[1]), HOLES[1])


def test_masks_of_another_name_can_be_named(folder: Path) -> None:
    entries = mapping()
    for entry in entries.values():
        entry["hole"] = entry.pop("inpainting_mask")
        del entry["outpainting_mask"]
    write_mapping(folder, entries)
    message = said(folder, "editbench-brushnet")
    assert "must have masks called mask or inpainting_mask, got 'image, caption, hole'" in message
    assert len(benchmark("editbench-brushnet", folder, mask_key="hole").items()) == 3


def test_a_copy_has_the_same_fingerprint_and_a_changed_picture_another(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    first = benchmark("brushbench", folder).fingerprint()
    assert benchmark("brushbench", copy).fingerprint() == first
    assert benchmark("brushbench", copy, groups="inside").fingerprint() != first
    path = copy / "images" / f"{KEYS[1]}.jpg"
    image = Image.open(path)
    image.putpixel((3, 3), (255, 255, 255))
    image.save(path, quality=95)
    assert benchmark("brushbench", copy).fingerprint() != first


def test_a_changed_mask_changes_the_fingerprint(folder: Path) -> None:
    first = benchmark("brushbench", folder).fingerprint()
    entries = mapping()
    entries[KEYS[0]]["inpainting_mask"][1] += 1
    write_mapping(folder, entries)
    assert benchmark("brushbench", folder).fingerprint() != first


def test_a_missing_folder_or_mapping_file_is_named(tmp_path: Path) -> None:
    assert "--path must be the folder of BrushBench, got" in said(tmp_path / "none")
    message = said(tmp_path)
    assert "must hold mapping_file.json, as BrushBench does" in message
    assert "docs/evaluation-benchmarks.md" in message


def test_missing_pictures_are_counted_and_named(folder: Path) -> None:
    for key in KEYS[:2]:
        (folder / "images" / f"{key}.jpg").unlink()
    message = said(folder)
    assert "must hold all pictures, 2 of 3 are missing" in message
    assert "images/000000000.jpg, images/000000001.jpg" in message
    assert "allow_missing" in message
    bench = benchmark("brushbench", folder, allow_missing=True)
    assert [item.item_id for item in bench.items()] == ["000000017-inside", "000000017-outside"]
    assert list(bench.missing) == ["images/000000000.jpg", "images/000000001.jpg"]  # type: ignore[attr-defined]


def test_a_path_too_long_for_any_disk_is_a_missing_picture(folder: Path) -> None:
    entries = mapping()
    entries[KEYS[1]]["image"] = "images/" + "x" * 5000
    write_mapping(folder, entries)
    assert "1 of 3 are missing" in said(folder)


def test_a_folder_without_any_picture_is_refused_even_if_some_may_be_missing(folder: Path) -> None:
    shutil.rmtree(folder / "images")
    assert "3 of 3 are missing" in said(folder, allow_missing=True)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("inpainting_mask", [1, 2, 3], "inpainting_mask must be a flat list of pairs (start, length)"),
        ("inpainting_mask", [SIDE * SIDE, 2], "inpainting_mask must lie within the 512x512 image"),
        ("inpainting_mask", [0, 2], "starts are 1-based"),
        ("inpainting_mask", [5, 10, 9, 3], "must have runs that do not overlap, got 'two over pixel 9'"),
        ("inpainting_mask", [1, 2.5], "must be a list of integers"),
        ("inpainting_mask", [], "must leave a part of the picture and take another, got '0% hole'"),
        ("inpainting_mask", [1, SIDE * SIDE], "must leave a part of the picture and take another"),
        ("inpainting_mask", "1 2", "must be a list [start, length, ...], got '1 2'; the item has: image"),
        ("outpainting_mask", None, "outpainting_mask must be a list"),
        ("caption", " ", "must have a text 'caption'"),
        ("image", 5, "must have a text 'image', got 5"),
        ("image", "../secret.jpg", "must name a picture by a path inside the benchmark's folder"),
        ("image", "images/../../secret.jpg", "must name a picture by a path inside"),
        ("image", "/etc/secret.jpg", "must name a picture by a path inside"),
        ("image", "C:/secret.jpg", "must name a picture by a path inside"),
        ("image", "images\\0.jpg", "must name a picture by a path inside"),
        ("image", "images/\0.jpg", "must name a picture by a path inside"),
        ("image", "images//0.jpg", "must name a picture by a path inside"),
    ],
)
def test_a_wrong_entry_is_named_with_its_file_and_item(
    folder: Path, field: str, value: object, message: str
) -> None:
    entries = mapping()
    entries[KEYS[1]][field] = value
    write_mapping(folder, entries)
    line = said(folder)
    assert f"mapping_file.json item {KEYS[1]}:" in line
    assert message in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("[1]", "must be an object with an entry an item, got 'list'"),
        ("{}", "must be an object with an entry an item"),
        ('{"000000000": {}, "000000000": {}}', "has the key '000000000' twice; leave one of them"),
        ('{"0": {"image": "a", "image": "b"}}', "has the key 'image' twice"),
        ('{"0": 3}', "item 0: must be an object, got 'int'"),
        ('{"../up": {}}', "must have an id of letters, digits"),
        ('{"": {}}', "must have an id of letters, digits"),
        ('{"0": ' + "[" * 200_000, "is not JSON"),
        ('{"0": ' + "9" * 5000 + "}", "is not JSON"),
    ],
)
def test_a_wrong_mapping_file_is_named(folder: Path, text: str, message: str) -> None:
    write_mapping(folder, text)
    line = said(folder)
    assert "mapping_file.json" in line
    assert message in line


def test_a_byte_order_mark_is_no_matter_and_another_encoding_is_named(folder: Path) -> None:
    path = folder / "mapping_file.json"
    text = path.read_text()
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert len(benchmark("brushbench", folder).items()) == 6
    path.write_bytes(text.replace("a thing", "ein Ähnliches").encode("latin-1"))
    assert "must be UTF-8, byte" in said(folder)


def test_a_picture_of_another_size_than_its_mask_is_refused(folder: Path) -> None:
    Image.new("RGB", (256, 512)).save(folder / "images" / f"{KEYS[2]}.jpg")
    message = said(folder)
    assert f"item {KEYS[2]}: must have a picture of 512x512 like its mask" in message
    assert "000000017.jpg of 256x512" in message


def test_a_broken_picture_is_named_at_once_and_a_truncated_one_when_it_is_read(folder: Path) -> None:
    path = folder / "images" / f"{KEYS[0]}.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    bench = benchmark("brushbench", folder)
    with pytest.raises(UserError, match=r"000000000.jpg of item 000000000-inside: cannot be decoded"):
        bench.picture(bench.items()[0])
    path.write_bytes(b"no picture")
    assert f"item {KEYS[0]}: must be an image file" in said(folder)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_pictures_of_every_mode_become_rgb(folder: Path, mode: str) -> None:
    suffix, grey = "tif" if mode == "CMYK" else "png", np.full((SIDE, SIDE), 200)
    image = Image.fromarray(grey.astype(np.uint8))
    deep = Image.fromarray((grey * 257).astype(np.uint16))
    (deep if mode == "I;16" else image.convert(mode)).save(folder / f"images/other.{suffix}")
    entries = mapping()
    entries[KEYS[0]]["image"] = f"images/other.{suffix}"
    write_mapping(folder, entries)
    bench = benchmark("brushbench", folder)
    picture = bench.picture(bench.items()[0])
    assert picture.shape == (SIDE, SIDE, 3)
    assert np.abs(picture.astype(int) - 200).max() <= 2


_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 2**70), st.floats(), st.sampled_from(["", "images/0.jpg", "a"])
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(["a", "b"]), inner),
    max_leaves=12,
)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["image", "caption", "inpainting_mask", "outpainting_mask", None]),
    st.lists(st.integers(-5, 2**18 + 5), max_size=8) | _VALUES,
)
def test_whatever_an_entry_holds_is_read_or_refused_in_one_line(
    folder: Path, field: str | None, value: object
) -> None:
    entries: dict = mapping()
    if field is None:
        entries[KEYS[1]] = value
    else:
        entries[KEYS[1]][field] = value
    write_mapping(folder, entries)
    refusal = None
    try:
        benchmark("brushbench", folder).items()
    except UserError as error:
        refusal = str(error)
    if refusal is not None:
        assert "\n" not in refusal
        assert KEYS[1] in refusal or "missing" in refusal


def test_one_picture_may_serve_two_items(folder: Path) -> None:
    entries = mapping()
    entries[KEYS[1]]["image"] = entries[KEYS[0]]["image"]
    write_mapping(folder, entries)
    bench = benchmark("brushbench", folder)
    assert len(bench.items()) == 6
    assert bench.fingerprint()
