"""The answers' store: what is acknowledged stays, and what is closed stays closed."""

from __future__ import annotations

import sqlite3
import threading

import pytest

from mtadiffusion.errors import UserError
from mtadiffusion.study.store import ClosedError, Store


@pytest.fixture
def empty(tmp_path):
    return Store.create(tmp_path / "answers.sqlite3", 2, most_enrolled=1)


def test_commits_are_synced_to_a_write_ahead_log(empty):
    pragma = {
        name: empty._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
    }
    assert pragma == {"journal_mode": "wal", "synchronous": 2}


def test_an_answer_is_there_for_another_connection_as_soon_as_it_is_saved(empty, tmp_path):
    empty.consent(1)
    empty.save(1, "a", "style", "ours", 2)
    [answer] = Store(tmp_path / "answers.sqlite3").answers()
    assert (answer.participant, answer.item_id, answer.choice, answer.position) == (1, "a", "ours", 2)


def test_the_last_answer_to_a_question_holds(empty):
    empty.consent(1)
    empty.save(1, "a", "style", "ours", 2)
    empty.save(1, "a", "style", "tie", None)
    assert [(one.choice, one.position) for one in empty.answers(1)] == [("tie", None)]


def test_answers_before_the_consent_and_after_the_end_are_refused(empty):
    with pytest.raises(ClosedError):
        empty.save(1, "a", "style", "ours", 1)
    empty.consent(1)
    empty.save(1, "a", "style", "ours", 1)
    assert not empty.finish(1, answers=2)
    assert empty.finish(1, answers=1)
    with pytest.raises(ClosedError):
        empty.save(1, "a", "style", "theirs", 2)
    assert [one.choice for one in empty.answers()] == ["ours"]


def test_consent_and_end_keep_their_first_time(empty):
    empty.consent(1)
    empty.finish(1, answers=0)
    before = empty.participants()[0]
    empty.consent(1)
    empty.finish(1, answers=0)
    assert empty.participants()[0] == before


def test_tokens_are_long_and_different(empty):
    empty.invite(20)
    tokens = {one.token for one in empty.participants()}
    assert len(tokens) == 22
    assert min(map(len, tokens)) >= 43


def test_the_open_link_admits_as_many_as_it_says(empty):
    assert empty.enrol().enrolled
    assert empty.enrol() is None


def test_whoever_withdraws_leaves_no_answer_and_no_link(empty, tmp_path):
    token = empty.participants()[0].token
    empty.consent(1)
    empty.save(1, "a-rare-item", "style", "ours", 1)
    assert empty.forget(1) == 1
    assert empty.answers() == []
    assert empty.participant(token) is None
    left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"a-rare-item" not in left


def test_forgetting_nobody_is_the_users_mistake(empty):
    with pytest.raises(UserError, match="--participant"):
        empty.forget(99)


def test_threads_share_a_store(empty):
    for number in (1, 2):
        empty.consent(number)

    def answer(number):
        for item in range(20):
            empty.save(number, f"item {item}", "style", "ours", 1)

    threads = [threading.Thread(target=answer, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(empty.answers()) == 40


def test_a_failed_change_leaves_the_store_usable(empty):
    empty.consent(1)
    with pytest.raises(sqlite3.Error):
        empty.save(1, "a", "style", object(), 1)
    empty.save(1, "a", "style", "ours", 1)
    assert len(empty.answers()) == 1


def test_only_the_owner_may_read_the_file(empty, tmp_path):
    assert (tmp_path / "answers.sqlite3").stat().st_mode & 0o077 == 0


def test_a_file_that_is_no_store_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="no readable answers"):
        Store(tmp_path / "absent.sqlite3")
    (tmp_path / "text.sqlite3").write_text("nothing of the kind")
    with pytest.raises(UserError, match="no readable answers"):
        Store(tmp_path / "text.sqlite3")
