"""Participants' links, as whoever runs the study hands them out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mtadiffusion.errors import UserError
from mtadiffusion.study.create import MOST_PARTICIPANTS, check_span
from mtadiffusion.study.store import Participant, Store
from mtadiffusion.study.study import ANSWERS, Study


@dataclass(frozen=True, kw_only=True)
class Link:
    """A participant in a list."""

    number: int
    """As in reports."""

    state: str
    """invited, joined, begun, finished or withdrawn."""

    answers: str
    """Given so far, of all."""

    link: str
    """Personal; empty where it has been withdrawn."""


def participants_links(root: Path, url: str, invite: int = 0) -> tuple[list[Link], str | None]:
    """Every participant's link under the server's address `url`, and the open link where there is one.

    Args:
        root: the study's folder.
        url: where participants reach the server.
        invite: so many participants are added first.

    Raises:
        UserError: no study, an address that is none, or a number to be invited that is out of range.
    """
    if not url.startswith(("http://", "https://")):
        raise UserError("--url", "must begin with http:// or https://", url)
    check_span("--invite", invite, 0, MOST_PARTICIPANTS)
    base, study = url.rstrip("/"), Study.open(root)
    store = Store(root / ANSWERS)
    store.invite(invite)
    given = Counter(answer.participant for answer in store.answers())
    rows = [_link(one, base, f"{given[one.number]}/{study.answers_each}") for one in store.participants()]
    return rows, f"{base}/join/{store.enrolment}" if store.enrolment else None


def _link(one: Participant, base: str, answers: str) -> Link:
    link = "" if one.token is None else f"{base}/p/{one.token}"
    return Link(number=one.number, state=_state(one), answers=answers, link=link)


def _state(one: Participant) -> str:
    if one.token is None:
        return "withdrawn"
    if one.finished:
        return "finished"
    if one.consented:
        return "begun"
    return "joined" if one.enrolled else "invited"
