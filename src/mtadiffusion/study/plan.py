"""What one participant sees: which items in which order, whose result where, under names that tell nothing.

All of it follows from the study's seed, the participant's number and the item, so nothing needs to be
stored and a study shows the same after any restart. The pictures' names are keyed by the store's secret:
they differ from participant to participant and cannot be guessed.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtadiffusion.seeding import numpy_generator
from mtadiffusion.study.study import Study, StudyItem

CHECK = "check:"
"""What the ids of attention checks begin with; a benchmark's ids hold no colon."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An item as one participant sees it."""

    item: StudyItem
    """What lies behind it."""

    methods: tuple[str, ...]
    """Whose result is at positions 1, 2, ..."""

    masked: str
    """The blinded name of the picture with its hole."""

    results: tuple[str, ...]
    """The blinded names of the results, by position."""

    expected: int | None
    """The position that an attention check asks for, from 1; None where the choice is free."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A participant's way through the study."""

    shown: tuple[Shown, ...]
    """Items and checks in this participant's order."""

    files: dict[str, str]
    """Blinded name to the file's name in `pictures/`."""


def make_plan(study: Study, number: int, secret: str) -> Plan:
    """The plan of participant `number`; `secret` keys the pictures' names."""
    shown = tuple(_shown(study, number, item, secret) for item in _order(study, number))
    files: dict[str, str] = {}
    for one in shown:
        files[one.masked] = one.item.masked
        files |= {
            name: one.item.results[method] for name, method in zip(one.results, one.methods, strict=True)
        }
    return Plan(shown=shown, files=files)


def expected_position(study: Study, number: int, check_id: str) -> int:
    """Which result a check asks participant `number` to choose, from 1."""
    rng = numpy_generator(study.seed, f"study check {check_id}", number)
    return int(rng.integers(1, len(study.methods) + 1))


def _order(study: Study, number: int) -> Sequence[StudyItem]:
    """The items shuffled; the checks spread over them, never first nor, where there is room, side by side."""
    rng = numpy_generator(study.seed, "study order", number)
    order = [study.items[index] for index in rng.permutation(len(study.items))]
    edges = np.linspace(1, len(order), len(study.checks) + 1).round().astype(int)
    for place in reversed(range(len(study.checks))):
        at = int(rng.integers(edges[place], max(edges[place + 1], edges[place] + 1)))
        order.insert(at, study.checks[place])
    return order


def _shown(study: Study, number: int, item: StudyItem, secret: str) -> Shown:
    rng = numpy_generator(study.seed, f"study positions {item.item_id}", number)
    methods = tuple(study.methods[index] for index in rng.permutation(len(study.methods)))
    check = item.item_id.startswith(CHECK)
    return Shown(
        item=item,
        methods=methods,
        masked=_blinded(secret, number, item.item_id, "masked"),
        results=tuple(_blinded(secret, number, item.item_id, f"result {method}") for method in methods),
        expected=expected_position(study, number, item.item_id) if check else None,
    )


def _blinded(secret: str, number: int, item_id: str, what: str) -> str:
    return hmac.new(secret.encode(), f"{number}/{item_id}/{what}".encode(), "sha256").hexdigest()[:32]
