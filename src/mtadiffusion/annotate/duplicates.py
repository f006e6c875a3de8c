"""Which images of a dataset repeat an earlier one, byte for byte or nearly so by perceptual hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mtadiffusion.annotate.stage import Inputs
from mtadiffusion.data.tables import DECODED

NEAR_BITS = 3
"""Perceptual hashes (64 bits) that differ in at most so many count as the same picture."""

REASONS = (None, "duplicate", "near duplicate")
"""Why an image is left out; None: it is the first of its kind."""

_COMPARED = ("status", "digest", "perceptual_hash")
_BANDS = NEAR_BITS + 1
"""Hashes that differ in `NEAR_BITS` agree in one of so many bands at least."""


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """What is known of every image: a byte each, so that it travels to workers."""

    found: np.ndarray
    """uint8 (N,), places in `REASONS`, of all images in order."""

    starts: Mapping[int, int]
    """Shard -> the place of its first image."""

    @classmethod
    def among(cls, inputs: Inputs) -> Repeats:
        """Compare all images of the index; takes 40 bytes of memory an image meanwhile."""
        starts: dict[int, int] = {}
        digests, hashes, decoded, count = [], [], [], 0
        for shard, rows in inputs.whole("index", _COMPARED):
            starts[shard] = count
            count += rows.num_rows
            decoded.append(np.array(rows["status"].to_pylist()) == DECODED)
            digests.append(_numbers(rows["digest"], 8))
            hashes.append(_numbers(rows["perceptual_hash"], 8))
        counted = _joined(decoded, bool)
        found = near_repeats(_joined(hashes, np.uint64), counted).astype(np.uint8) * np.uint8(2)
        found[_repeats(_joined(digests, np.uint64), counted)] = 1
        return cls(found=found, starts=starts)

    def reason(self, shard: int, number: int) -> str | None:
        """Why an image of a shard is left out, one of `REASONS`."""
        return REASONS[self.found[self.starts[shard] + number]]


def _numbers(column: pa.ChunkedArray, size: int) -> np.ndarray:
    """The first `size` bytes of each value as a number; 0 where there is none."""
    values = b"".join((value or bytes(size))[:size] for value in column.to_pylist())
    return np.frombuffer(values, dtype=np.uint64)


def _joined(parts: list[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)


def _repeats(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """bool (N,): counted, and an earlier counted value is equal."""
    repeats = np.zeros(len(values), dtype=bool)
    places = np.flatnonzero(counted)
    _, first = np.unique(values[places], return_index=True)
    repeats[places] = True
    repeats[places[first]] = False
    return repeats


def near_repeats(hashes: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Which hashes come near an earlier one.

    Args:
        hashes: uint64 (N,).
        counted: bool (N,), the others are compared with none.

    Returns:
        bool (N,): counted, and an earlier counted hash differs in at most `NEAR_BITS` bits.
    """
    repeats = _repeats(hashes, counted)
    places = np.flatnonzero(counted & ~repeats)
    repeats[places] = _near_an_earlier(hashes[places])
    return repeats


def _near_an_earlier(hashes: np.ndarray) -> np.ndarray:
    """bool (N,) for distinct hashes uint64 (N,): only those that share a band are compared."""
    near, width = np.zeros(len(hashes), dtype=bool), np.uint64(64 // _BANDS)
    for band in range(_BANDS):
        keys = hashes >> np.uint64(band) * width & (np.uint64(1) << width) - np.uint64(1)
        order = np.argsort(keys, kind="stable")
        keys, gap = keys[order], 1
        while (same := keys[gap:] == keys[:-gap]).any():
            later, earlier = order[gap:][same], order[:-gap][same]
            close = np.bitwise_count(hashes[later] ^ hashes[earlier]) <= NEAR_BITS
            near[later[close]] = True
            gap += 1
    return near
