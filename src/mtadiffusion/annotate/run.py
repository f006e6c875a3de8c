"""Runs stages over a dataset, in order, on an engine: in this process, in some processes, or on Ray.

What a killed run left is taken up again: the shards that are absent. A shard that fails is tried again, then
quarantined with its error, and the rest goes on.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tqdm import tqdm

from mtadiffusion.annotate.stage import Inputs, Stage, Surveyor, provenance, table_of
from mtadiffusion.data.dataset import Dataset
from mtadiffusion.data.files import DiskFullError
from mtadiffusion.data.tables import Table
from mtadiffusion.engines.engine import ATTEMPTS, Engine, Resources
from mtadiffusion.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Worker:
    """What makes shards of one stage's table, wherever it lives; plain data until the first shard."""

    stage: Stage
    inputs: Inputs
    table: Table
    ready: bool = field(default=False, init=False)
    """Whether the stage is set up."""

    @property
    def name(self) -> str:
        """The stage's."""
        return self.stage.name

    @property
    def resources(self) -> Resources:
        """The stage's."""
        return self.stage.resources

    def make(self, shard: int) -> int:
        """Make and write one shard, or quarantine it after `ATTEMPTS` failures; the rows written.

        Raises:
            UserError: the stage cannot be set up, or the disk is full; then no other shard would fare better.
        """
        if not self.ready:
            with _told_in_one_line(self.stage):
                self.stage.setup(self.inputs)
            self.ready = True
        for attempt in range(1, ATTEMPTS + 1):
            try:
                rows = self.stage.run(self.inputs.shard(shard))
                self.table.write(shard, rows)
                return rows.num_rows
            except DiskFullError:
                raise
            except Exception as error:
                logger.warning("%s, shard %d, attempt %d: %s", self.stage.name, shard, attempt, error)
                last = "".join(traceback.format_exception(error))
        return self.give_up(shard, last, ATTEMPTS)

    def give_up(self, shard: int, reason: str, attempts: int) -> int:
        """Quarantine a shard; 0 rows."""
        self.table.quarantine(shard, reason, attempts)
        return 0


@contextmanager
def _told_in_one_line(stage: Stage) -> Iterator[None]:
    """What can go wrong before a stage's first shard, in whatever way: a model that is not there, say."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(stage.name, "cannot be set up", remedy=first[0]) from error


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

    images: int
    """Rows made in this run."""

    seconds: float
    """Wall time of this run's part."""


def run_stages(dataset: Dataset, stages: Sequence[Stage], engine: Engine) -> list[StageReport]:
    """Run stages in order. The caller holds the dataset's lock (`data.dataset.writing`)."""
    reports = []
    for stage in stages:
        tables = {name: dataset.table(name) for name in stage.reads}
        inputs = Inputs(dataset=dataset, tables=tables, decoders=stage.resources.decoders)
        report = _run_stage(stage, inputs, engine)
        dataset = dataset.using(report.table)
        reports.append(report)
    return reports


def _run_stage(stage: Stage, inputs: Inputs, engine: Engine) -> StageReport:
    begun = time.monotonic()
    table, count = table_of(stage, inputs), inputs.dataset.manifest.shards
    table.describe(provenance(stage, inputs))
    absent = table.absent(count)
    runnable = [n for n in absent if all(inputs.tables[name].has(n) for name in stage.reads)]
    if runnable and isinstance(stage, Surveyor):
        with _told_in_one_line(stage):
            stage.survey(inputs)
    images = 0
    with tqdm(total=count, initial=count - len(absent), desc=stage.name, unit="shard") as bar:
        for rows in engine.make(Worker(stage=stage, inputs=inputs, table=table), runnable):
            images += rows
            bar.set_postfix_str(f"{images / (time.monotonic() - begun):.1f} images/s", refresh=False)
            bar.update()
    return StageReport(
        table=table,
        made=len(absent) - len(table.absent(count)),
        reused=count - len(absent),
        failed=table.quarantined(),
        images=images,
        seconds=time.monotonic() - begun,
    )
