"""The order of visits: every record, once an epoch, batches of one bucket."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mtadiffusion.train.order import SampleOrder


def test_each_epoch_visits_every_record_once_in_another_order() -> None:
    order = SampleOrder(12, seed=3)
    epochs = [[order.place(12 * epoch + place)[0] for place in range(12)] for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0] != epochs[1]
    assert order.place(5) == SampleOrder(12, seed=3).place(5)


@settings(max_examples=40, deadline=None)
@given(
    buckets=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    group=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_batches_are_of_one_bucket_and_an_epoch_shows_all(buckets: list[int], group: int, seed: int) -> None:
    of_record = np.array(buckets)
    order = SampleOrder(len(buckets), seed, of_record, group)
    visits = [order.place(number)[0] for number in range(order.epoch_length)]
    assert set(visits) == set(range(len(buckets)))
    assert len(visits) < len(buckets) + group * len(set(buckets))
    if len(set(buckets)) > 1:
        batches = of_record[visits].reshape(-1, group)
        assert (batches == batches[:, :1]).all()


def test_substitutes_are_of_the_same_bucket_and_the_same_every_time() -> None:
    buckets = np.arange(20) % 3
    order = SampleOrder(20, 0, buckets, group=2)
    places = list(order.candidates(7))
    assert places[0] == order.place(7)
    assert len({buckets[record] for record, _ in places}) == 1
    assert places == list(SampleOrder(20, 0, buckets, group=2).candidates(7))
