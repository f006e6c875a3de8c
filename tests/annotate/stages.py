"""A stage for the tests of engines."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from mtadiffusion.annotate.run import StageReport, run_stages
from mtadiffusion.annotate.stage import Inputs, ShardInputs, Stage
from mtadiffusion.data.dataset import Dataset
from mtadiffusion.engines.engine import Engine, Resources


@dataclass(kw_only=True)
class Brightness:
    """Each picture's mean grey value; told how to fail."""

    longest: int = 16
    faulty_shard: int | None = None
    """This shard raises."""

    deadly_shard: int | None = None
    """This shard kills its process."""

    broken: bool = False
    """There is nothing to set up."""

    name: ClassVar[str] = "brightness"
    reads: ClassVar[tuple[str, ...]] = ("index",)
    resources: ClassVar[Resources] = Resources()

    def settings(self) -> Mapping[str, Any]:
        return {"longest": self.longest}

    def setup(self, inputs: Inputs) -> None:
        if self.broken:
            raise OSError("no such model\nand a long story")
        self.ready = True

    def run(self, shard: ShardInputs) -> pa.Table:
        assert self.ready
        if shard.number == self.faulty_shard:
            raise RuntimeError("cannot do this one")
        if shard.number == self.deadly_shard:
            os.kill(os.getpid(), signal.SIGKILL)
        index = shard.rows("index")
        means = [sum(image.convert("L").tobytes()) for image in shard.images(index, self.longest)]
        return pa.table({"image_id": index["image_id"], "mean": means})


def reports_of(root: Path, source: Path, stages: list[Stage], engine: Engine) -> dict[str, StageReport]:
    """Run the stages, two images a shard; their reports by table."""
    dataset = Dataset.open_or_plan(root, str(source), 2)
    return {report.table.name: report for report in run_stages(dataset, stages, engine)}


def contents(root: Path) -> dict[str, Any]:
    """Everything in a dataset, tables as rows."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in root.rglob("*") if p.is_file() and p.name != ".lock"):
        name = path.relative_to(root).as_posix()
        found[name] = pq.read_table(path).to_pylist() if path.suffix == ".parquet" else path.read_bytes()
    return found
