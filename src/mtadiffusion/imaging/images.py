"""Pictures at the border: files to RGB images and holes, results to files. No mask codecs, no tensors.

Whatever a file holds becomes 8-bit RGB by a stated rule, or the user is told in one line what is wrong.
"""

from __future__ import annotations

import os
import secrets
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from mtadiffusion.errors import UserError
from mtadiffusion.imaging.masks import hole_from_pil, resize_hole

_ASPECT_TOLERANCE = 0.01


def load_image(path: str | os.PathLike[str], argument: str = "--image") -> Image.Image:
    """An image file as RGB, upright.

    EXIF orientation is applied; palette, grey, CMYK and 16-bit pictures are converted; transparency is
    laid over white. Animated or multi-page files and decompression bombs are refused.

    Raises:
        UserError: the file is missing, empty, unreadable, truncated, too large or animated.
    """
    return to_rgb(_open(Path(path), argument), argument)


def load_hole(
    path: str | os.PathLike[str], image_size: tuple[int, int], argument: str = "--mask"
) -> np.ndarray:
    """A mask file as bool (H, W), True = hole = at least half white, at the size of its image.

    Args:
        path: any image file; see `masks.soft_from_pil` for colour and transparency.
        image_size: (width, height) of the image, as `Image.size`. A mask of another size but the same
            aspect ratio (to 1 %) is resized.
        argument: how the user named the file.

    Raises:
        UserError: as `load_image`; the mask has no hole; its aspect ratio differs.
    """
    hole = hole_from_pil(_open(Path(path), argument), argument)
    height, width = hole.shape
    aspect = (width / height) / (image_size[0] / image_size[1])
    if max(aspect, 1 / aspect) > 1 + _ASPECT_TOLERANCE:
        rule = f"must have the image's size {image_size[0]}x{image_size[1]} or its aspect ratio"
        raise UserError(argument, rule, f"{width}x{height}", "crop the mask as the image was cropped")
    return resize_hole(hole, (image_size[1], image_size[0]))


def image_size(path: str | os.PathLike[str], argument: str = "--image") -> tuple[int, int]:
    """(width, height) that `load_image` will give, from the file's header alone: nothing is decoded.

    Raises:
        UserError: the file is missing, empty or no image.
    """
    _check_readable(Path(path), argument)
    try:
        with Image.open(path) as image:
            return (image.height, image.width) if _lies_on_its_side(image) else image.size
    except Exception:  # decoders of broken files raise nearly anything
        raise UserError(argument, "must be an image file", str(path), "use PNG, JPEG or WebP") from None


def _lies_on_its_side(image: Image.Image) -> bool:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) in range(5, 9)
    except Exception:  # broken EXIF data
        return False


def to_rgb(image: Image.Image, argument: str = "image") -> Image.Image:
    """Any PIL image as RGB: 16-bit values scaled (not clipped), transparency laid over white."""
    if 0 in image.size:
        raise UserError(argument, "must not be zero-sized", f"{image.width}x{image.height}")
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode == "F":
        raise UserError(argument, "must hold integers", "floating-point pixels", "save it as an 8-bit PNG")
    if image.mode.startswith("I"):
        return _from_16_bit(np.asarray(image), argument).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(values: np.ndarray, argument: str) -> Image.Image:
    if values.min() < 0 or values.max() > 65535:
        rule = "must have at most 16 bits a channel"
        raise UserError(argument, rule, f"values {values.min()} to {values.max()}", "save it as an 8-bit PNG")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _open(path: Path, argument: str) -> Image.Image:
    """The decoded file, upright, in its own mode."""
    _check_readable(path, argument)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                _check_still(image, path, argument)
                image.load()
                return ImageOps.exif_transpose(image)
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        rule = f"must have at most {Image.MAX_IMAGE_PIXELS} pixels"
        raise UserError(argument, rule, str(path), "make the picture smaller") from None
    except UnidentifiedImageError:
        raise UserError(argument, "must be an image file", str(path), "use PNG, JPEG or WebP") from None
    except Exception as error:  # decoders of broken files raise nearly anything
        rule = f"cannot be decoded ({error or type(error).__name__})"
        raise UserError(argument, rule, str(path), "the file is truncated or damaged") from error


def _check_readable(path: Path, argument: str) -> None:
    if path.is_dir():
        raise UserError(argument, "must be a file", str(path), "this is a folder")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise UserError(argument, "must be an existing file", str(path), "there is no such file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(argument, f"cannot be read ({reason})", str(path)) from None
    if empty:
        raise UserError(argument, "must not be empty", str(path), "the file has zero bytes")


def _check_still(image: Image.Image, path: Path, argument: str) -> None:
    frames = getattr(image, "n_frames", 1)
    # The second picture in a phone camera's MPO file is a depth map or preview, not a frame.
    if frames > 1 and image.format != "MPO":
        rule = f"must be a still picture, not {frames} frames"
        raise UserError(argument, rule, str(path), "save the frame that you mean as PNG")


def check_output(path: str | os.PathLike[str], argument: str = "--out") -> Path:
    """The path of a PNG that can be written, checked before the work starts.

    Raises:
        UserError: not named .png, the folder is missing or not writable, or the path is a folder.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise UserError(argument, "must end in .png", str(path))
    if path.is_dir():
        raise UserError(argument, "must be a file", str(path), "this is a folder")
    if not path.parent.is_dir():
        raise UserError(argument, "must lie in an existing folder", str(path), f"create {path.parent} first")
    if not os.access(path.parent, os.W_OK):
        raise UserError(argument, "must lie in a writable folder", str(path))
    return path


def save_png(image: Image.Image, path: str | os.PathLike[str], argument: str = "--out") -> Path:
    """Write a PNG all or nothing: under a temporary name in the same folder, then renamed.

    Raises:
        UserError: as `check_output`, or the disk refuses.
    """
    path = check_output(path, argument)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            image.save(file, format="PNG")
        os.replace(partial, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(argument, f"cannot be written ({reason})", str(path)) from error
    finally:
        partial.unlink(missing_ok=True)
    return path
