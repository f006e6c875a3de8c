"""Runs from a finished evaluation: the folder that `mta evaluate` leaves has one for each of its methods.

Participants see of each item what the evaluation's own page shows as given: the picture, its hole striped.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mtadiffusion.errors import UserError
from mtadiffusion.evaluate.folder import ABOUT
from mtadiffusion.evaluate.report.gallery import FOLDER
from mtadiffusion.evaluate.report.results import SCORES, Outcome, read_scores
from mtadiffusion.imaging.images import load_image
from mtadiffusion.study.run import Run, RunItem, inside


def is_evaluation(folder: Path) -> bool:
    """Whether `mta evaluate` works in this folder."""
    return (folder / ABOUT).is_file()


def read_evaluation(folder: Path, name: str | None = None) -> Iterator[Run]:
    """A run for each method; items that a method failed at are not among its items.

    Args:
        folder: an evaluation's.
        name: of several methods, the one wanted; of a single one, what it is called from here on.

    Raises:
        UserError: an evaluation that is not finished or damaged, or that has no method of this name.
    """
    if not (folder / SCORES).is_file():
        remedy = f"run mta evaluate --out {folder} to its end"
        raise UserError("--runs", "must be a finished evaluation", str(folder), remedy)
    outcomes = read_scores(folder)
    methods = list(dict.fromkeys(outcome.method for outcome in outcomes))
    wanted = {methods[0]: name} if name and len(methods) == 1 else {one: one for one in methods}
    if name and len(methods) > 1:
        if name not in methods:
            rule = f"must name one of the methods in {folder}: {', '.join(methods)}"
            raise UserError("--runs", rule, name)
        wanted = {name: name}
    for method, called in wanted.items():
        items = {
            outcome.item: _item(folder, outcome, outcome.picture)
            for outcome in outcomes
            if outcome.method == method and outcome.picture is not None
        }
        yield Run(method=called, source=f"{folder} {method}", items=items)


def _item(folder: Path, outcome: Outcome, picture: str) -> RunItem:
    given, result = (inside(folder, path) for path in (f"{FOLDER}/{outcome.item}-given.webp", picture))
    return RunItem(
        prompt=outcome.prompt,
        masked=partial(load_image, given, "--runs"),
        result=partial(load_image, result, "--runs"),
    )
