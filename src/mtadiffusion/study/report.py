"""A study's outcome as files: a page, its plots, tables as CSV, and all figures as JSON.

Participants appear by their number only; nothing here holds a link.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image

from mtadiffusion.data.files import whole_file, write_json
from mtadiffusion.pages import page
from mtadiffusion.study import figures, plots
from mtadiffusion.study.ballot import Ballot, count_ballot
from mtadiffusion.study.questions import QUESTIONS
from mtadiffusion.study.store import Participant, Store
from mtadiffusion.study.study import ANSWERS, PICTURES, Study, StudyItem

_THUMBNAIL = 160
"""The longer side of the page's pictures in pixels."""


def write_report(
    root: Path, out: Path, *, allowed_failures: int = 0, finished_only: bool = False
) -> dict[str, Any]:
    """Evaluate a study, which may go on meanwhile, and write `index.html`, `report.json`, `shares.csv`,
    `items.csv`, `answers.csv` and the plots.

    Args:
        root: the study's folder.
        out: created if need be; files of an earlier report are replaced, each whole.
        allowed_failures: attention checks that a participant may fail and still count.
        finished_only: leave out who has not finished.

    Returns:
        What `report.json` holds.

    Raises:
        UserError: no study.
    """
    study, store = Study.open(root), Store(root / ANSWERS)
    ballot = count_ballot(study, store, allowed_failures=allowed_failures, finished_only=finished_only)
    report = summary(ballot, store.participants())
    rows = figures.item_rows(ballot)
    drawn = {"shares.png": plots.shares_plot(report["questions"])}
    for question in study.questions:
        drawn[f"items-{question}.png"] = plots.items_plot(rows, question, ballot.choices)
    for name, content in drawn.items():
        _write(out / name, content)
    _write(out / "items.csv", _csv(rows))
    _write(out / "shares.csv", _csv(_share_rows(report["questions"])))
    _write(out / "answers.csv", _csv([vars(answer) for answer in ballot.answers]))
    write_json(out / "report.json", report)
    _write(out / "index.html", _page(ballot, report, rows, drawn).encode())
    return report


def summary(ballot: Ballot, people: Sequence[Participant]) -> dict[str, Any]:
    """Every figure of a study; JSON-ready."""
    study, positions = ballot.study, ballot.positions()
    return {
        "study": {
            "created": study.created,
            "seed": study.seed,
            "methods": list(study.methods),
            "images": len(study.items),
            "checks": len(study.checks),
        },
        "participants": {
            "links": ballot.invited,
            "begun": len(ballot.begun),
            "finished": len(ballot.finished),
            "counted": len(ballot.counted),
            "allowed_failures": ballot.allowed_failures,
            "failed_checks": [
                {"participant": number, "failed": count} for number, count in sorted(ballot.failed.items())
            ],
            "left_out_unfinished": list(ballot.unfinished),
            "median_minutes": _median_minutes([one for one in people if one.number in ballot.counted]),
        },
        "interval": {"level": figures.LEVEL, "resamples": figures.RESAMPLES},
        "questions": [figures.question_figures(ballot, question) for question in study.questions],
        "positions": {str(place): positions[place] for place in range(1, len(study.methods) + 1)},
    }


def _median_minutes(people: Sequence[Participant]) -> float | None:
    """From the consent to the end, of those who finished."""
    spans = [
        datetime.fromisoformat(one.finished) - datetime.fromisoformat(one.consented)
        for one in people
        if one.finished and one.consented
    ]
    return round(median(span.total_seconds() for span in spans) / 60, 1) if spans else None


def _share_rows(questions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "question": question["name"],
            "choice": choice["choice"],
            "votes": choice["votes"],
            "share": choice["share"],
            **_ends("interval", choice["interval"]),
            **_ends("wilson", choice["wilson"]),
        }
        for question in questions
        for choice in question["choices"]
    ]


def _ends(name: str, interval: Sequence[float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue().encode()


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as file:
        file.write(content)


def _page(ballot: Ballot, report: Mapping[str, Any], rows: Sequence[Any], drawn: Mapping[str, bytes]) -> str:
    study = ballot.study
    return page(
        "study_report.html",
        report=report,
        questions=[QUESTIONS[name] for name in study.questions],
        choices=ballot.choices,
        methods=study.methods,
        plots={name: _url(content, "png") for name, content in drawn.items()},
        items=[
            {"row": row, "pictures": _thumbnails(study, item)}
            for row, item in zip(rows, study.items, strict=True)
        ],
    )


def _thumbnails(study: Study, item: StudyItem) -> dict[str, str]:
    """Small copies of an item's pictures, for the page: `masked` first, then by method."""
    files = {"before": item.masked, **{method: item.results[method] for method in study.methods}}
    return {name: _thumbnail(study.root / PICTURES / file) for name, file in files.items()}


def _thumbnail(path: Path) -> str:
    with Image.open(path) as image:
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
    return _url(buffer.getvalue(), "jpeg")


def _url(content: bytes, form: str) -> str:
    return f"data:image/{form};base64,{base64.b64encode(content).decode()}"
