"""The engine on this machine: in this process, or in some processes that share a job's parts."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from mtadiffusion.engines.engine import Result, Worker

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Local:
    """Runs in `workers` processes, or here."""

    workers: int = 0
    """Processes; they and their models end with the job. 0: this process does the work."""

    def make(self, worker: Worker[Result], parts: Sequence[int]) -> Iterator[Result]:
        """See `Engine`."""
        if not self.workers:
            return map(worker.make, parts)
        return self._in_workers(worker, parts)

    def _in_workers(self, worker: Worker[Result], parts: Sequence[int]) -> Iterator[Result]:
        """When a worker dies, what is left is done part by part, each in a process of its own, so that
        only the part that kills its worker is given up."""
        left = set(parts)
        try:
            for part, result in _pool(worker, parts, self.workers):
                left.discard(part)
                yield result
        except BrokenProcessPool:
            logger.warning("%s: a worker died; %d parts are left", worker.name, len(left))
            for part in sorted(left):
                yield _alone(worker, part)


def _alone(worker: Worker[Result], part: int) -> Result:
    try:
        ((_, result),) = _pool(worker, [part], 1)
        return result
    except BrokenProcessPool:
        return worker.give_up(part, "the worker died", 2)


def _pool(worker: Worker[Result], parts: Sequence[int], workers: int) -> Iterator[tuple[int, Result]]:
    """(part, result) as they are done; what waits is given up on an error."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _become, (worker,)) as pool:
        futures = {pool.submit(_make, part): part for part in parts}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_worker: Worker[Any]


def _become(worker: Worker[Any]) -> None:
    global _worker
    _worker = worker


def _make(part: int) -> Any:
    """The worker sets itself up here: an error in a pool's initializer would look like a death."""
    return _worker.make(part)
