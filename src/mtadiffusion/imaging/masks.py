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
from mtadiffusion.imaging.coco_rle import coco_lengths, compressed, filled, lengths_between
from mtadiffusion.imaging.runs import Runs

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
    return filled(_flat_lengths(rle, size), size[::-1]).T


def mask_to_brushbench(mask: np.ndarray) -> list[int]:
    """BrushBench's flat list [start, length, ...] of a bool (H, W) mask: 1-based starts, row-major."""
    return _to_flat(mask, "row")


def brushdata_to_mask(rle: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """bool (H, W) from BrushData's flat list [start, length, ...]: 1-based starts, column-major.

    Raises:
        UserError: no pairs of integers, runs that reach out of the image, or that overlap.
    """
    return filled(_flat_lengths(rle, size), size)


def brushdata_to_runs(rle: Sequence[int], size: tuple[int, int]) -> Runs:
    """What `brushdata_to_mask` reads, without its pixels."""
    return Runs.of_flat(*_flat_edges(rle, size), size)


def mask_to_brushdata(mask: np.ndarray) -> list[int]:
    """BrushData's flat list [start, length, ...] of a bool (H, W) mask: 1-based starts, column-major."""
    return _to_flat(mask, "column")


def _flat_lengths(rle: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Lengths of the runs of 0 and 1 in turn, 0 first."""
    return lengths_between(*_flat_edges(rle, size), size[0] * size[1])


def _flat_edges(rle: Sequence[int], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """First pixel of each run and the one after its last, int64 (N,), counted from 0, ascending."""
    runs = _flat_runs(rle)
    starts, ends = runs[0::2] - 1, runs[0::2] - 1 + runs[1::2]
    pixels = size[0] * size[1]
    if runs.size and (starts.min() < 0 or (ends < starts).any() or ends.max() > pixels):
        rule = f"must lie within the {size[1]}x{size[0]} image (starts are 1-based)"
        raise UserError("mask RLE", rule, f"pixels {starts.min() + 1} to {ends.max()} of {pixels}")
    starts, ends = starts[starts < ends], ends[starts < ends]
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], ends[order]
    twice = starts[1:][starts[1:] < ends[:-1]]
    if len(twice):
        rule = "must have runs that do not overlap"
        raise UserError("mask RLE", rule, f"two over pixel {twice[0] + 1}")
    return starts, ends


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

    Raises:
        UserError: counts that do not add up to the size, or a damaged string.
    """
    height, width = (int(side) for side in rle["size"])
    return filled(coco_lengths(rle), (height, width))


def mask_to_coco(mask: np.ndarray, *, compress: bool = True) -> dict[str, Any]:
    """COCO RLE of a bool (H, W) mask: {"size": [H, W], "counts": str, or list of int uncompressed}."""
    lengths = Runs.of(mask.astype(bool)).coco_lengths()
    return {"size": list(mask.shape), "counts": compressed(lengths) if compress else lengths.tolist()}
