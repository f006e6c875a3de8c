"""The runs that a study compares: read from the folders that the user named, and held against one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from mtadiffusion.errors import UserError
from mtadiffusion.study.evaluation_run import is_evaluation, read_evaluation
from mtadiffusion.study.plain_run import read_plain
from mtadiffusion.study.run import Run

MOST_METHODS = 9
"""Each has a digit of the keyboard."""


def read_runs(words: Sequence[str]) -> list[Run]:
    """The runs that the words of `--runs` name: `NAME=DIR` of a plain folder, or an evaluation's `DIR`.

    A finished evaluation has a run for each of its methods; `NAME=DIR` takes one of several, or gives
    a single one another name.

    Raises:
        UserError: a folder that is missing or no run, fewer than two methods, more than nine, or one twice.
    """
    runs = [run for word in words for run in _read(word)]
    if not 2 <= len(runs) <= MOST_METHODS:
        named = ", ".join(run.method for run in runs)
        raise UserError("--runs", f"must have 2 to {MOST_METHODS} methods in all", named)
    twice = [name for name, count in Counter(run.method for run in runs).items() if count > 1]
    if twice:
        raise UserError("--runs", "must have each method once", twice[0], "write NAME=DIR to rename one")
    return runs


def common_items(runs: Sequence[Run]) -> list[str]:
    """Ids of the items that every run has, sorted.

    Raises:
        UserError: there are none; the message names two runs that share none, where two are to blame.
    """
    common = set.intersection(*(set(run.items) for run in runs))
    if not common:
        apart = next(
            ((a, b) for a in runs for b in runs if not set(a.items) & set(b.items)), (runs[0], runs[-1])
        )
        named = " and ".join(run.source for run in apart)
        raise UserError("--runs", "must have items in common", named, "compare runs of one benchmark")
    return sorted(common)


def _read(word: str) -> Iterator[Run]:
    name, given, path = word.partition("=")
    if Path(word).is_dir() or not given:
        name, path = "", word
    folder = Path(path)
    if not folder.is_dir():
        raise UserError("--runs", "must be a folder or NAME=FOLDER", word, "there is no such folder")
    if is_evaluation(folder):
        yield from read_evaluation(folder, name or None)
    else:
        yield read_plain(name or folder.name, folder)
