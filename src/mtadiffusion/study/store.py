"""The answers: one SQLite file, in which an acknowledged answer is on disk.

Write-ahead logging lets a report read while people answer. `synchronous=FULL` syncs the log at every
commit, so that an answer survives not only the server's death but the machine's; at a study's pace (some
answers a second) the sync costs nothing that anyone notices, and `NORMAL` could lose the last seconds in a
power cut.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mtadiffusion.errors import UserError
from mtadiffusion.study.questions import TIE

_TABLES = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE participants (
  number INTEGER PRIMARY KEY, token TEXT UNIQUE, enrolled INTEGER NOT NULL,
  consented TEXT, finished TEXT
) STRICT;
CREATE TABLE answers (
  participant INTEGER NOT NULL REFERENCES participants, item_id TEXT NOT NULL, question TEXT NOT NULL,
  choice TEXT NOT NULL, position INTEGER, answered TEXT NOT NULL,
  PRIMARY KEY (participant, item_id, question)
) STRICT, WITHOUT ROWID;
"""

_SAVE = """
INSERT INTO answers SELECT number, ?, ?, ?, ?, ? FROM participants
WHERE number = ? AND consented IS NOT NULL AND finished IS NULL
ON CONFLICT DO UPDATE SET choice = excluded.choice, position = excluded.position, answered = excluded.answered
"""

_BUSY_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Participant:
    """Someone with a link."""

    number: int
    """From 1; all that a report names."""

    token: str | None
    """Unguessable; whoever has it answers as this participant. None when it was withdrawn."""

    enrolled: bool
    """Came by the open link rather than by invitation."""

    consented: str | None
    """When, ISO 8601 in UTC."""

    finished: str | None
    """When; from then on the answers are closed."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a participant chose."""

    participant: int
    """The number."""

    item_id: str
    """The benchmark's, or a check's."""

    question: str
    """By name."""

    choice: str
    """A method's name, or `tie`."""

    position: int | None
    """Where that result was shown, from 1; None for a tie."""

    answered: str
    """When it was last given, ISO 8601 in UTC."""


class ClosedError(RuntimeError):
    """An answer before the consent or after the end."""


class Store:
    """One connection to a study's answers, safe to share among threads."""

    def __init__(self, path: Path) -> None:
        """Open the answers of a study.

        Raises:
            UserError: there is no such file, or it holds something else.
        """
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=_BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA secure_delete = ON")
            settings = dict(self._db.execute("SELECT name, value FROM settings"))
        except sqlite3.Error as error:
            remedy = "name a folder that `mta study create` made"
            raise UserError("STUDY", f"has no readable answers ({error})", str(path), remedy) from None
        self.secret: str = settings["secret"]
        self.enrolment: str | None = settings.get("enrolment")
        self._most_enrolled = int(settings.get("most_enrolled", "0"))

    @classmethod
    def create(cls, path: Path, participants: int, most_enrolled: int = 0) -> Store:
        """A new store with links for so many participants, and an open link for so many more."""
        path.touch(mode=0o600, exist_ok=False)
        settings = {"secret": secrets.token_hex(32)}
        if most_enrolled:
            settings |= {"enrolment": secrets.token_urlsafe(32), "most_enrolled": str(most_enrolled)}
        db = sqlite3.connect(path)
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(_TABLES)
        db.executemany("INSERT INTO settings VALUES (?, ?)", settings.items())
        db.commit()
        db.close()
        store = cls(path)
        store.invite(participants)
        return store

    def close(self) -> None:
        """Close the file; the write-ahead log is folded in by whoever closes last."""
        with self._lock:
            self._db.close()

    def invite(self, count: int) -> list[Participant]:
        """More participants, each with a new link."""
        rows = [(secrets.token_urlsafe(32),) for _ in range(count)]
        with self._transaction() as db:
            db.executemany("INSERT INTO participants (token, enrolled) VALUES (?, 0)", rows)
        tokens = {token for (token,) in rows}
        return [one for one in self.participants() if one.token in tokens]

    def enrol(self) -> Participant | None:
        """One more participant by the open link; None when as many came as may."""
        token = secrets.token_urlsafe(32)
        with self._transaction() as db:
            db.execute(
                "INSERT INTO participants (token, enrolled) SELECT ?, 1"
                " WHERE (SELECT count(*) FROM participants WHERE enrolled) < ?",
                (token, self._most_enrolled),
            )
        return self.participant(token)

    def participant(self, token: str) -> Participant | None:
        """Who has this token."""
        found = self._participants("WHERE token = ?", token)
        return found[0] if found else None

    def participants(self) -> list[Participant]:
        """All of them, by number."""
        return self._participants("ORDER BY number")

    def consent(self, number: int) -> None:
        """The participant agrees; the first time counts."""
        with self._transaction() as db:
            change = "UPDATE participants SET consented = ? WHERE number = ? AND consented IS NULL"
            db.execute(change, (_now(), number))

    def finish(self, number: int, answers: int) -> bool:
        """Close the participant's answers if there are so many; whether they are closed now."""
        with self._transaction() as db:
            db.execute(
                "UPDATE participants SET finished = ? WHERE number = ? AND finished IS NULL"
                " AND (SELECT count(*) FROM answers WHERE participant = number) >= ?",
                (_now(), number, answers),
            )
        return self._participants("WHERE number = ?", number)[0].finished is not None

    def save(self, number: int, item_id: str, question: str, choice: str, position: int | None) -> None:
        """Keep an answer; one to the same question replaces it. On disk when this returns.

        Raises:
            ClosedError: the participant has not agreed yet, or has finished.
        """
        assert (choice == TIE) == (position is None)
        with self._transaction() as db:
            row = (item_id, question, choice, position, _now(), number)
            if db.execute(_SAVE, row).rowcount != 1:
                raise ClosedError

    def answers(self, number: int | None = None) -> list[Answer]:
        """A participant's answers, or everyone's, in a fixed order."""
        where, values = ("", ()) if number is None else ("WHERE participant = ?", (number,))
        order = "ORDER BY participant, item_id, question"
        with self._lock:
            rows = self._db.execute(f"SELECT * FROM answers {where} {order}", values).fetchall()
        return [
            Answer(
                participant=who, item_id=item, question=question, choice=choice, position=at, answered=when
            )
            for who, item, question, choice, at, when in rows
        ]

    def forget(self, number: int) -> int:
        """Delete a participant's answers, consent and link for good; how many answers there were.

        Raises:
            UserError: there is no such participant.
        """
        with self._transaction() as db:
            deleted = db.execute("DELETE FROM answers WHERE participant = ?", (number,)).rowcount
            change = (
                "UPDATE participants SET token = NULL, consented = NULL, finished = NULL WHERE number = ?"
            )
            found = db.execute(change, (number,)).rowcount
            if not found:
                raise UserError("--participant", "must be a number that `mta study links` lists", number)
        with self._lock:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return deleted

    def _participants(self, rest: str, *values: object) -> list[Participant]:
        query = f"SELECT number, token, enrolled, consented, finished FROM participants {rest}"
        with self._lock:
            rows = self._db.execute(query, values).fetchall()
        return [
            Participant(
                number=number, token=token, enrolled=bool(enrolled), consented=agreed, finished=finished
            )
            for number, token, enrolled, agreed, finished in rows
        ]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
