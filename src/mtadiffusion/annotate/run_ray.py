"""The engine on a Ray cluster, or on Ray in this machine: a pool of actors a stage.

Each actor holds the stage's model and has one shard at a time, so when an actor dies it is known which shard
it died of. Nothing but shard numbers travels: the actors write the tables, so the dataset's folder, and a
source that is no URL, must lie on a disk that all nodes see.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mtadiffusion.annotate.run import ATTEMPTS, Worker
from mtadiffusion.annotate.stage import Resources
from mtadiffusion.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OnRay:
    """Runs on the cluster that this process is connected to (`connected`)."""

    workers: int = 0
    """Actors a stage; 0: as many as the cluster has room for."""

    def make(self, worker: Worker, shards: Sequence[int]) -> Iterator[int]:
        """See `Engine`."""
        resources = worker.stage.resources
        count = min(self.workers or _room(resources), len(shards))
        pool = _Pool(worker, resources)
        try:
            yield from pool.make(shards, count)
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
    """Actors of one stage, and which shard each of them has."""

    def __init__(self, worker: Worker, resources: Resources) -> None:
        self._ray, self._worker = _ray(), worker
        self._actor_class = self._ray.remote(_Actor).options(
            num_cpus=resources.cpus, num_gpus=resources.gpus, max_restarts=0
        )
        self._handed_out: dict[Any, tuple[Any, int]] = {}
        self._deaths: Counter[int] = Counter()

    def make(self, shards: Sequence[int], count: int) -> Iterator[int]:
        """Rows of each shard as it is done; a dead actor is replaced and its shard tried again."""
        waiting = list(reversed(shards))
        for _ in range(count):
            self._give(self._new_actor(), waiting.pop())
        while self._handed_out:
            (done,), _ = self._ray.wait(list(self._handed_out), num_returns=1)
            actor, shard = self._handed_out.pop(done)
            rows, actor = self._outcome(done, actor, shard)
            if rows is None:
                waiting.append(shard)
            else:
                yield rows
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

    def _give(self, actor: Any, shard: int) -> None:
        call = actor.make.options(name=f"{self._worker.stage.name}: shard {shard}").remote(shard)
        self._handed_out[call] = actor, shard

    def _outcome(self, call: Any, actor: Any, shard: int) -> tuple[int | None, Any]:
        """(rows, None to try the shard again; the actor, None if it is dead)."""
        try:
            return self._ray.get(call), actor
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayActorError:
            self._deaths[shard] += 1
            logger.warning("%s: a worker died of shard %d", self._worker.stage.name, shard)
        if self._deaths[shard] < ATTEMPTS:
            return None, None
        self._worker.table.quarantine(shard, "the worker died", ATTEMPTS)
        return 0, None


class _Actor:
    """A worker in a process of its own, somewhere in the cluster."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def make(self, shard: int) -> int:
        return self._worker.make(shard)


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
