"""What each participant sees: everything once, in orders of their own, under names that tell nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtadiffusion.study.plan import CHECK, expected_position, make_plan
from mtadiffusion.study.study import Study, StudyItem

METHODS = ("a", "b", "c")


def item(item_id):
    files = (f"{abs(hash((item_id, name))):064x}.png" for name in METHODS)
    return StudyItem(
        item_id=item_id,
        prompt="a thing",
        masked="0" * 64 + ".png",
        results=dict(zip(METHODS, files, strict=True)),
    )


def study_of(images, checks, seed=0):
    return Study(
        root=Path("nowhere"),
        created="2026-01-01",
        seed=seed,
        questions=("style",),
        methods=METHODS,
        consent="yes",
        items=tuple(item(f"item-{number}") for number in range(images)),
        checks=tuple(item(f"{CHECK}{number}") for number in range(checks)),
    )


def ids(plan):
    return [one.item.item_id for one in plan.shown]


@given(st.integers(1, 40), st.integers(0, 5), st.integers(1, 1000))
def test_everyone_sees_every_item_and_check_once_and_never_a_check_first(images, checks, number):
    study = study_of(images, checks)
    shown = ids(make_plan(study, number, "secret"))
    assert Counter(shown) == Counter(one.item_id for one in (*study.items, *study.checks))
    assert not shown[0].startswith(CHECK)


@given(st.integers(20, 60), st.integers(2, 4), st.integers(1, 1000))
def test_checks_are_spread(images, checks, number):
    shown = ids(make_plan(study_of(images, checks), number, "secret"))
    places = [place for place, name in enumerate(shown) if name.startswith(CHECK)]
    assert all(second - first > 1 for first, second in pairwise(places))


def test_a_plan_is_the_same_every_time_and_another_for_another_participant_or_seed():
    study = study_of(20, 2)
    assert make_plan(study, 3, "secret") == make_plan(study, 3, "secret")
    assert ids(make_plan(study, 3, "secret")) != ids(make_plan(study, 4, "secret"))
    assert ids(make_plan(study, 3, "secret")) != ids(make_plan(replace(study, seed=1), 3, "secret"))


def test_one_item_s_positions_do_not_depend_on_the_other_items():
    few, many = study_of(5, 0), study_of(30, 2)
    orders = [
        {one.item.item_id: one.methods for one in make_plan(study, 2, "secret").shown}
        for study in (few, many)
    ]
    assert orders[0].items() <= orders[1].items()


def test_every_method_is_shown_at_every_position_alike():
    study = study_of(60, 0)
    counts = Counter(
        (place, method)
        for number in range(1, 31)
        for one in make_plan(study, number, "secret").shown
        for place, method in enumerate(one.methods)
    )
    assert len(counts) == 9
    assert all(count == pytest.approx(600, abs=90) for count in counts.values())


def test_pictures_names_are_each_participant_s_own_and_hide_the_files():
    study = study_of(10, 1)
    first, second = (make_plan(study, number, "secret").files for number in (1, 2))
    assert not first.keys() & second.keys()
    assert not first.keys() & make_plan(study, 1, "other secret").files.keys()
    assert len(first) == 11 * (1 + len(METHODS))
    assert not {name for name in first if any(name in file or file[:16] in name for file in first.values())}


def test_a_check_asks_for_a_position_that_exists_and_not_always_the_same():
    study = study_of(4, 1)
    asked = {expected_position(study, number, f"{CHECK}0") for number in range(1, 40)}
    assert asked == {1, 2, 3}
    for one in make_plan(study, 5, "secret").shown:
        check = one.item.item_id.startswith(CHECK)
        assert one.expected == (expected_position(study, 5, one.item.item_id) if check else None)
