"""The engine on a Ray cluster, or on Ray in this machine: a pool of actors a job.

Each actor holds a copy of the worker with its models and has one part at a time, so when an actor dies it is
known which part it died of. Numbers of parts and small results travel: what is large the actors read and
write themselves, so the folders they work in must lie on a disk that all nodes see.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mtadiffusion.engines.engine import ATTEMPTS, Resources, Result, Worker
from mtadiffusion.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OnRay:
    """Runs on the cluster that this process is connected to (`connected`)."""

    workers: int = 0
    """Actors a job; 0: as many as the cluster has room for."""

    def make(self, worker: Worker[Result], parts: Sequence[int]) -> Iterator[Result]:
        """See `Engine`."""
        resources = worker.resources
        count = min(self.workers or _room(resources), len(parts))
        pool = _Pool(worker, resources)
        try:
            yield from pool.make(parts, count)
        finally:
            pool.end()


@contextmanager
def connected(address: str | None = None, *, cpus: int | None = None) -> Iterator[None]:
    """A connection to the cluster at `address`; None: `RAY_ADDRESS`, else Ray is started on this machine.

    Args:
        address: `auto`, `HOST:PORT` or `ray://HOST:PORT`.
        cpus: what a Ray that is started here hands out; None: all cores.

    Raises:
        UserError: Ray is not installed, or no cluster answers.
    """
    ray = _ray()
    try:
        ray.init(address=address, num_cpus=cpus, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError) as error:
        remedy = "start one with `ray start --head`, or leave --ray-address out"
        raise UserError("--ray-address", "must be a running Ray cluster", address, remedy) from error
    try:
        yield
    finally:
        ray.shutdown()


def has_gpus() -> bool:
    """Whether the connected cluster has a GPU now."""
    return _ray().cluster_resources().get("GPU", 0) > 0


class _Pool:
    """Actors of one job, and which part each of them has."""

    def __init__(self, worker: Worker[Any], resources: Resources) -> None:
        self._ray, self._worker = _ray(), worker
        self._actor_class = self._ray.remote(_Actor).options(
            num_cpus=resources.cpus, num_gpus=resources.gpus, max_restarts=0
        )
        self._handed_out: dict[Any, tuple[Any, int]] = {}
        self._deaths: Counter[int] = Counter()

    def make(self, parts: Sequence[int], count: int) -> Iterator[Any]:
        """Result of each part as it is done; a dead actor is replaced and its part tried again."""
        waiting = list(reversed(parts))
        for _ in range(count):
            self._give(self._new_actor(), waiting.pop())
        while self._handed_out:
            (done,), _ = self._ray.wait(list(self._handed_out), num_returns=1)
            actor, part = self._handed_out.pop(done)
            again, result, actor = self._outcome(done, actor, part)
            if again:
                waiting.append(part)
            else:
                yield result
            if waiting:
                self._give(actor or self._new_actor(), waiting.pop())
            elif actor:
                self._ray.kill(actor)

    def end(self) -> None:
        """Kill the actors that are still at work."""
        for actor, _ in self._handed_out.values():
            self._ray.kill(actor)
        self._handed_out.clear()

    def _new_actor(self) -> Any:
        return self._actor_class.remote(self._worker)

    def _give(self, actor: Any, part: int) -> None:
        call = actor.make.options(name=f"{self._worker.name}: part {part}").remote(part)
        self._handed_out[call] = actor, part

    def _outcome(self, call: Any, actor: Any, part: int) -> tuple[bool, Any, Any]:
        """(whether to try the part again; its result; the actor, None if it is dead)."""
        try:
            return False, self._ray.get(call), actor
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayActorError:
            self._deaths[part] += 1
            logger.warning("%s: a worker died of part %d", self._worker.name, part)
        if self._deaths[part] < ATTEMPTS:
            return True, None, None
        return False, self._worker.give_up(part, "the worker died", ATTEMPTS), None


class _Actor:
    """A worker in a process of its own, somewhere in the cluster."""

    def __init__(self, worker: Worker[Any]) -> None:
        self._worker = worker

    def make(self, part: int) -> Any:
        return self._worker.make(part)


def _room(resources: Resources) -> int:
    """How many such workers the cluster can hold now; at least one, which then waits for a node."""
    have = _ray().cluster_resources()
    needs = {"CPU": resources.cpus, "GPU": resources.gpus}
    room = min(int(have.get(kind, 0) // need) for kind, need in needs.items() if need)
    if not room:
        logger.warning("no node has room for a worker of %s: waiting for one", needs)
    return max(1, room)


def _ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError:
        remedy = "pip install 'mtadiffusion[ray]'"
        raise UserError("--executor", "needs the package ray", "ray", remedy) from None
    return ray
