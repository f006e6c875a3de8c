"""Which images are worth annotating: size, shape, aesthetic score, the source's own flag, duplicates.

Every image keeps its row; a rejected one has the name of the first rule that it breaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from mtadiffusion.annotate.stage import Inputs, ShardInputs
from mtadiffusion.data.tables import DECODED, KEPT, REJECTED
from mtadiffusion.engines.engine import Resources
from mtadiffusion.errors import UserError

SCHEMA = pa.schema([("image_id", pa.string()), ("status", pa.string()), ("reason", pa.string())])
NEAR_BITS = 3
"""Perceptual hashes (64 bits) that differ in at most so many count as the same picture."""

_COMPARED = ("status", "digest", "perceptual_hash")
_BANDS = NEAR_BITS + 1
"""Hashes that differ in `NEAR_BITS` agree in one of so many bands at least."""


@dataclass(kw_only=True)
class Filters:
    """Makes the table `filters` from the index."""

    min_resolution: int = 0
    """The shorter side's least length in pixels."""

    min_aesthetic: float | None = None
    """The least aesthetic score, the source's or else that of `aesthetics`; images without one stay. None: no
    such rule."""

    max_aspect: float = 3.0
    """The largest ratio of the longer side to the shorter."""

    duplicates: bool = True
    """Keep only the first of images that are equal byte for byte, or nearly so by perceptual hash."""

    scored: bool = False
    """Whether the table `aesthetics` has scores of images whose source gives none."""

    name: ClassVar[str] = "filters"
    resources: ClassVar[Resources] = Resources()
    _seen: _FirstSeen | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.min_resolution < 0:
            raise UserError("min_resolution", "must not be negative", self.min_resolution)
        if self.max_aspect < 1:
            raise UserError("max_aspect", "must be at least 1", self.max_aspect)

    @property
    def reads(self) -> tuple[str, ...]:
        """The facts, and the scores if there are any."""
        return ("index", "aesthetics") if self.scored else ("index",)

    def settings(self) -> Mapping[str, Any]:
        """The thresholds."""
        return {
            "min_resolution": self.min_resolution,
            "min_aesthetic": self.min_aesthetic,
            "max_aspect": self.max_aspect,
            "duplicates": self.duplicates,
        }

    def setup(self, inputs: Inputs) -> None:
        """Find the first of equal images over all shards; 40 bytes of memory an image."""
        self._seen = _FirstSeen(inputs) if self.duplicates else None

    def run(self, shard: ShardInputs) -> pa.Table:
        """One row an image of the index."""
        columns = ["image_id", "status", "reason", "width", "height", "aesthetic", "unsafe"]
        rows = shard.rows("index", columns).to_pylist()
        if self.scored:
            scores = shard.rows("aesthetics", ["score"])["score"].to_pylist()
            for row, score in zip(rows, scores, strict=True):
                row["aesthetic"] = score if row["aesthetic"] is None else row["aesthetic"]
        reasons = [self._reason(row, shard.number, i) for i, row in enumerate(rows)]
        return pa.table(
            {
                "image_id": [row["image_id"] for row in rows],
                "status": [REJECTED if reason else KEPT for reason in reasons],
                "reason": reasons,
            },
            schema=SCHEMA,
        )

    def _reason(self, row: Mapping[str, Any], shard: int, number: int) -> str | None:
        if row["status"] != DECODED:
            return row["status"]
        short, long = sorted((row["width"], row["height"]))
        if short < self.min_resolution:
            return "small"
        if long > self.max_aspect * short:
            return "aspect"
        if None not in (self.min_aesthetic, row["aesthetic"]) and row["aesthetic"] < self.min_aesthetic:
            return "aesthetic"
        if row["unsafe"]:
            return "unsafe"
        return self._seen.earlier(shard, number) if self._seen else None


class _FirstSeen:
    """Which decoded images are not the first with their bytes, or with nearly their perceptual hash."""

    def __init__(self, inputs: Inputs) -> None:
        self._starts: dict[int, int] = {}
        digests, hashes, decoded, count = [], [], [], 0
        for shard, rows in inputs.whole("index", _COMPARED):
            self._starts[shard] = count
            count += rows.num_rows
            decoded.append(np.array(rows["status"].to_pylist()) == DECODED)
            digests.append(_numbers(rows["digest"], 8))
            hashes.append(_numbers(rows["perceptual_hash"], 8))
        self._decoded = _joined(decoded, bool)
        self._exact = _repeats(_joined(digests, np.uint64), self._decoded)
        self._alike = _near_repeats(_joined(hashes, np.uint64), self._decoded)

    def earlier(self, shard: int, number: int) -> str | None:
        """Why the image is left out, None if it is the first of its kind."""
        place = self._starts[shard] + number
        if self._exact[place]:
            return "duplicate"
        return "near duplicate" if self._alike[place] else None


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


def _near_repeats(hashes: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """bool (N,): counted, and an earlier counted hash differs in at most `NEAR_BITS` bits."""
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
