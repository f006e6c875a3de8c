"""Journals: torn and damaged lines, and a disk without space."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtadiffusion.data.files import DiskFullError
from mtadiffusion.evaluate.journal import Journal

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=8)


def test_the_last_row_about_an_item_holds(tmp_path):
    journal = Journal(tmp_path / "a" / "journal.jsonl")
    assert journal.latest() == {}
    journal.append([{"item": "x", "score": 1}, {"item": "y", "score": None}])
    journal.append([{"item": "x", "score": 2}])
    assert journal.latest() == {"x": {"item": "x", "score": 2}, "y": {"item": "y", "score": None}}


@settings(max_examples=25)
@given(
    rows=st.lists(st.fixed_dictionaries({"item": WORDS, "note": WORDS}), max_size=6), cut=st.integers(0, 400)
)
def test_a_journal_cut_anywhere_loses_only_what_was_cut(tmp_path_factory, rows, cut):
    journal = Journal(tmp_path_factory.mktemp("journal") / "journal.jsonl")
    journal.append(rows)
    content = journal.path.read_bytes() if rows else b""
    journal.path.write_bytes(content[: max(0, len(content) - cut)])
    kept = content[: max(0, len(content) - cut)].count(b"\n")
    journal.append([{"item": "after", "note": "the cut"}])
    expected = {row["item"]: row for row in [*rows[:kept], {"item": "after", "note": "the cut"}]}
    assert journal.latest() == expected


def test_damaged_lines_are_passed_over(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.path.write_bytes(b'{"item": "a"}\n\x00\xff\n[]\n{"score": 1}\n3\n{"item": "b"}\n')
    assert set(journal.latest()) == {"a", "b"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_the_users_to_mend():
    with pytest.raises(DiskFullError, match=r"^--out has no space left on its disk"):
        Journal(Path("/dev/full")).append([{"item": "x"}])
