"""The walk over a shard that stages share: who is seen, in what order, and whose rows are filled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pytest

from mtadiffusion.annotate.index import Index
from mtadiffusion.annotate.run import run_stages
from mtadiffusion.annotate.stage import Inputs
from mtadiffusion.annotate.walk import ObjectWalk, batches, spread, views
from mtadiffusion.data.dataset import Dataset
from mtadiffusion.data.tables import Table
from mtadiffusion.engines.engine import Resources
from mtadiffusion.engines.local import Local

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("objects", pa.list_(pa.struct([("status", pa.string()), ("n", pa.int64())]))),
    ]
)


@dataclass(kw_only=True)
class Fixed:
    """A table whose objects have these statuses and are numbered over the whole shard."""

    name: str
    statuses: list[list[str]]
    reads: ClassVar[tuple[str, ...]] = ("index",)
    resources: ClassVar[Resources] = Resources()

    def settings(self):
        return {}

    def setup(self, inputs):
        """Nothing to load."""

    def run(self, shard):
        ids = shard.rows("index", ["image_id"])["image_id"].to_pylist()
        numbers = iter(range(100))
        rows = [
            {"image_id": one, "objects": [{"status": s, "n": next(numbers)} for s in statuses]}
            for one, statuses in zip(ids, self.statuses, strict=True)
        ]
        return pa.Table.from_pylist(rows, schema=SCHEMA)


@pytest.fixture
def shard(make_tars, tmp_path):
    """Four images; of the third no object goes on, the fourth has none."""
    first = [["kept", "kept"], ["rejected", "kept"], ["kept"], []]
    second = [["kept", "rejected"], ["skipped", "kept"], ["rejected"], []]
    stages = [Index(), Fixed(name="boxes", statuses=first), Fixed(name="texts", statuses=second)]
    dataset = Dataset.open_or_plan(tmp_path / "ds", str(make_tars(tars=1)), 4)
    tables = {report.table.name: report.table for report in run_stages(dataset, stages, Local())}
    return Inputs(dataset=dataset, tables=tables).shard(0)


def test_objects_go_on_that_the_last_table_kept_with_their_entries_in_all(shard):
    walk = ObjectWalk(shard, "boxes", "texts")
    assert [[(a["n"], b["n"]) for a, b in image] for image in walk.kept()] == [[(0, 0)], [(3, 3)], [], []]


def test_only_pictures_with_objects_that_go_on_are_seen(shard):
    seen = list(ObjectWalk(shard, "boxes", "texts").seen(48))
    assert [len(objects) for _, objects in seen] == [1, 1]
    for view, _ in seen:
        assert (view.picture.size, view.size) == ((48, 32), (96, 64))


def test_every_image_has_a_row_and_every_object_an_entry(shard):
    entries = iter([{"status": "kept", "n": 7}, {"status": "rejected", "n": 8}])
    rows = ObjectWalk(shard, "boxes", "texts").table(entries, SCHEMA).to_pylist()
    skipped = {"status": "skipped", "n": None}
    assert [row["objects"] for row in rows] == [
        [{"status": "kept", "n": 7}, skipped],
        [skipped, {"status": "rejected", "n": 8}],
        [skipped],
        [],
    ]
    assert [row["image_id"] for row in rows] == shard.rows("index")["image_id"].to_pylist()


def test_tables_that_do_not_go_together_are_refused(shard):
    rows = shard.rows("texts").to_pylist()
    rows[0]["objects"].pop()
    table: Table = shard.inputs.tables["texts"]
    table.write(0, pa.Table.from_pylist(rows, schema=SCHEMA))
    with pytest.raises(ValueError, match="shorter"):
        ObjectWalk(shard, "boxes", "texts")


def test_pictures_are_those_of_the_images_that_are_wanted(shard):
    wanted = [True, False, False, True]
    alone = [next(views(shard, [n == number for n in range(4)], 96)) for number in (0, 3)]
    both = list(views(shard, wanted, 96))
    assert [v.picture.tobytes() for v in both] == [v.picture.tobytes() for v in alone]


def test_answers_go_to_those_that_were_wanted():
    assert spread([False, True, True, False], iter("ab"), "-") == ["-", "a", "b", "-"]


def test_batches_hold_everything_once_and_the_last_may_be_short():
    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batches([], 2)) == []
