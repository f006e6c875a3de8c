"""Whose answers count: participants who read along, and their votes as arrays."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mtadiffusion.study.plan import CHECK, expected_position
from mtadiffusion.study.questions import TIE
from mtadiffusion.study.store import Answer, Participant, Store
from mtadiffusion.study.study import Study


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """The votes that count, and whose do not."""

    study: Study
    """What was asked."""

    answers: tuple[Answer, ...]
    """Those that count; none to attention checks."""

    invited: int
    """Participants with a link, by invitation or the open one."""

    begun: tuple[int, ...]
    """Numbers of those who agreed."""

    finished: tuple[int, ...]
    """Numbers of those who finished."""

    failed: Mapping[int, int]
    """Number of each who failed more attention checks than allowed, to how many."""

    unfinished: tuple[int, ...]
    """Numbers of those left out for not having finished."""

    allowed_failures: int
    """Attention checks that one may fail."""

    @property
    def choices(self) -> tuple[str, ...]:
        """The methods, then the tie."""
        return (*self.study.methods, TIE)

    @property
    def counted(self) -> tuple[int, ...]:
        """Numbers of those of whom some answer counts."""
        return tuple(sorted({answer.participant for answer in self.answers}))

    def votes(self, question: str) -> np.ndarray:
        """uint8 (participants, items, choices): 1 where this participant chose this.

        Participants as in `counted`, items as in the study; where there is no answer all are 0.
        """
        items = {item.item_id: index for index, item in enumerate(self.study.items)}
        people = {number: index for index, number in enumerate(self.counted)}
        choices = {choice: index for index, choice in enumerate(self.choices)}
        votes = np.zeros((len(people), len(items), len(choices)), np.uint8)
        for one in self.answers:
            if one.question == question:
                votes[people[one.participant], items[one.item_id], choices[one.choice]] = 1
        return votes

    def positions(self) -> Counter[int]:
        """How often the result at each position, from 1, was chosen: even, where people judge by looking."""
        return Counter(one.position for one in self.answers if one.position is not None)


def count_ballot(
    study: Study, store: Store, *, allowed_failures: int = 0, finished_only: bool = False
) -> Ballot:
    """All votes but those of participants who failed attention checks.

    A participant fails a check by answering any of its questions otherwise than instructed, and is left out
    after failing more than `allowed_failures` of them. Checks not reached yet are not failed.

    Args:
        study: what was asked.
        store: its answers.
        allowed_failures: checks that one may fail.
        finished_only: also leave out who has not finished.
    """
    people, answers = store.participants(), store.answers()
    failures = failed_checks(study, answers)
    failed = {number: count for number, count in failures.items() if count > allowed_failures}
    finished = _numbers([one for one in people if one.finished])
    begun = _numbers([one for one in people if one.consented])
    dropped = sorted(set(begun) - set(finished) - set(failed)) if finished_only else []
    left_out = {*failed, *dropped}
    return Ballot(
        study=study,
        answers=tuple(
            one for one in answers if one.participant not in left_out and not one.item_id.startswith(CHECK)
        ),
        invited=len(people),
        begun=begun,
        finished=finished,
        failed=failed,
        unfinished=tuple(dropped),
        allowed_failures=allowed_failures,
    )


def failed_checks(study: Study, answers: Sequence[Answer]) -> dict[int, int]:
    """Number of each participant who failed any attention check, to how many."""
    failed: dict[int, set[str]] = defaultdict(set)
    for one in answers:
        check = one.item_id.startswith(CHECK)
        if check and one.position != expected_position(study, one.participant, one.item_id):
            failed[one.participant].add(one.item_id)
    return {number: len(checks) for number, checks in sorted(failed.items())}


def _numbers(people: Sequence[Participant]) -> tuple[int, ...]:
    return tuple(one.number for one in people)
