"""The whole of MTAPipeline in one call: a source, a folder, some stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mtadiffusion.annotate.run import StageReport, run_stages
from mtadiffusion.annotate.stage import Stage
from mtadiffusion.data.dataset import Dataset, writing
from mtadiffusion.engines.engine import Engine
from mtadiffusion.engines.local import Local

SHARD_SIZE = 1000
"""Images a shard: small enough to be done again, large enough that its files are few."""


def annotate(
    source: str,
    out: Path,
    stages: Sequence[Stage],
    *,
    engine: Engine | None = None,
    shard_size: int = SHARD_SIZE,
    annotations: Sequence[Path] = (),
) -> list[StageReport]:
    """Annotate a source into the dataset in `out`; what an earlier run did there stays.

    Args:
        source: folder, tar, Parquet file or glob; a path or an fsspec URL (`data.sources.plan`).
        out: the dataset's folder, on a disk that all workers see.
        stages: in order; each reads tables of earlier ones, of this run or one before it.
        engine: where shards are made (`mtadiffusion.engines`); by default in this process.
        shard_size: images a shard, where the source does not say.
        annotations: files with the source's own boxes, masks and texts (`data.annotation_files`).

    Raises:
        UserError: nothing to read, another run is at work in `out`, or its disk is full.
    """
    root = out.absolute()  # workers on other machines start elsewhere
    with writing(root):
        dataset = Dataset.open_or_plan(root, source, shard_size, annotations)
        return run_stages(dataset, stages, engine or Local())
