"""Holes at the border: every mask that comes in becomes a bool array, True = to be generated.

Also the run-length codecs of the benchmarks and datasets, which differ in order and base: BrushBench is
1-based and row-major, BrushData is 1-based and column-major, COCO counts runs column by column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image

from mtadiffusion.errors import UserError

Order = Literal["row", "column"]
_NUMPY_ORDER: dict[str, Literal["C", "F"]] = {"row": "C", "column": "F"}


def soft_from_pil(mask: Image.Image) -> np.ndarray:
    """How much each pixel is hole: float32 (H, W) in [0, 1], 1 = white = hole.

    Colour counts by its Rec. 601 luminance. Transparent pixels are not hole (the mask lies over black),
    except that a mask of one single colour whose opacity varies is read from its opacity, opaque = hole:
    that is how drawing programs export a layer of strokes.
    """
    if mask.mode.startswith("I") or mask.mode == "F":
        return _soft_from_deep(np.asarray(mask, dtype=np.float32))
    if not mask.has_transparency_data:
        return np.asarray(mask.convert("L"), dtype=np.float32) / 255
    rgba = mask.convert("RGBA")
    colour, alpha = np.asarray(rgba)[..., :3], np.asarray(rgba)[..., 3].astype(np.float32) / 255
    one_colour = bool((colour == colour[:1, :1]).all())
    if one_colour and alpha.min() < alpha.max():
        return alpha
    return np.asarray(rgba.convert("RGB").convert("L"), dtype=np.float32) / 255 * alpha


def _soft_from_deep(values: np.ndarray) -> np.ndarray:
    """16-bit integers or floats to [0, 1]; the largest value tells the depth (1, 255 or 65535)."""
    top = float(values.max(initial=0.0))
    depth = 1.0 if top <= 1 else 255.0 if top <= 255 else 65535.0
    return values / depth


def hole_from_pil(mask: Image.Image, argument: str = "mask_image") -> np.ndarray:
    """bool (H, W), True where the mask is at least half white. An empty hole is the user's mistake."""
    return _not_empty(soft_from_pil(mask) >= 0.5, argument)


def hole_from_array(mask: Any, argument: str = "mask_image") -> np.ndarray:
    """bool (H, W) from a numpy array or torch tensor: (H, W), (H, W, 1) or (1, H, W).

    bool, integers (0-255, or 0 and 1 alone) or floats in [0, 1]; 1 or 255 = hole, floats from 0.5 on.
    """
    values = _plane(_as_numpy(mask, argument), argument)
    if values.dtype == bool:
        return _not_empty(values, argument)
    if not np.isfinite(values).all():
        raise UserError(argument, "must hold finite values", remedy="it holds NaN or infinity")
    low, top = values.min(initial=0), values.max(initial=0)
    integer = np.issubdtype(values.dtype, np.integer)
    if low < 0 or top > (255 if integer else 1):
        limits = "0 and 255" if integer else "0 and 1"
        raise UserError(argument, f"must hold values between {limits}", f"{low} to {top}", "rescale the mask")
    half = 128 if integer and top > 1 else 0.5
    return _not_empty(values >= half, argument)


def _as_numpy(mask: Any, argument: str) -> np.ndarray:
    values = mask.detach().cpu() if hasattr(mask, "detach") else mask
    if hasattr(values, "is_floating_point") and values.is_floating_point():
        values = values.double()  # numpy has no bfloat16
    values = np.asarray(values)
    if values.dtype != bool and not np.issubdtype(values.dtype, np.number):
        raise UserError(argument, "must be an image or a numeric array", type(mask).__name__)
    return values


def _plane(values: np.ndarray, argument: str) -> np.ndarray:
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[-1]):
        values = values[..., 0] if values.shape[-1] == 1 else values[0]
    if values.ndim != 2:
        raise UserError(argument, "must have the shape (height, width)", tuple(values.shape))
    if 0 in values.shape:
        raise UserError(argument, "must not be zero-sized", tuple(values.shape))
    return values


def _not_empty(hole: np.ndarray, argument: str) -> np.ndarray:
    if not hole.any():
        raise UserError(argument, "has no hole", remedy="paint the part that is to be generated white")
    return hole


def resize_hole(hole: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A hole at another size (height, width). Enlarged by nearest neighbour; shrunk, a pixel is hole
    where any pixel that falls on it was, so that thin holes do not vanish."""
    if hole.shape == size:
        return hole
    image = Image.fromarray(hole.astype(np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BOX)) > 0


def mask_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The box x0, y0, x1, y1 around a bool (H, W) mask that is not empty; x1 and y1 are exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def brushbench_to_mask(rle: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """bool (H, W) from BrushBench's flat list [start, length, ...]: 1-based starts, row-major.

    Raises:
        UserError: no pairs of integers, runs that reach out of the image, or that overlap.
    """
    return _from_flat(rle, size, "row")


def mask_to_brushbench(mask: np.ndarray) -> list[int]:
    """BrushBench's flat list [start, length, ...] of a bool (H, W) mask: 1-based starts, row-major."""
    return _to_flat(mask, "row")


def brushdata_to_mask(rle: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """bool (H, W) from BrushData's flat list [start, length, ...]: 1-based starts, column-major.

    Raises:
        UserError: no pairs of integers, runs that reach out of the image, or that overlap.
    """
    return _from_flat(rle, size, "column")


def mask_to_brushdata(mask: np.ndarray) -> list[int]:
    """BrushData's flat list [start, length, ...] of a bool (H, W) mask: 1-based starts, column-major."""
    return _to_flat(mask, "column")


def _from_flat(rle: Sequence[int], size: tuple[int, int], order: Order) -> np.ndarray:
    runs = _flat_runs(rle)
    starts, ends = runs[0::2] - 1, runs[0::2] - 1 + runs[1::2]
    pixels = size[0] * size[1]
    if runs.size and (starts.min() < 0 or (ends < starts).any() or ends.max() > pixels):
        rule = f"must lie within the {size[1]}x{size[0]} image (starts are 1-based)"
        raise UserError("mask RLE", rule, f"pixels {starts.min() + 1} to {ends.max()} of {pixels}")
    changes = np.bincount(starts, minlength=pixels + 1) - np.bincount(ends, minlength=pixels + 1)
    covered = np.cumsum(changes)[:pixels]
    if covered.max(initial=0) > 1:
        first = int(np.argmax(covered > 1)) + 1
        raise UserError("mask RLE", "must have runs that do not overlap", f"two over pixel {first}")
    return (covered > 0).reshape(size, order=_NUMPY_ORDER[order])


def _flat_runs(rle: Sequence[int]) -> np.ndarray:
    """int64 (2 N,) from [start, length, ...] in whatever form a file holds it."""
    try:
        runs = np.asarray(rle)
    except ValueError:
        raise UserError("mask RLE", "must be a flat list of integers", "lists of several lengths") from None
    if runs.size and not np.issubdtype(runs.dtype, np.integer):
        raise UserError("mask RLE", "must be a list of integers", runs.dtype.name)
    if runs.ndim != 1 or runs.size % 2:
        raise UserError("mask RLE", "must be a flat list of pairs (start, length)", f"shape {runs.shape}")
    return runs.astype(np.int64)


def _to_flat(mask: np.ndarray, order: Order) -> list[int]:
    flat = np.concatenate([[False], mask.astype(bool).ravel(order=_NUMPY_ORDER[order]), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    starts, ends = edges[0::2], edges[1::2]
    return np.stack([starts + 1, ends - starts], axis=1).ravel().tolist()


def coco_to_mask(rle: Mapping[str, Any]) -> np.ndarray:
    """bool (H, W) from a COCO RLE {"size": [H, W], "counts": list, or the compressed str or bytes}.

    The counts are the lengths of the runs, of 0 and 1 in turn, column by column, 0 first.
    """
    height, width = (int(side) for side in rle["size"])
    counts = rle["counts"]
    lengths = _decompress(counts) if isinstance(counts, str | bytes) else [int(count) for count in counts]
    if min(lengths, default=0) < 0 or sum(lengths) != height * width:
        rule = f"must have counts that add up to {width}x{height} = {height * width} pixels"
        raise UserError("COCO RLE", rule, sum(lengths))
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape((height, width), order="F")


def mask_to_coco(mask: np.ndarray, *, compress: bool = True) -> dict[str, Any]:
    """COCO RLE of a bool (H, W) mask: {"size": [H, W], "counts": str, or list of int uncompressed}."""
    counts = _runs(mask.astype(bool))
    return {"size": list(mask.shape), "counts": _compress(counts) if compress else counts.tolist()}


def _runs(mask: np.ndarray) -> np.ndarray:
    """Lengths of the runs of 0 and 1 in turn, 0 first; only columns that hold a 1 are looked at."""
    columns = np.flatnonzero(mask.any(0))
    if not len(columns):
        return np.array([mask.size] if mask.size else [], np.int64)
    x0, x1 = columns[0], columns[-1] + 1
    flat = np.concatenate([[False], mask[:, x0:x1].ravel(order="F"), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + x0 * mask.shape[0]
    lengths = np.diff(np.concatenate([[0], edges, [mask.size]]))
    return lengths[:-1] if edges[-1] == mask.size else lengths


_GROUPS = 12
"""Groups of five bits in a number of at most 60 bits."""


def _compress(counts: np.ndarray) -> str:
    """COCO's string: from the fourth count on the difference to the count two before, in signed groups
    of five bits, low ones first, bit 5 = more to come, plus 48 to be printable."""
    values = counts.copy()
    values[3:] -= counts[1:-2]
    codes, used = np.zeros((len(values), _GROUPS), np.uint8), np.zeros((len(values), _GROUPS), bool)
    more, place = np.ones(len(values), bool), 0
    while more.any():
        used[:, place] = more
        group, values = values & 0x1F, values >> 5
        more = more & (values != np.where(group & 0x10, -1, 0))
        codes[:, place] = group + np.where(more, 0x20, 0) + 48
        place += 1
    return codes[used].tobytes().decode("ascii")


def _decompress(text: str | bytes) -> list[int]:
    printed = np.frombuffer(text.encode("ascii") if isinstance(text, str) else text, np.uint8)
    codes = printed.astype(np.int64) - 48
    last = codes & 0x20 == 0
    if not len(codes):
        return []
    if not last[-1]:
        raise UserError("COCO RLE", "must not end in the middle of a number", text)
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    places = np.arange(len(codes)) - np.repeat(starts, np.diff(np.append(starts, len(codes))))
    if places.max() >= _GROUPS:
        raise UserError("COCO RLE", f"must have numbers of at most {_GROUPS} digits", text)
    values = np.add.reduceat((codes & 0x1F) << 5 * places, starts)
    values -= np.where(codes[last] & 0x10, np.int64(1) << 5 * (places[last] + 1), 0)
    values[1::2], values[2::2] = np.cumsum(values[1::2]), np.cumsum(values[2::2])
    return values.tolist()
