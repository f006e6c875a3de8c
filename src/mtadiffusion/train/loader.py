"""Samples made by worker processes ahead of the training that asks for them, in the order in which it asks.

Every sample is decided by its number alone, so that any number of workers gives the same stream.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait
from typing import Any

from mtadiffusion.errors import UserError
from mtadiffusion.train.dataset import Batch, TrainingSamples

_AHEAD = 2
"""Results a worker that wait to be asked for, at most."""

_held: list[TrainingSamples] = []
"""In a worker process: its samples."""


class SampleWorkers:
    """Processes that hold the same samples. With none, the work is done in this process when asked for.

    They end when this object is no longer used, and when the process that started them dies.
    """

    def __init__(self, samples: TrainingSamples, count: int) -> None:
        self.samples, self.count = samples, count
        self._pool: ProcessPoolExecutor | None = None
        if count:
            import torch.multiprocessing  # noqa: F401  tensors then come back through shared memory

            spawning = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(count, spawning, initializer=_prepare, initargs=(samples,))
            weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)

    def submit(self, method: str, *arguments: Any) -> Future[Any]:
        """Have `method` of the samples called with the arguments."""
        if self._pool is not None:
            return self._guarded(lambda pool: pool.submit(_call, method, arguments))
        done: Future[Any] = Future()
        done.set_result(getattr(self.samples, method)(*arguments))
        return done

    def result(self, future: Future[Any]) -> Any:
        """What came of it. Raises UserError where a process died."""
        return self._guarded(lambda _: future.result())

    def map(self, method: str, arguments: Iterable[Any]) -> Iterator[Any]:
        """The method's results for each argument, in order."""
        upcoming, waiting = iter(arguments), deque[Future[Any]]()
        waiting.extend(self.submit(method, one) for one in islice(upcoming, 1 + _AHEAD * self.count))
        while waiting:
            yield self.result(waiting.popleft())
            waiting.extend(self.submit(method, one) for one in islice(upcoming, 1))

    def _guarded(self, action: Any) -> Any:
        try:
            return action(self._pool)
        except BrokenProcessPool as error:
            remedy = "the machine may be out of memory: take fewer workers"
            raise UserError("data.workers", "lost a process that was killed", self.count, remedy) from error


def _prepare(samples: TrainingSamples) -> None:
    """Signals are the training process's to answer; where it dies without one, so does the worker."""
    import torch

    torch.set_num_threads(1)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    _held.append(samples)


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _call(method: str, arguments: Sequence[Any]) -> Any:
    return getattr(_held[0], method)(*arguments)


class Loader:
    """Batches in pixels by their numbers.

    After two calls it knows by how much the numbers rise, and has the next batches made meanwhile.
    """

    def __init__(self, samples: TrainingSamples, workers: int) -> None:
        self._workers = SampleWorkers(samples, workers)
        self._waiting: dict[tuple[int, ...], Future[Batch]] = {}
        self._last: tuple[int, ...] = ()

    def batch(self, numbers: Sequence[int]) -> Batch:
        """The samples `numbers`, as `TrainingSamples.batch` gives them."""
        asked = tuple(numbers)
        if asked not in self._waiting:
            self._drop()
            self._waiting[asked] = self._workers.submit("batch", asked)
        rise = asked[0] - self._last[0] if self._last else len(asked)
        self._last = asked
        for ahead in range(1, 1 + _AHEAD * self._workers.count):
            upcoming = tuple(number + ahead * rise for number in asked)
            if rise > 0 and upcoming not in self._waiting:
                self._waiting[upcoming] = self._workers.submit("batch", upcoming)
        return self._workers.result(self._waiting.pop(asked))

    def _drop(self) -> None:
        for future in self._waiting.values():
            future.cancel()
        self._waiting.clear()
