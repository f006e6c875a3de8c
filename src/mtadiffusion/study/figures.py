"""What the votes say: shares with intervals, and how far people agree.

Two intervals stand beside each share. Wilson's takes votes for independent, which they are not: people have
tastes, and pictures have winners. The other one resamples participants and items at once (Owen 2007, "The
pigeonhole bootstrap"), so that it says what other people might have chosen on other pictures; it is the one
to quote.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mtadiffusion.seeding import numpy_generator
from mtadiffusion.study.ballot import Ballot
from mtadiffusion.study.questions import QUESTIONS

LEVEL = 0.95
"""Of every interval."""

RESAMPLES = 2000
"""Of the bootstrap."""

_DIGITS = 6


def question_figures(ballot: Ballot, question: str) -> dict[str, Any]:
    """Votes and shares of each choice, and the participants' agreement on one question; JSON-ready."""
    votes = ballot.votes(question)
    counts = votes.sum(axis=(0, 1))
    total = int(counts.sum())
    resampled = resampled_shares(votes, numpy_generator(ballot.study.seed, f"study bootstrap {question}"))
    choices = [
        {
            "choice": choice,
            "votes": int(count),
            "share": _rounded(count / total) if total else None,
            "interval": _percentiles(resampled[:, index]) if total else None,
            "wilson": wilson(int(count), total) if total else None,
        }
        for index, (choice, count) in enumerate(zip(ballot.choices, counts, strict=True))
    ]
    return {
        "name": question,
        "text": QUESTIONS[question].text,
        "votes": total,
        "choices": choices,
        "alpha": krippendorff_alpha(votes),
    }


def resampled_shares(votes: np.ndarray, rng: np.random.Generator, resamples: int = RESAMPLES) -> np.ndarray:
    """float64 (resamples, choices): shares where participants and items are drawn anew, with replacement.

    Args:
        votes: (participants, items, choices), 1 where chosen.
        rng: draws them.
        resamples: how often.
    """
    people, items, choices = votes.shape
    if not votes.any():
        return np.zeros((resamples, choices))
    drawn_people = rng.multinomial(people, np.full(people, 1 / people), resamples)
    drawn_items = rng.multinomial(items, np.full(items, 1 / items), resamples)
    by_item = (drawn_people @ votes.reshape(people, -1).astype(float)).reshape(resamples, items, choices)
    counts = np.einsum("ri,ric->rc", drawn_items, by_item)
    totals = counts.sum(axis=1, keepdims=True)
    return (counts / np.maximum(totals, 1))[totals[:, 0] > 0]


def wilson(count: int, total: int) -> list[float]:
    """Wilson's interval of a share."""
    from scipy.stats import binomtest

    interval = binomtest(count, total).proportion_ci(LEVEL, method="wilson")
    return [_rounded(interval.low), _rounded(interval.high)]


def krippendorff_alpha(votes: np.ndarray) -> float | None:
    """Krippendorff's alpha of nominal votes: 1 = all agree, 0 = as chance would have it.

    None where it is not defined: no item has two votes, or all such votes are the same.

    Args:
        votes: (participants, items, choices), 1 where chosen; gaps are allowed.
    """
    from nltk.metrics.agreement import AnnotationTask

    paired = votes * (votes.sum(axis=(0, 2)) >= 2)[None, :, None]
    if np.count_nonzero(paired.sum(axis=(0, 1))) < 2:
        return None
    triples = [(person, item, choice) for person, item, choice in np.argwhere(paired).tolist()]
    return _rounded(AnnotationTask(data=triples).alpha())


def item_rows(ballot: Ballot) -> list[dict[str, Any]]:
    """Votes by item, question and choice: a row an item, a column `QUESTION.CHOICE`; JSON-ready."""
    by_question = {question: ballot.votes(question).sum(axis=0) for question in ballot.study.questions}
    rows = []
    for index, item in enumerate(ballot.study.items):
        row: dict[str, Any] = {"item_id": item.item_id, "prompt": item.prompt}
        for question, counts in by_question.items():
            named = zip(ballot.choices, counts[index].tolist(), strict=True)
            row |= {f"{question}.{choice}": count for choice, count in named}
        rows.append(row)
    return rows


def _percentiles(values: np.ndarray) -> list[float]:
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return [_rounded(low), _rounded(high)]


def _rounded(value: float) -> float:
    return round(float(value), _DIGITS)
