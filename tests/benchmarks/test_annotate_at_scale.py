"""The simulator of annotation: bounds that any schedule obeys."""

from __future__ import annotations

import annotate_at_scale
import pytest
from annotate_at_scale import StageRate, simulate
from hypothesis import given
from hypothesis import strategies as st

RATE = StageRate(name="detect", seconds=0.5, start=10.0, gpu=True)


def test_one_worker_takes_the_sum():
    assert simulate(RATE, [100, 50], 1, spread=0.0) == pytest.approx(10 + 75)


def test_more_workers_than_shards_take_as_long_as_the_largest():
    assert simulate(RATE, [100, 50, 20], 8, spread=0.0) == pytest.approx(10 + 50)


@given(shards=st.lists(st.integers(1, 1000), min_size=1, max_size=50), workers=st.integers(1, 20))
def test_no_schedule_beats_its_work_or_wastes_more_than_a_shard(shards, workers):
    seconds = simulate(RATE, shards, workers, spread=0.0) - RATE.start
    work = 0.5 * sum(shards) / workers
    assert max(work, 0.5 * max(shards)) - 1e-6 <= seconds <= work + 0.5 * max(shards) + 1e-6


def test_the_plan_of_the_paper_s_corpus_adds_up():
    plan = annotate_at_scale.plan(10_000, 100, gpus=4, cores=8, spread=0.1)
    assert plan["shards"] == 100
    assert plan["wall_hours"] == pytest.approx(sum(plan["hours"].values()), abs=0.03)
    assert plan["gpu_hours"] >= plan["gpu_hours_at_work"] == 2
