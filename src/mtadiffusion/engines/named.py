"""Engines by the names that the command line takes, and the device that their workers have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mtadiffusion.engines import on_ray
from mtadiffusion.engines.engine import Engine
from mtadiffusion.engines.local import Local
from mtadiffusion.errors import UserError, nearest_name
from mtadiffusion.models.loading import torch_device

EXECUTORS = ("local", "ray")


@contextmanager
def engine(
    executor: str, workers: int | None, *, address: str | None = None, device: str = "auto"
) -> Iterator[tuple[Engine, str]]:
    """An engine that is ready, and the device of its workers' models.

    Args:
        executor: one of `EXECUTORS`.
        workers: workers a job; None: one process on this machine, or all that the cluster has room for.
        address: of a Ray cluster; None: see `on_ray.connected`.
        device: `auto`, or a device that is checked on this machine, or taken as it is on a cluster.

    Raises:
        UserError: no such executor, an address without Ray, no such device, no cluster.
    """
    if executor not in EXECUTORS:
        raise UserError("--executor", "must be local or ray", executor, nearest_name(executor, EXECUTORS))
    if executor == "local":
        if address is not None:
            raise UserError("--ray-address", "goes with --executor ray", address)
        yield Local(1 if workers is None else workers), str(torch_device(device))
        return
    with on_ray.connected(address):
        found = ("cuda" if on_ray.has_gpus() else "cpu") if device == "auto" else device
        yield on_ray.OnRay(workers or 0), found
