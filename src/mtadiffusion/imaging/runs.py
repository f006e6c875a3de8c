"""Masks as runs: what is asked of a mask then costs as much as its outline is long, not as it has pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mtadiffusion.imaging.coco_rle import coco_lengths, compressed, filled, lengths_between


@dataclass(frozen=True, kw_only=True, eq=False)
class Runs:
    """The True pixels of a mask: in every column the runs from top to bottom, none of which touch."""

    size: tuple[int, int]
    """(height, width) of the mask in pixels."""

    columns: np.ndarray
    """int64 (N,), the column of each run, ascending."""

    starts: np.ndarray
    """int64 (N,), each run's first row, ascending within a column."""

    ends: np.ndarray
    """int64 (N,), the row after each run's last."""

    @classmethod
    def of(cls, mask: np.ndarray) -> Runs:
        """Of a bool (H, W) mask."""
        height, width = mask.shape
        changes = np.zeros((height + 1, width), bool)  # True where a run begins, and after its end
        if mask.size:
            changes[0], changes[-1] = mask[0], mask[-1]
            np.not_equal(mask[1:], mask[:-1], out=changes[1:-1])
        rows, columns = np.divmod(np.flatnonzero(changes), max(width, 1))
        order = np.argsort(columns, kind="stable")
        rows = rows[order]
        return cls(size=(height, width), columns=columns[order][::2], starts=rows[::2], ends=rows[1::2])

    @classmethod
    def of_flat(cls, starts: np.ndarray, ends: np.ndarray, size: tuple[int, int]) -> Runs:
        """Of runs over pixels that are counted down the columns, ascending; they may cross from one column to
        the next, touch or be empty, but not overlap."""
        height = size[0]
        starts, ends = _merged(starts[starts < ends], ends[starts < ends])
        first, last = starts // height, (ends - 1) // height
        if (first == last).all():
            before = first * height
            return cls(size=size, columns=first, starts=starts - before, ends=ends - before)
        pieces = last - first + 1
        before = np.cumsum(pieces) - pieces
        columns = np.repeat(first - before, pieces) + np.arange(pieces.sum())
        tops = np.maximum(np.repeat(starts, pieces) - columns * height, 0)
        bottoms = np.minimum(np.repeat(ends, pieces) - columns * height, height)
        return cls(size=size, columns=columns, starts=tops, ends=bottoms)

    @classmethod
    def of_coco(cls, rle: Mapping[str, Any]) -> Runs:
        """Of a COCO RLE. Raises UserError as `coco_lengths` does."""
        height, width = (int(side) for side in rle["size"])
        edges = np.cumsum(coco_lengths(rle))
        return cls.of_flat(edges[:-1:2], edges[1::2], (height, width))

    @property
    def area(self) -> int:
        """How many pixels are True."""
        return int((self.ends - self.starts).sum())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The box x0, y0, x1, y1 around a mask that is not empty; x1 and y1 are exclusive."""
        return (
            int(self.columns[0]),
            int(self.starts.min()),
            int(self.columns[-1]) + 1,
            int(self.ends.max()),
        )

    def coco(self) -> str:
        """The counts of a COCO RLE, compressed."""
        return compressed(self.coco_lengths())

    def coco_lengths(self) -> np.ndarray:
        """The counts of a COCO RLE, int64 (M,)."""
        height, width = self.size
        before = self.columns * height
        lengths = lengths_between(*_merged(before + self.starts, before + self.ends), height * width)
        return lengths if lengths[-1] else lengths[:-1]

    def pixels(self) -> np.ndarray:
        """bool (H, W); in memory it lies column by column."""
        return filled(self.coco_lengths(), self.size)

    def sampled(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The mask's pixels at some rows and columns.

        Args:
            rows: int (h,), not empty, ascending; a row may come twice.
            columns: int (w,), alike.

        Returns:
            bool (h, w).
        """
        left, right = int(columns[0]), int(columns[-1]) + 1
        seen = slice(*np.searchsorted(self.columns, (left, right)))
        above = (self.columns[seen] - left) * len(rows)
        tops, bottoms = (np.searchsorted(rows, ends[seen]) for ends in (self.starts, self.ends))
        lengths = lengths_between(above + tops, above + bottoms, len(rows) * (right - left))
        every_column = filled(lengths, (len(rows), right - left)).T
        return every_column[columns - left].T

    def where(self, chosen: np.ndarray) -> Runs:
        """Those of the runs for which `chosen`, bool (N,), is True."""
        return replace(self, columns=self.columns[chosen], starts=self.starts[chosen], ends=self.ends[chosen])

    def parts(self) -> np.ndarray:
        """int (N,): which part each run belongs to, counted from 0; pixels of one part meet at edges."""
        starts, ends = self._places()
        column = self.size[0] + 1
        low = np.searchsorted(ends, starts - column, side="right")
        high = np.searchsorted(starts, ends - column, side="left")
        touched = high - low  # so many runs of the column before, from `low` on
        if np.count_nonzero(touched == 0) == 1:  # from every run a way leads left to that one
            return np.zeros(len(starts), np.int64)

        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import connected_components

        rows = np.concatenate([[0], np.cumsum(touched)])
        neighbours = np.repeat(low - rows[:-1], touched) + np.arange(rows[-1])
        graph = csr_array((np.ones(len(neighbours)), neighbours, rows), shape=(len(starts), len(starts)))
        return connected_components(graph, directed=False)[1]

    def gaps(self) -> Runs:
        """The False pixels within the box of a mask that is not empty."""
        x0, y0, x1, y1 = self.box
        starts, ends = self._places()
        column = self.size[0] + 1
        tops = np.arange(x0, x1) * column + y0
        starts, ends = (
            np.sort(np.concatenate([tops, ends])),
            np.sort(np.concatenate([starts, tops + y1 - y0])),
        )
        return self._at(starts[starts < ends], ends[starts < ends])

    def with_runs(self, others: Runs) -> Runs:
        """The pixels of both masks, which share none."""
        ours, theirs = self._places(), others._places()
        return self._at(*_merged(*(np.sort(np.concatenate(pair)) for pair in zip(ours, theirs, strict=True))))

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Starts and ends as single numbers in the order of columns and rows. A column counts one row more
        than it has, so that the end of one is not the start of the next."""
        before = self.columns * (self.size[0] + 1)
        return before + self.starts, before + self.ends

    def _at(self, starts: np.ndarray, ends: np.ndarray) -> Runs:
        """The inverse of `_places`."""
        columns, rows = np.divmod(starts, self.size[0] + 1)
        return replace(self, columns=columns, starts=rows, ends=rows + ends - starts)


def _merged(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ascending runs, those that touch made one."""
    apart = starts[1:] != ends[:-1]
    return starts[np.concatenate([[True], apart])[: len(starts)]], ends[
        np.concatenate([apart, [True]])[: len(ends)]
    ]
