"""Encoded bytes to pictures, at no more than the size that is needed."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from PIL import Image, ImageOps

from mtadiffusion.imaging.images import to_rgb

LARGEST_PIXELS = 178_956_970
"""The most pixels that are decoded; more is a decompression bomb."""

_AHEAD = 4
"""Pictures a thread that wait decoded, at most."""


class UndecodableImageError(ValueError):
    """The bytes are no picture; the message says why in a few words."""


def decode(data: bytes, longest: int | None = None) -> Image.Image:
    """RGB, upright by its EXIF orientation where that can be read.

    Args:
        data: JPEG, PNG, WebP or whatever else Pillow reads; of several frames the first.
        longest: the longest side wanted. The result is shrunk to it (JPEG while decoding), never enlarged.

    Raises:
        UndecodableImageError: damaged, truncated, too large, or no image.
    """
    return pixels(opened(data), longest)


def pixels(image: Image.Image, longest: int | None = None) -> Image.Image:
    """`decode` of an image that was `opened` and of which nothing was decoded."""
    image = _loaded(image, _least_size(image, longest) if longest is not None else None)
    if longest is not None and max(image.size) > longest:
        image.thumbnail((longest, longest), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return image


def decode_reduced(data: bytes, shortest: int) -> Image.Image:
    """RGB, upright, whole: a JPEG at the smallest scale at which its short side still has `shortest` pixels.

    Raises:
        UndecodableImageError: damaged, truncated, too large, or no image.
    """
    return _loaded(opened(data), (shortest, shortest))


def _least_size(image: Image.Image, longest: int) -> tuple[int, int]:
    """(width, height) that a draft must have so that its longer side has `longest` pixels."""
    return (longest, 1) if image.width >= image.height else (1, longest)


def _loaded(image: Image.Image, least: tuple[int, int] | None) -> Image.Image:
    """RGB, upright; a JPEG at the smallest scale at which it has the size `least`."""
    try:
        if least is not None:
            image.draft("RGB", least)
        image.load()
        return to_rgb(_upright(image))
    except Exception as error:  # decoders of broken files raise nearly anything
        raise UndecodableImageError(f"cannot be decoded: {error or type(error).__name__}") from error


def decoded(encoded: Iterable[bytes], longest: int | None = None, threads: int = 0) -> Iterator[Image.Image]:
    """`decode` of each, in order.

    Args:
        encoded: read no further than a few pictures ahead.
        longest: as `decode` takes it.
        threads: that decode ahead of the caller, who meanwhile keeps a GPU busy; 0: decode when asked.
    """
    if not threads:
        yield from (decode(data, longest) for data in encoded)
        return
    pool, waiting = ThreadPoolExecutor(threads), deque[Future[Image.Image]]()
    try:
        for data in encoded:
            waiting.append(pool.submit(decode, data, longest))
            if len(waiting) > _AHEAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def opened(data: bytes) -> Image.Image:
    """The image with its header read and nothing decoded. Raises UndecodableImageError."""
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise UndecodableImageError(f"more than {LARGEST_PIXELS} pixels") from None
    except Exception as error:
        raise UndecodableImageError("not an image") from error
    if image.width * image.height > LARGEST_PIXELS:
        raise UndecodableImageError(f"more than {LARGEST_PIXELS} pixels")
    return image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) that `decode` will give, from the header alone."""
    width, height = image.size
    return (height, width) if _orientation(image) >= 5 else (width, height)


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image) if _orientation(image) > 1 else image


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; 1 where there is none or it cannot be read."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:
        return 1
    return value if value in range(1, 9) else 1
