"""COCO's run lengths, of 0 and 1 in turn down the columns of a mask, 0 first; and their compressed string."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mtadiffusion.errors import UserError

_LONGEST = 12
"""Groups of five bits in a number of at most 60 bits."""


def coco_lengths(rle: Mapping[str, Any]) -> np.ndarray:
    """Lengths int64 (N,) of a COCO RLE {"size": [H, W], "counts": list, or the compressed str or bytes}.

    Raises:
        UserError: they do not add up to the size, or the string is damaged.
    """
    height, width = (int(side) for side in rle["size"])
    counts, pixels = rle["counts"], height * width
    read = _decompressed(counts) if isinstance(counts, str | bytes) else _listed(counts)
    if read.min(initial=0) < 0 or read.max(initial=0) > pixels or read.sum() != pixels:
        rule = f"must have counts that add up to {width}x{height} = {pixels} pixels"
        raise UserError("COCO RLE", rule, int(read.sum()))
    return read.astype(np.int64)


def _listed(counts: Iterable[Any]) -> np.ndarray:
    """Numbers of any size, Python's own."""
    return np.array([int(count) for count in counts], object)


def compressed(lengths: np.ndarray) -> str:
    """COCO's string: from the fourth number on the difference to the number two before, in signed groups of
    five bits, low ones first, bit 5 = more to come, plus 48 to be printable."""
    values = lengths.copy()
    values[3:] -= lengths[1:-2]
    bits = int(np.abs(values).max(initial=0)).bit_length()
    places = 5 * np.arange(bits // 5 + 1)
    groups = values[:, None] >> places & 0x1F
    more = values[:, None] >> places + 5 != np.where(groups & 0x10, -1, 0)
    used = np.ones_like(more)
    used[:, 1:] = more[:, :-1]
    return (groups + 0x20 * more + 48)[used].astype(np.uint8).tobytes().decode("ascii")


def _decompressed(text: str | bytes) -> np.ndarray:
    printed = np.frombuffer(text.encode("ascii") if isinstance(text, str) else text, np.uint8)
    codes = printed.astype(np.int64) - 48
    if not len(codes):
        return codes
    if codes[-1] & 0x20:
        raise UserError("COCO RLE", "must not end in the middle of a number", text)
    last = np.flatnonzero(codes & 0x20 == 0)  # of each number its highest group, which has the sign
    first = np.concatenate([[0], last[:-1] + 1])
    more = int((last - first).max())
    if more >= _LONGEST:
        raise UserError("COCO RLE", f"must have numbers of at most {_LONGEST} digits", text)
    groups = codes & 0x1F
    values = (groups[last] ^ 0x10) - 0x10
    for place in range(1, more + 1):
        lower = last - place
        values = np.where(lower >= first, values << 5 | groups[lower], values)
    values[1::2], values[2::2] = np.cumsum(values[1::2]), np.cumsum(values[2::2])
    return values


def lengths_between(starts: np.ndarray, ends: np.ndarray, pixels: int) -> np.ndarray:
    """Lengths int64 (2 N + 1,) of the runs of 0 and 1 in turn, 0 first and last.

    Args:
        starts: int64 (N,), the first pixel of each run of 1, ascending, counted from 0.
        ends: int64 (N,), the pixel after each run's last.
        pixels: how many there are.
    """
    edges = np.empty(2 * len(starts) + 2, np.int64)
    edges[0], edges[-1] = 0, pixels
    edges[1:-1:2], edges[2:-1:2] = starts, ends
    return edges[1:] - edges[:-1]


def filled(lengths: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool (H, W) of lengths that add up to H * W; in memory it lies column by column."""
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(size, order="F")
