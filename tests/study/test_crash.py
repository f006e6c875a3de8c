"""Thirty people at once, and a server that dies under them: the benchmark of the study, scaled down."""

from __future__ import annotations

import study


def test_no_acknowledged_answer_is_lost_when_the_server_is_killed_under_thirty_participants() -> None:
    size = study.Size(participants=30, images=1, questions=("alignment", "style"), methods=2, kills=1)
    figures = study.answers_lost(size)
    assert figures["study_answers_lost"] == 0
    assert figures["study_answers_acknowledged"] == figures["study_answers_stored"] == 30 * 2 * (1 + 2)
    assert (figures["study_kills"], figures["study_pictures_leaked"]) == (1, 0)
