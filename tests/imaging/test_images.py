from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtadiffusion.errors import UserError
from mtadiffusion.imaging.images import check_output, image_size, load_hole, load_image, save_png, to_rgb


@pytest.fixture
def pixels() -> np.ndarray:
    """uint8 (6, 8, 3)."""
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def png(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def huge_png(path: Path) -> Path:
    """A few bytes that say that they are a 60000x60000 picture."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(9))),
    ]
    packed = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    return path


def test_an_rgb_file_comes_back_as_it_is(tmp_path: Path, pixels: np.ndarray) -> None:
    image = load_image(png(tmp_path / "a.png", pixels))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "P", "PA", "LA", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"])
def test_every_mode_becomes_rgb(mode: str, pixels: np.ndarray) -> None:
    assert to_rgb(Image.fromarray(pixels).convert(mode)).mode == "RGB"


def test_a_cmyk_file_keeps_its_colours(tmp_path: Path) -> None:
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "a.tif")
    assert load_image(tmp_path / "a.tif").getpixel((0, 0)) == (255, 0, 0)


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    png(tmp_path / "a.png", np.array([[0, 257, 32896, 65535]], dtype=np.uint16))
    assert np.asarray(load_image(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_palette_with_transparency_lies_over_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    image.save(tmp_path / "a.png", transparency=1)
    assert np.asarray(load_image(tmp_path / "a.png")).tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_half_transparent_colour_is_mixed_with_white() -> None:
    assert to_rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 51))).getpixel((0, 0)) == (204, 204, 204)


def test_exif_orientation_is_applied(tmp_path: Path, pixels: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "a.png")), np.rot90(pixels, -1))


def test_a_phone_picture_with_a_second_image_gives_the_first(tmp_path: Path, pixels: np.ndarray) -> None:
    first, second = Image.fromarray(pixels), Image.new("RGB", (8, 6))
    first.save(tmp_path / "a.mpo", save_all=True, append_images=[second], quality=100)
    assert np.asarray(load_image(tmp_path / "a.mpo")).max() > 0


def broken_files(folder: Path) -> dict[str, tuple[Path, str]]:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = png(folder / "whole.png", pixels).read_bytes()
    Image.fromarray(pixels).save(folder / "whole.jpg")
    cut_jpeg, cut_png, text, empty = (folder / name for name in ("cut.jpg", "cut.png", "t.png", "e.png"))
    cut_jpeg.write_bytes((folder / "whole.jpg").read_bytes()[:900])
    cut_png.write_bytes(whole[: len(whole) // 2])
    text.write_text("not a picture")
    empty.write_bytes(b"")
    frames = [Image.fromarray(pixels), Image.fromarray(255 - pixels)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:])
    return {
        "missing": (folder / "none.png", "must be an existing file"),
        "folder": (folder, "must be a file"),
        "below a file": (text / "a.png", "cannot be read (Not a directory)"),
        "null byte": (Path("a\0b"), "cannot be read (embedded null byte)"),
        "text": (text, "must be an image file"),
        "empty": (empty, "must not be empty"),
        "truncated JPEG": (cut_jpeg, "the file is truncated or damaged"),
        "truncated PNG": (cut_png, "the file is truncated or damaged"),
        "bomb": (huge_png(folder / "bomb.png"), f"must have at most {Image.MAX_IMAGE_PIXELS} pixels"),
        "GIF": (folder / "moving.gif", "must be a still picture, not 2 frames"),
        "WebP": (folder / "moving.webp", "must be a still picture, not 2 frames"),
    }


CASES = [
    "missing", "folder", "below a file", "null byte", "text", "empty", "truncated JPEG", "truncated PNG",
    "bomb", "GIF", "WebP",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_file_that_is_no_picture_is_named_in_one_line(case: str, tmp_path: Path) -> None:
    path, message = broken_files(tmp_path)[case]
    for load in (lambda: load_image(path), lambda: load_hole(path, (64, 64), "--image")):
        with pytest.raises(UserError) as error:
            load()
        assert str(error.value).startswith("--image ")
        assert message in str(error.value)
        assert "\n" not in str(error.value)


def test_every_broken_file_has_a_case(tmp_path: Path) -> None:
    assert list(broken_files(tmp_path)) == CASES


def test_a_picture_just_over_the_pixel_limit_is_refused(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 47)
    with pytest.raises(UserError, match=r"must have at most 47 pixels, got .*; make the picture smaller"):
        load_image(png(tmp_path / "a.png", pixels))


def test_floating_point_and_deep_pictures_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(UserError, match="--image must hold integers, got 'floating-point pixels'"):
        load_image(tmp_path / "float.tif")
    with pytest.raises(UserError, match="image must have at most 16 bits a channel, got 'values 0 to 70000'"):
        to_rgb(Image.fromarray(np.array([[0, 70000]], dtype=np.int32)))


def test_a_zero_sized_picture_is_refused() -> None:
    with pytest.raises(UserError, match="image must not be zero-sized, got '0x5'"):
        to_rgb(Image.new("RGB", (0, 5)))


def test_a_mask_with_the_same_aspect_is_resized(tmp_path: Path) -> None:
    mask = np.zeros((30, 40), dtype=np.uint8)
    mask[10:20, 10:20] = 128
    hole = load_hole(png(tmp_path / "a.png", mask), (80, 60))
    assert hole.shape == (60, 80)
    assert hole[20:40, 20:40].all()
    assert hole.sum() == 400


def test_a_mask_of_another_aspect_names_both_sizes(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", np.full((30, 40), 255, dtype=np.uint8))
    with pytest.raises(UserError) as error:
        load_hole(path, (64, 64))
    rule = "--mask must have the image's size 64x64 or its aspect ratio, got '40x30'; "
    assert str(error.value) == rule + "crop the mask as the image was cropped"


def test_an_empty_mask_is_refused_and_a_full_one_is_not(tmp_path: Path) -> None:
    grey = png(tmp_path / "grey.png", np.full((4, 4), 127, dtype=np.uint8))
    with pytest.raises(UserError, match="--mask has no hole; paint the part that is to be generated white"):
        load_hole(grey, (4, 4))
    full = png(tmp_path / "full.png", np.full((4, 4), 255, dtype=np.uint8))
    assert load_hole(full, (4, 4)).all()


def test_a_saved_png_reads_back_and_replaces_the_old_one(tmp_path: Path, pixels: np.ndarray) -> None:
    for shade in (pixels, 255 - pixels):
        path = save_png(Image.fromarray(shade), tmp_path / "out.png")
        np.testing.assert_array_equal(np.asarray(Image.open(path)), shade)
    assert [file.name for file in tmp_path.iterdir()] == ["out.png"]


def test_a_saved_png_has_the_usual_permissions(tmp_path: Path, pixels: np.ndarray) -> None:
    (tmp_path / "usual").touch()
    path = save_png(Image.fromarray(pixels), tmp_path / "out.png")
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_crash_while_writing_leaves_the_old_file_and_no_other(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_png(Image.fromarray(pixels), tmp_path / "out.png")
    before = path.read_bytes()

    def disk_full(_image: Image.Image, file: object, **_options: object) -> None:
        file.write(b"half a pic")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", disk_full)
    with pytest.raises(UserError, match=r"--out cannot be written \(No space left on device\)"):
        save_png(Image.fromarray(255 - pixels), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["out.png"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.jpg", "--out must end in .png"),
        ("none/out.png", "--out must lie in an existing folder"),
        ("folder.png", "--out must be a file"),
    ],
)
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError) as error:
        save_png(Image.new("RGB", (2, 2)), tmp_path / name)
    assert message in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["folder.png"]


def test_a_folder_without_write_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="--out must lie in a writable folder"):
        check_output(tmp_path / "out.png")


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_from_the_header_is_that_of_the_loaded_image(tmp_path: Path, orientation: int) -> None:
    path, exif = tmp_path / "turned.jpg", Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    assert image_size(path) == load_image(path).size


@pytest.mark.parametrize("content", [None, b"", b"no picture"])
def test_a_file_without_an_image_header_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"--image must (not )?be .*"):
        image_size(path)
