"""The engine on this machine: in this process, or in some processes that share a stage's shards."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from mtadiffusion.annotate.run import Worker

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Local:
    """Runs in `workers` processes, or here."""

    workers: int = 0
    """Processes; they and their models end with the stage. 0: this process does the work."""

    def make(self, worker: Worker, shards: Sequence[int]) -> Iterator[int]:
        """See `Engine`."""
        if not self.workers:
            return map(worker.make, shards)
        return self._in_workers(worker, shards)

    def _in_workers(self, worker: Worker, shards: Sequence[int]) -> Iterator[int]:
        """When a worker dies, what is left is done shard by shard, each in a process of its own, so that
        only the shard that kills its worker is quarantined."""
        left = set(shards)
        try:
            for shard, rows in _pool(worker, shards, self.workers):
                left.discard(shard)
                yield rows
        except BrokenProcessPool:
            logger.warning("%s: a worker died; %d shards are left", worker.stage.name, len(left))
            for shard in sorted(left):
                yield _alone(worker, shard)


def _alone(worker: Worker, shard: int) -> int:
    try:
        ((_, rows),) = _pool(worker, [shard], 1)
        return rows
    except BrokenProcessPool:
        worker.table.quarantine(shard, "the worker died", 2)
        return 0


def _pool(worker: Worker, shards: Sequence[int], workers: int) -> Iterator[tuple[int, int]]:
    """(shard, rows) as they are done; what waits is given up on an error."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _become, (worker,)) as pool:
        futures = {pool.submit(_make, shard): shard for shard in shards}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_worker: Worker


def _become(worker: Worker) -> None:
    global _worker
    _worker = worker


def _make(shard: int) -> int:
    """The worker sets itself up here: an error in a pool's initializer would look like a death."""
    return _worker.make(shard)
