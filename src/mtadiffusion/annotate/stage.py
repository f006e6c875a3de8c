"""What a stage is: a function from one shard's inputs to one shard of a table, with a model it sets up once.

A stage knows nothing of the engine that runs it, of other shards' workers, or of where its table is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import pyarrow as pa
from PIL import Image

from mtadiffusion.data.dataset import Dataset
from mtadiffusion.data.images import decoded
from mtadiffusion.data.sources import Spec
from mtadiffusion.data.tables import Table, fingerprint
from mtadiffusion.data.tars import MemberReader
from mtadiffusion.engines.engine import Resources


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What stages may read: a dataset and the tables in use."""

    dataset: Dataset
    """Root, plan and manifest."""

    tables: Mapping[str, Table]
    """Name -> table, of those that the stage reads."""

    decoders: int = 0
    """Threads that decode pictures ahead of the stage."""

    def shard(self, number: int) -> ShardInputs:
        """The part of one shard."""
        return ShardInputs(inputs=self, number=number)

    def whole(self, name: str, columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """(shard, rows) of a table, all shards that are done, in order."""
        table = self.tables[name]
        for number in range(self.dataset.manifest.shards):
            if table.has(number):
                yield number, table.read(number, columns)


@dataclass(frozen=True, kw_only=True)
class ShardInputs:
    """One shard of the inputs."""

    inputs: Inputs
    """All shards of them."""

    number: int
    """Which shard."""

    @property
    def root(self) -> Path:
        """The dataset's folder."""
        return self.inputs.dataset.root

    @property
    def spec(self) -> Spec:
        """What the source's part is read from."""
        return self.inputs.dataset.spec(self.number)

    def rows(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The shard of a table that the stage reads."""
        return self.inputs.tables[name].read(self.number, columns)

    def images(self, index: pa.Table, longest: int | None = None) -> Iterator[Image.Image]:
        """The pictures of some rows of the index, RGB, upright, shrunk to `longest`, one at a time."""
        rows = index.select(["url", "offset", "size"]).to_pylist()
        resolved = self.inputs.dataset.resolved
        with MemberReader() as reader:
            encoded = (reader.read(resolved(row["url"]), row["offset"], row["size"]) for row in rows)
            yield from decoded(encoded, longest, self.inputs.decoders)


class Stage(Protocol):
    """One table's maker. Plain data until `setup`, so that it travels to other processes."""

    name: ClassVar[str]
    """The table's name."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the tables that it reads."""

    @property
    def resources(self) -> Resources:
        """What one worker occupies."""

    def settings(self) -> Mapping[str, Any]:
        """All that the rows depend on besides the tables read; JSON-ready, part of the fingerprint."""

    def setup(self, inputs: Inputs) -> None:
        """Load the model. Once a worker, before the first shard."""

    def run(self, shard: ShardInputs) -> pa.Table:
        """The shard's rows, one an image of the index and in its order."""


@runtime_checkable
class Surveyor(Protocol):
    """A stage that has to know of all shards before it can make one."""

    def survey(self, inputs: Inputs) -> None:
        """Look at all shards. Once a run, where that was started; what is found travels to the workers."""


def table_of(stage: Stage, inputs: Inputs) -> Table:
    """The table that the stage makes of these inputs."""
    made_by = provenance(stage, inputs)
    return Table(root=inputs.dataset.root, name=stage.name, fingerprint=fingerprint(made_by))


def provenance(stage: Stage, inputs: Inputs) -> dict[str, Any]:
    """All that the stage's rows depend on, JSON-ready: what the fingerprint stands for."""
    reads = {name: inputs.tables[name].key for name in stage.reads}
    return {"stage": type(stage).__name__, "settings": dict(stage.settings()), "reads": reads}
