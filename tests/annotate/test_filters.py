"""Which images stay, and why the others do not."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mtadiffusion.annotate.duplicates import NEAR_BITS, Repeats, near_repeats
from mtadiffusion.annotate.filters import Filters
from mtadiffusion.annotate.index import Index
from mtadiffusion.annotate.run import run_stages
from mtadiffusion.data.dataset import Dataset
from mtadiffusion.engines.local import Local
from mtadiffusion.errors import UserError

from .conftest import encoded


def source_of(path, images, **columns):
    """A Parquet file of images, one a shard."""
    rows = [{"jpg": data, "key": f"k{i}"} for i, data in enumerate(images)]
    rows = [row | {name: values[i] for name, values in columns.items()} for i, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def reasons(tmp_path, source, filters, shard_size=2):
    """The reason of every image, None for kept ones."""
    dataset = Dataset.open_or_plan(tmp_path / "ds", str(source), shard_size)
    run_stages(dataset, [Index(), filters], Local())
    dataset = Dataset.open(tmp_path / "ds")
    table = dataset.table("filters")
    rows = [row for n in range(dataset.manifest.shards) for row in table.read(n).to_pylist()]
    assert [row["status"] == "kept" for row in rows] == [row["reason"] is None for row in rows]
    return [row["reason"] for row in rows]


def test_small_long_and_unreadable_images_are_rejected(tmp_path):
    sizes = [(96, 64), (96, 40), (30_000, 64), (1, 1)]
    images = [encoded(i, size, "PNG") for i, size in enumerate(sizes)]
    source = source_of(tmp_path / "s.parquet", [*images, b"nothing"])
    found = reasons(tmp_path, source, Filters(min_resolution=64, max_aspect=2))
    assert found == [None, "small", "aspect", "small", "unreadable"]


def test_an_unscored_image_stays_and_a_score_of_zero_counts(tmp_path):
    scores = [6.0, 5.0, None, 0.0]
    source = source_of(tmp_path / "s.parquet", [encoded(i) for i in range(4)], aesthetic=scores)
    assert reasons(tmp_path, source, Filters(min_aesthetic=5.8)) == [None, "aesthetic", None, "aesthetic"]


def test_the_source_s_flag_is_honoured(tmp_path):
    flags = ["NSFW", "UNLIKELY", "UNSURE", None]
    source = source_of(tmp_path / "s.parquet", [encoded(i) for i in range(4)], NSFW=flags)
    assert reasons(tmp_path, source, Filters()) == ["unsafe", None, None, None]


def recompressed(data, quality):
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def test_of_equal_images_the_first_stays_also_in_another_shard(tmp_path):
    first, other = encoded(0), encoded(1)
    source = source_of(tmp_path / "s.parquet", [first, other, first, recompressed(first, 60), other])
    found = reasons(tmp_path, source, Filters())
    assert found == [None, None, "duplicate", "near duplicate", "duplicate"]


@given(
    hashes=st.lists(st.integers(0, 2**64 - 1), max_size=12),
    flips=st.lists(st.tuples(st.integers(0, 11), st.sets(st.integers(0, 63), max_size=6)), max_size=8),
)
def test_near_hashes_are_those_that_comparing_all_pairs_finds(hashes, flips):
    values = [*hashes]
    for place, bits in flips:
        if place < len(hashes):
            values.append(hashes[place] ^ sum(1 << bit for bit in bits))
    array, counted = np.array(values, dtype=np.uint64), np.ones(len(values), dtype=bool)
    expected = [any((v ^ e).bit_count() <= NEAR_BITS for e in values[:i]) for i, v in enumerate(values)]
    assert near_repeats(array, counted).tolist() == expected


def test_hashes_are_compared_once_a_run_and_a_byte_an_image_travels_to_workers(tmp_path, monkeypatch):
    calls, among = [], Repeats.among.__func__
    monkeypatch.setattr(Repeats, "among", lambda inputs: calls.append(1) or among(Repeats, inputs))
    source = source_of(tmp_path / "s.parquet", [encoded(0)] * 9)
    filters = Filters()
    assert reasons(tmp_path, source, filters, shard_size=1) == [None, *["duplicate"] * 8]
    assert reasons(tmp_path, source, filters, shard_size=1) == [None, *["duplicate"] * 8]
    assert len(calls) == 1  # the second run found nothing to make
    assert filters._repeats.found.nbytes == 9
    assert len(pickle.dumps(filters)) < 2000


def test_an_index_that_cannot_be_read_is_told_in_one_line(tmp_path):
    source = source_of(tmp_path / "s.parquet", [encoded(0)])
    dataset = Dataset.open_or_plan(tmp_path / "ds", str(source), 2)
    (report,) = run_stages(dataset, [Index()], Local())
    report.table.path(0).write_bytes(b"no Parquet")
    with pytest.raises(UserError, match="filters cannot be set up; "):
        run_stages(Dataset.open(tmp_path / "ds"), [Filters()], Local())


def test_duplicates_stay_where_they_are_wanted(tmp_path):
    source = source_of(tmp_path / "s.parquet", [encoded(0)] * 3)
    assert reasons(tmp_path, source, Filters(duplicates=False)) == [None] * 3


def test_other_thresholds_make_another_table_over_the_same_index(tmp_path):
    source = source_of(tmp_path / "s.parquet", [encoded(i) for i in range(3)])
    reasons(tmp_path, source, Filters())
    assert reasons(tmp_path, source, Filters(min_resolution=65)) == ["small"] * 3
    assert len(list((tmp_path / "ds").glob("filters-*"))) == 2
    assert len(list((tmp_path / "ds").glob("index-*"))) == 1


@pytest.mark.parametrize("wrong", [{"min_resolution": -1}, {"max_aspect": 0.5}])
def test_thresholds_that_cannot_be_are_mistakes(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Filters(**wrong)
