"""The whole of MTAPipeline in one call: a source, a folder, some stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mtadiffusion.annotate.run_local import StageReport, run_stages
from mtadiffusion.annotate.stage import Stage
from mtadiffusion.data.dataset import Dataset, writing

SHARD_SIZE = 1000
"""Images a shard: small enough to be done again, large enough that its files are few."""


def annotate(
    source: str, out: Path, stages: Sequence[Stage], *, workers: int = 0, shard_size: int = SHARD_SIZE
) -> list[StageReport]:
    """Annotate a source into the dataset in `out`; what an earlier run did there stays.

    Args:
        source: folder, tar, Parquet file or glob; a path or an fsspec URL (`data.sources.plan`).
        out: the dataset's folder, on a disk that all workers see.
        stages: in order; each reads tables of earlier ones, of this run or one before it.
        workers: processes that share the shards of a stage; 0 does the work here.
        shard_size: images a shard, where the source does not say.

    Raises:
        UserError: nothing to read, another run is at work in `out`, or its disk is full.
    """
    with writing(out):
        return run_stages(Dataset.open_or_plan(out, source, shard_size), stages, workers)
