"""Making a study: items drawn from what all runs have, pictures copied without a trace of their origin.

The folder appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from mtadiffusion.errors import UserError
from mtadiffusion.seeding import numpy_generator
from mtadiffusion.study.plan import CHECK
from mtadiffusion.study.questions import check_questions
from mtadiffusion.study.run import Loader, Run
from mtadiffusion.study.runs import common_items
from mtadiffusion.study.store import Store
from mtadiffusion.study.study import ANSWERS, PICTURES, Study, StudyItem

CONSENT = """\
You will see pictures in which a part was cut out, and what several computer programs painted into the gap.
We ask you to compare their results. There are no right or wrong answers: your own eye is what we want to
know.

We keep what you choose and when, under a number. We keep neither your name nor your address. The answers
are used for research and may be published in that form.

Taking part is up to you. You may stop at any time by closing the page, and whoever sent you the link can
delete your answers.
"""
"""Shown where the user gives no text of their own."""

MOST_IMAGES = 10_000
MOST_CHECKS = 100
MOST_PARTICIPANTS = 10_000
"""Personal links that are made at once."""

_LONGEST_CONSENT = 20_000
_LONGEST_PROMPT = 2_000


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a study asks of its participants."""

    images: int = 60
    """How many items; drawn from those that all runs have."""

    questions: tuple[str, ...] = ("alignment", "structure", "style")
    """Asked of each item, in this order."""

    checks: int = 2
    """Attention checks among them."""

    participants: int = 30
    """How many personal links."""

    most_enrolled: int = 0
    """How many more may come by the open link; 0: there is none."""

    consent: str = CONSENT
    """What a participant agrees to first."""

    seed: int = 0
    """Of the choice of items and of every order."""

    def __post_init__(self) -> None:
        check_questions(self.questions)
        check_span("--images", self.images, 1, MOST_IMAGES)
        check_span("--checks", self.checks, 0, MOST_CHECKS)
        check_span("--participants", self.participants, 0, MOST_PARTICIPANTS)
        check_span("--enrol", self.most_enrolled, 0, MOST_PARTICIPANTS)
        if not self.participants and not self.most_enrolled:
            raise UserError("--participants", "must be at least 1 without --enrol", 0)
        if not self.consent.strip() or len(self.consent) > _LONGEST_CONSENT:
            rule = f"must hold a text of at most {_LONGEST_CONSENT} characters"
            raise UserError("--consent", rule, f"{len(self.consent.strip())} characters")


def create_study(runs: Sequence[Run], terms: Terms, out: Path) -> Study:
    """Write a study's folder.

    Args:
        runs: at least two, of different methods.
        terms: what is asked.
        out: must not exist.

    Raises:
        UserError: the folder exists; too few common items; runs that differ in an item's prompt or hole; a
            picture that cannot be read or has another size.
    """
    if out.exists():
        raise UserError("--out", "must not exist yet", str(out), "choose another name or remove it")
    chosen, for_checks = _drawn(common_items(runs), terms)
    with _whole_folder(out) as folder:
        pictures = folder / PICTURES
        pictures.mkdir()
        named = [(item_id, item_id) for item_id in chosen]
        named += [(f"{CHECK}{number}", item_id) for number, item_id in enumerate(for_checks, 1)]
        with tqdm(named, desc="pictures", unit="item") as bar:
            items = tuple(_item(name, item_id, runs, pictures) for name, item_id in bar)
        study = Study(
            root=folder,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seed=terms.seed,
            questions=terms.questions,
            methods=tuple(run.method for run in runs),
            consent=terms.consent,
            items=items[: len(chosen)],
            checks=items[len(chosen) :],
        )
        study.save()
        Store.create(folder / ANSWERS, terms.participants, terms.most_enrolled).close()
    return Study.open(out)


def _drawn(common: Sequence[str], terms: Terms) -> tuple[list[str], list[str]]:
    """Items to be judged, and those whose pictures serve the checks: others where there are others."""
    if len(common) < terms.images:
        rule = f"must be at most {len(common)}, the number of items that all runs have"
        raise UserError("--images", rule, terms.images)
    order = numpy_generator(terms.seed, "study items").permutation(len(common))
    drawn = [common[index] for index in order]
    spare = drawn[terms.images :] or drawn
    return sorted(drawn[: terms.images]), list(islice(cycle(spare), terms.checks))


def _item(name: str, item_id: str, runs: Sequence[Run], pictures: Path) -> StudyItem:
    """Copy one item's pictures. They must fit together, or the runs are not of one benchmark."""
    found = [run.items[item_id] for run in runs]
    masked, *others = [_pixels(one.masked) for one in found]
    results = [_pixels(one.result) for one in found]
    for run, one, other in zip(runs[1:], found[1:], others, strict=True):
        if one.prompt != found[0].prompt or not np.array_equal(other, masked):
            rule = f"must show {item_id} with one prompt and one hole, other than {runs[0].source}"
            raise UserError("--runs", rule, run.source, "compare runs of one benchmark")
    for run, result in zip(runs, results, strict=True):
        if result.shape != masked.shape:
            rule = f"must have results of the size of their picture, not {_size(result)} for {_size(masked)}"
            raise UserError("--runs", rule, f"{run.source}, item {item_id}")
    if not 0 < len(found[0].prompt.strip()) <= _LONGEST_PROMPT:
        rule = f"must have prompts of 1 to {_LONGEST_PROMPT} characters"
        raise UserError("--runs", rule, f"{runs[0].source}, item {item_id}")
    saved = {run.method: _save(result, pictures) for run, result in zip(runs, results, strict=True)}
    return StudyItem(item_id=name, prompt=found[0].prompt, masked=_save(masked, pictures), results=saved)


def _pixels(load: Loader) -> np.ndarray:
    return np.asarray(load())


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def _save(pixels: np.ndarray, pictures: Path) -> str:
    """Write a PNG of nothing but pixels, named by its content; the file's name."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    name = f"{hashlib.sha256(buffer.getvalue()).hexdigest()}.png"
    (pictures / name).write_bytes(buffer.getvalue())
    return name


@contextmanager
def _whole_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` that gets its name when the block ends without an error, else vanishes."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        os.rename(partial, path)
    except OSError as error:
        raise UserError("--out", f"cannot be written ({error.strerror or error})", str(path)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_span(argument: str, value: int, least: int, most: int) -> None:
    """Raise a UserError for a number that is not from `least` to `most`."""
    if not least <= value <= most:
        raise UserError(argument, f"must be between {least} and {most}", value)
