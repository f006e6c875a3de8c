"""Runs stages on this machine, shard by shard, in this process or in some workers.

What a killed run left is taken up again: the shards that are absent. A shard that fails is tried again, then
quarantined with its error, and the rest goes on.
"""

from __future__ import annotations

import logging
import multiprocessing
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from tqdm import tqdm

from mtadiffusion.annotate.stage import Inputs, Stage, provenance, table_of
from mtadiffusion.data.dataset import Dataset
from mtadiffusion.data.files import DiskFullError
from mtadiffusion.data.tables import Table
from mtadiffusion.errors import UserError

ATTEMPTS = 3
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StageReport:
    """What a run did for one stage."""

    table: Table
    """The table it made or completed."""

    made: int
    """Shards made in this run."""

    reused: int
    """Shards that were there."""

    failed: dict[int, str]
    """Shard -> error, of quarantined ones."""


def run_stages(dataset: Dataset, stages: Sequence[Stage], workers: int = 0) -> list[StageReport]:
    """Run stages in order; `workers` 0 runs them in this process.

    The caller holds the dataset's lock (`data.dataset.writing`).
    """
    reports = []
    for stage in stages:
        inputs = Inputs(dataset=dataset, tables={name: dataset.table(name) for name in stage.reads})
        report = _run_stage(stage, inputs, workers)
        dataset = dataset.using(report.table)
        reports.append(report)
    return reports


def _run_stage(stage: Stage, inputs: Inputs, workers: int) -> StageReport:
    table, count = table_of(stage, inputs), inputs.dataset.manifest.shards
    table.describe(provenance(stage, inputs))
    absent = table.absent(count)
    runnable = [n for n in absent if all(inputs.tables[name].has(n) for name in stage.reads)]
    work = (stage, inputs, table, runnable)
    done = _in_workers(*work, workers) if workers else _here(*work)
    with tqdm(total=count, initial=count - len(absent), desc=stage.name, unit="shard") as bar:
        for _ in done:
            bar.update()
    made = len(absent) - len(table.absent(count))
    return StageReport(table=table, made=made, reused=count - len(absent), failed=table.quarantined())


def _here(stage: Stage, inputs: Inputs, table: Table, shards: Sequence[int]) -> Iterator[int]:
    if shards:
        _set_up(stage, inputs)
    for shard in shards:
        make_shard(stage, inputs, table, shard)
        yield shard


def _set_up(stage: Stage, inputs: Inputs) -> None:
    try:
        stage.setup(inputs)
    except UserError:
        raise
    except Exception as error:  # a model that is not there, or does not load, in whatever way
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(stage.name, "cannot be set up", remedy=first[0]) from error


def make_shard(stage: Stage, inputs: Inputs, table: Table, shard: int) -> None:
    """Make and write one shard, or quarantine it after `ATTEMPTS` failures."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            table.write(shard, stage.run(inputs.shard(shard)))
            return
        except DiskFullError:
            raise
        except Exception as error:
            logger.warning("%s, shard %d, attempt %d: %s", stage.name, shard, attempt, error)
            last = "".join(traceback.format_exception(error))
    table.quarantine(shard, last, ATTEMPTS)


def _in_workers(
    stage: Stage, inputs: Inputs, table: Table, shards: Sequence[int], workers: int
) -> Iterator[int]:
    """Shards as they are done.

    When a worker dies, what is left is done shard by shard, each in a process of its own, so that only the
    shard that kills its worker is quarantined.
    """
    left = set(shards)
    try:
        for shard in _one_pool(stage, inputs, table, shards, workers):
            left.discard(shard)
            yield shard
    except BrokenProcessPool:
        logger.warning("%s: a worker died; %d shards are left", stage.name, len(left))
        for shard in sorted(left):
            yield from _alone(stage, inputs, table, shard)


def _alone(stage: Stage, inputs: Inputs, table: Table, shard: int) -> Iterator[int]:
    try:
        yield from _one_pool(stage, inputs, table, [shard], 1)
    except BrokenProcessPool:
        table.quarantine(shard, "the worker died", 2)


def _one_pool(
    stage: Stage, inputs: Inputs, table: Table, shards: Sequence[int], workers: int
) -> Iterator[int]:
    with ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _give_work, (stage, inputs, table)
    ) as pool:
        futures = {pool.submit(_make_in_worker, shard): shard for shard in shards}
        for future in as_completed(futures):
            future.result()
            yield futures[future]


_work: tuple[Stage, Inputs, Table]
_ready = False


def _give_work(stage: Stage, inputs: Inputs, table: Table) -> None:
    global _work
    _work = stage, inputs, table


def _make_in_worker(shard: int) -> None:
    """Set up with the first shard: an error in a pool's initializer would look like a worker's death."""
    global _ready
    if not _ready:
        _set_up(*_work[:2])
        _ready = True
    make_shard(*_work, shard)
