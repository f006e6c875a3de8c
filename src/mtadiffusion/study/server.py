"""The study over HTTP: a page for each personal link, its pictures under blinded names, and the answers.

Whoever has a link's token acts as that participant and as no other; there are no accounts and no
administration here. Every response forbids caching, framing and referrers, since the token is part of the
address. An answer is on disk before it is acknowledged.
"""

import base64
import hashlib
import re
from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from mtadiffusion.pages import page
from mtadiffusion.study.plan import Plan, Shown, make_plan
from mtadiffusion.study.questions import QUESTIONS, TIE
from mtadiffusion.study.runs import MOST_METHODS
from mtadiffusion.study.store import ClosedError, Participant, Store
from mtadiffusion.study.study import PICTURES, Study

LARGEST_BODY = 1024
"""Bytes; an answer takes about twenty."""

_PLANS_KEPT = 256
_COOKIE = "study_participant"
_COOKIE_SECONDS = 90 * 24 * 3600
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


class Choice(BaseModel):
    """An answer's body."""

    model_config = ConfigDict(extra="forbid", strict=True)

    choice: Annotated[int, Field(ge=1, le=MOST_METHODS)] | Literal["tie"]
    """The position of the result that was chosen, from 1, or `tie`."""


class Desk:
    """What the requests share: the study, its answers, its pages and the participants' plans."""

    def __init__(self, study: Study, store: Store) -> None:
        self.study = study
        self.store = store
        self.pages = Pages(study)
        self.plan = lru_cache(_PLANS_KEPT)(self._plan)

    def _plan(self, number: int) -> Plan:
        return make_plan(self.study, number, self.store.secret)


def create_app(study: Study, store: Store) -> FastAPI:
    """The application that serves one study.

    Args:
        study: what is asked.
        store: where answers go; it stays open.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, max_body_size=LARGEST_BODY)
    app.state.desk = Desk(study, store)
    app.include_router(_routes)
    app.add_middleware(_Headers, styles=app.state.desk.pages.styles)
    app.add_exception_handler(404, _not_found)
    app.add_exception_handler(RequestValidationError, _invalid)
    return app


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


TheDesk = Annotated[Desk, Depends(_desk)]


def _participant(token: str, desk: TheDesk) -> Participant:
    found = desk.store.participant(token)
    if found is None:
        raise HTTPException(404, "no such link")
    return found


def _open_link(enrolment: str, desk: TheDesk) -> None:
    if enrolment != desk.store.enrolment:
        raise HTTPException(404, "no such link")


Someone = Annotated[Participant, Depends(_participant)]
_routes = APIRouter()


@_routes.get("/study.js")
def script(desk: TheDesk) -> Response:
    """The page's script, the same for everyone."""
    return Response(desk.pages.script, media_type="text/javascript")


@_routes.get("/favicon.ico", status_code=204)
def icon() -> None:
    """None; browsers ask for one by themselves."""


@_routes.get("/p/{token}")
def start(who: Someone, desk: TheDesk) -> Response:
    """The page of a personal link; it changes nothing, so that previews of links do no harm."""
    return HTMLResponse(desk.pages.study)


@_routes.get("/p/{token}/state")
def state(who: Someone, desk: TheDesk) -> dict[str, Any]:
    """All that the page needs to go on; before the consent nothing of the pictures."""
    plan, asked = desk.plan(who.number), desk.study.questions
    given = {(one.item_id, one.question): one.position or TIE for one in desk.store.answers(who.number)}
    questions = [QUESTIONS[name] for name in asked]
    return {
        "consented": who.consented is not None,
        "finished": who.finished is not None,
        "questions": [{"name": one.name, "title": one.title, "text": one.text} for one in questions],
        "items": [_visible(one, given, asked) for one in plan.shown] if who.consented else [],
    }


@_routes.get("/p/{token}/pictures/{name}")
def picture(who: Someone, name: str, desk: TheDesk) -> Response:
    """A picture by the name that it has for this participant."""
    file = desk.plan(who.number).files.get(name)
    if file is None or who.consented is None:
        raise HTTPException(404, "no such picture")
    return Response((desk.study.root / PICTURES / file).read_bytes(), media_type="image/png")


@_routes.post("/p/{token}/consent", status_code=204)
def consent(who: Someone, desk: TheDesk) -> None:
    """The participant agrees to the terms."""
    desk.store.consent(who.number)


@_routes.put("/p/{token}/answers/{place}/{question}", status_code=204)
def answer(who: Someone, place: int, question: str, body: Choice, desk: TheDesk) -> None:
    """Keep an answer to a question about the item at `place`, from 1; it replaces an earlier one."""
    shown = desk.plan(who.number).shown
    if not 1 <= place <= len(shown) or question not in desk.study.questions:
        raise HTTPException(404, "no such question")
    choice, position = _chosen(shown[place - 1], body)
    try:
        desk.store.save(who.number, shown[place - 1].item.item_id, question, choice, position)
    except ClosedError:
        raise HTTPException(409, "answers are taken after the consent and before the end") from None


@_routes.post("/p/{token}/finish", status_code=204)
def finish(who: Someone, desk: TheDesk) -> None:
    """Close the participant's answers, once all are given."""
    if not desk.store.finish(who.number, desk.study.answers_each):
        raise HTTPException(409, "some questions have no answer yet")


@_routes.get("/join/{enrolment}", dependencies=[Depends(_open_link)])
def invitation(request: Request, desk: TheDesk) -> Response:
    """The page of the open link; whoever joined on this browser goes on where they were."""
    known = desk.store.participant(request.cookies.get(_COOKIE, ""))
    if known is not None:
        return RedirectResponse(f"../p/{known.token}", 303)
    return HTMLResponse(desk.pages.join)


@_routes.post("/join/{enrolment}", dependencies=[Depends(_open_link)])
def join(desk: TheDesk) -> Response:
    """A new participant, sent on to a personal link."""
    newcomer = desk.store.enrol()
    if newcomer is None or newcomer.token is None:
        return HTMLResponse(desk.pages.full, 409)
    response = RedirectResponse(f"../p/{newcomer.token}", 303)
    response.set_cookie(_COOKIE, newcomer.token, _COOKIE_SECONDS, httponly=True, samesite="strict")
    return response


def _not_found(request: Request, error: Exception) -> Response:
    """A page for people, JSON for the page's script."""
    if "text/html" in request.headers.get("accept", ""):
        desk: Desk = request.app.state.desk
        return HTMLResponse(desk.pages.gone, 404)
    return JSONResponse({"detail": getattr(error, "detail", "not found")}, 404)


def _invalid(request: Request, error: Exception) -> Response:
    """What is wrong and where, without what was sent: that may be anything, even undecodable."""
    assert isinstance(error, RequestValidationError)
    faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
    return JSONResponse({"detail": faults}, 422)


def _chosen(shown: Shown, body: Choice) -> tuple[str, int | None]:
    """The method that lies behind a choice, and its position."""
    if isinstance(body.choice, str):
        return TIE, None
    if body.choice > len(shown.methods):
        raise HTTPException(422, f"choice must be 1 to {len(shown.methods)} or {TIE}")
    return shown.methods[body.choice - 1], body.choice


def _visible(
    shown: Shown, given: dict[tuple[str, str], int | str], questions: tuple[str, ...]
) -> dict[str, Any]:
    """An item without anything that tells a method; of a check, the instruction."""
    item_id = shown.item.item_id
    return {
        "prompt": shown.item.prompt,
        "instruction": shown.expected,
        "masked": shown.masked,
        "results": shown.results,
        "answers": {name: given[item_id, name] for name in questions if (item_id, name) in given},
    }


class Pages:
    """The pages, the same for everyone, rendered once."""

    def __init__(self, study: Study) -> None:
        paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", study.consent) if part.strip()]
        count = len(study.items) + len(study.checks)
        questions = len(study.questions)
        self.study = page("study.html", paragraphs=paragraphs, pictures=count, questions=questions)
        self.join = page("study_message.html", kind="join")
        self.full = page("study_message.html", kind="full")
        self.gone = page("study_message.html", kind="gone")
        self.script = files("mtadiffusion.pages").joinpath("study.js").read_bytes()
        self.styles = {_hashed(style) for text in (self.study, self.gone) for style in _STYLE.findall(text)}


def _hashed(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"'sha256-{digest}'"


class _Headers:
    """Puts the headers of a page that holds a secret in its address on every response."""

    def __init__(self, app: Any, styles: set[str]) -> None:
        self.app = app
        policy = (
            f"default-src 'none'; style-src {' '.join(sorted(styles))}; script-src 'self'; img-src 'self'; "
            "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        values = {
            "content-security-policy": policy,
            "referrer-policy": "no-referrer",
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            "x-robots-tag": "noindex, nofollow",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
        }
        self.headers = [(name.encode(), value.encode()) for name, value in values.items()]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self.headers]
            await send(message)

        await self.app(scope, receive, with_headers)
