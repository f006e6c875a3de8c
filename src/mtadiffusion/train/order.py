"""In what order a run visits its records: shuffled exactly, batches of one bucket, alike on every machine."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mtadiffusion.seeding import numpy_generator

_SUBSTITUTES = 100


class SampleOrder:
    """Which record the run's sample of a number shows.

    An epoch visits every record once. With several buckets, each run of `group` samples whose first number is
    a multiple of `group` is of one bucket; a bucket's last such run is filled up with records of it that come
    a second time.

    Args:
        count: N, the records.
        seed: the run's.
        buckets: int (N,), the bucket of each record; None: all in one.
        group: samples a batch.
    """

    def __init__(self, count: int, seed: int, buckets: np.ndarray | None = None, group: int = 1) -> None:
        self.count, self.seed, self.group = count, seed, group
        self.buckets = np.zeros(count, np.int64) if buckets is None else buckets
        self._members = [np.flatnonzero(self.buckets == bucket) for bucket in np.unique(self.buckets)]
        self._shown: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    @property
    def epoch_length(self) -> int:
        """Samples an epoch."""
        if len(self._members) == 1:
            return self.count
        return sum(-(-len(members) // self.group) * self.group for members in self._members)

    def place(self, number: int) -> tuple[int, int]:
        """(record, epoch) of the run's sample `number`."""
        epoch, place = divmod(number, self.epoch_length)
        if self._shown[0] != epoch:
            self._shown = epoch, self._of_epoch(epoch)
        return int(self._shown[1][place]), epoch

    def _of_epoch(self, epoch: int) -> np.ndarray:
        rng = numpy_generator(self.seed, "order", epoch)
        if len(self._members) == 1:
            return rng.permutation(self.count)
        groups = np.concatenate([self._grouped(rng.permutation(members)) for members in self._members])
        return groups[rng.permutation(len(groups))].ravel()

    def _grouped(self, members: np.ndarray) -> np.ndarray:
        """(n, group), the last row filled up from the start."""
        rows = -(-len(members) // self.group)
        return np.resize(members, rows * self.group).reshape(rows, self.group)

    def candidates(self, number: int) -> Iterator[tuple[int, int]]:
        """`place` of the sample, then others of its bucket, in case that the record cannot be read."""
        record, epoch = self.place(number)
        yield record, epoch
        members = np.flatnonzero(self.buckets == self.buckets[record])
        rng = numpy_generator(self.seed, "substitute", number)
        for draw in rng.integers(len(members), size=_SUBSTITUTES):
            yield int(members[draw]), epoch
