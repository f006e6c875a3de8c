"""The study over HTTP: who may do what, what is kept, and what nobody learns."""

from __future__ import annotations

import hashlib
import re

import pytest
from fastapi.testclient import TestClient

from mtadiffusion.study.plan import make_plan
from mtadiffusion.study.server import LARGEST_BODY, create_app
from mtadiffusion.study.store import Store
from mtadiffusion.study.study import ANSWERS, PICTURES


@pytest.fixture
def link(store):
    """The path of the first participant, who has agreed."""
    first = store.participants()[0]
    store.consent(first.number)
    return f"/p/{first.token}"


def answer_all(client, link):
    state = client.get(f"{link}/state").json()
    for place, item in enumerate(state["items"], 1):
        for question in state["questions"]:
            path = f"{link}/answers/{place}/{question['name']}"
            assert client.put(path, json={"choice": item["instruction"] or "tie"}).status_code == 204


def test_nothing_of_the_pictures_is_shown_before_the_consent(client, store, study):
    one = store.participants()[0]
    link = f"/p/{one.token}"
    assert study.consent.split()[0] in client.get(link).text
    state = client.get(f"{link}/state").json()
    assert (state["consented"], state["items"]) == (False, [])
    [name, *_] = make_plan(study, one.number, store.secret).files
    assert client.get(f"{link}/pictures/{name}").status_code == 404
    assert client.put(f"{link}/answers/1/style", json={"choice": 1}).status_code == 409
    assert client.post(f"{link}/consent").status_code == 204
    assert len(client.get(f"{link}/state").json()["items"]) == 5


def test_opening_a_link_changes_nothing(client, store):
    before = store.participants()
    client.get(f"/p/{before[0].token}")
    client.head(f"/p/{before[0].token}")
    assert store.participants() == before


def test_an_acknowledged_answer_is_in_the_store_under_its_method(client, store, study, link):
    shown = make_plan(study, 1, store.secret).shown[2]
    assert client.put(f"{link}/answers/3/style", json={"choice": 2}).status_code == 204
    [answer] = Store(study.root / ANSWERS).answers()
    assert (answer.item_id, answer.question) == (shown.item.item_id, "style")
    assert (answer.choice, answer.position) == (shown.methods[1], 2)


def test_the_pictures_are_those_of_the_methods_in_the_participant_s_order(client, store, study, link):
    state = client.get(f"{link}/state").json()
    for item, shown in zip(state["items"], make_plan(study, 1, store.secret).shown, strict=True):
        for name, method in zip(item["results"], shown.methods, strict=True):
            reply = client.get(f"{link}/pictures/{name}")
            assert reply.headers["content-type"] == "image/png"
            digest = hashlib.sha256(reply.content).hexdigest()
            assert f"{digest}.png" == shown.item.results[method]


def test_a_repeated_answer_replaces_the_first_and_the_state_shows_it(client, store, link):
    for choice in (1, 3, 3, "tie"):
        assert client.put(f"{link}/answers/1/alignment", json={"choice": choice}).status_code == 204
    assert client.get(f"{link}/state").json()["items"][0]["answers"] == {"alignment": "tie"}
    assert len(store.answers()) == 1


def test_the_end_needs_every_answer_and_closes_them(client, store, link):
    assert client.post(f"{link}/finish").status_code == 409
    answer_all(client, link)
    assert client.post(f"{link}/finish").status_code == 204
    assert client.post(f"{link}/finish").status_code == 204
    assert client.put(f"{link}/answers/1/style", json={"choice": 1}).status_code == 409
    assert client.get(f"{link}/state").json()["finished"]
    assert all(one.choice == "tie" for one in store.answers() if not one.item_id.startswith("check:"))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("answers/0/style", 404),
        ("answers/6/style", 404),
        ("answers/99999999999999999999/style", 404),
        ("answers/one/style", 422),
        ("answers/1/structure", 404),
        ("answers/1/nonsense", 404),
        ("answers/1/..%2f..%2fstyle", 404),
    ],
)
def test_questions_that_do_not_exist_are_refused(client, store, link, path, status):
    assert client.put(f"{link}/{path}", json={"choice": 1}).status_code == status
    assert store.answers() == []


@pytest.mark.parametrize(
    "body",
    [{}, {"choice": 0}, {"choice": 4}, {"choice": 10}, {"choice": "1"}, {"choice": True}, {"choice": 1.5},
     {"choice": None}, {"choice": "ours"}, {"choice": [1]}, {"choice": 1, "participant": 2}, [1], "tie"],
)  # fmt: skip
def test_choices_that_do_not_exist_are_refused(client, store, link, body):
    assert client.put(f"{link}/answers/1/style", json=body).status_code == 422
    assert store.answers() == []


def test_bodies_that_are_too_large_or_no_json_are_refused(client, store, link):
    path = f"{link}/answers/1/style"
    large = b'{"choice": 1, "x": "' + b"x" * LARGEST_BODY + b'"}'
    assert client.put(path, content=large).status_code == 413
    assert client.put(path, content=(part for part in (large[:600], large[600:]))).status_code == 413
    assert client.put(path, content=b"\xff\x00").status_code == 422
    assert store.answers() == []


def test_no_link_opens_anything_of_another_participant(client, store, study):
    for one in store.participants():
        store.consent(one.number)
    first, second = (f"/p/{one.token}" for one in store.participants()[:2])
    client.put(f"{first}/answers/1/style", json={"choice": 1})
    mine, theirs = (client.get(f"{link}/state").json() for link in (first, second))
    assert not any(item["answers"] for item in theirs["items"])
    names = {name for item in mine["items"] for name in (item["masked"], *item["results"])}
    assert {client.get(f"{second}/pictures/{name}").status_code for name in names} == {404}


def test_unknown_links_and_pictures_are_not_found(client, link, study):
    file = study.items[0].masked
    escapes = ("..%2f..%2fstudy.json", f"%2e%2e/{ANSWERS}", file)
    pictures = [f"{link}/pictures/{name}" for name in escapes]
    guesses = ["/p/guess", "/p/guess/state", "/p/", "/p/None", "/join/guess", "/join/None"]
    for path in (*pictures, *guesses, f"/{PICTURES}/{file}", "/", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 404, path
    assert client.post("/join/None").status_code == 404


def test_an_unknown_link_gets_a_page_that_says_so(client):
    reply = client.get("/p/guess", headers={"accept": "text/html"})
    assert (reply.status_code, "leads nowhere" in reply.text) == (404, True)


def test_nothing_that_a_participant_gets_names_a_method_or_an_item(client, store, study, link):
    texts = [client.get(path).text for path in (link, "/study.js", f"{link}/state")]
    told = " ".join(texts) + str([client.get(path).headers for path in (link, f"{link}/state")])
    for name in (*study.methods, "item-", "check:", store.secret):
        assert not re.search(rf"\b{re.escape(name)}", told), name


@pytest.mark.parametrize("path", ["", "/state", "/nothing"])
def test_every_reply_forbids_caching_framing_and_referrers(client, link, path):
    headers = client.get(f"{link}{path}").headers
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


def test_pages_ask_for_nothing_from_elsewhere(client, link):
    for text in (client.get(link).text, client.get("/study.js").text, client.get("/p/guess").text):
        assert not re.search(r"(src|href)=[\"'](https?:)?//", text)
        assert "http" not in text


def test_the_consent_is_shown_as_text_only(make_study):
    study = make_study(consent="First <script>alert(1)</script>\n\nSecond & last")
    store = Store(study.root / ANSWERS)
    with TestClient(create_app(study, store)) as client:
        text = client.get(f"/p/{store.participants()[0].token}").text
    assert "<p>First &lt;script&gt;alert(1)&lt;/script&gt;</p>" in text
    assert "<p>Second &amp; last</p>" in text


def test_the_open_link_makes_one_participant_a_browser_and_no_more_than_it_may(make_study):
    study = make_study(participants=0, most_enrolled=2)
    store = Store(study.root / ANSWERS)
    app, path = create_app(study, store), f"/join/{store.enrolment}"
    places = []
    for _ in range(2):
        with TestClient(app, follow_redirects=False, base_url="https://study.test") as browser:
            assert "Take part" in browser.get(path).text
            places.append(browser.post(path).headers["location"])
            assert browser.get(path).headers["location"] == places[-1]
            assert browser.get(path.replace("join/", "join/../")).status_code == 404
    assert [f"../p/{one.token}" for one in store.participants()] == places
    with TestClient(app) as late:
        reply = late.post(path)
        assert (reply.status_code, "is full" in reply.text) == (409, True)
    assert len(store.participants()) == 2


def test_a_withdrawn_link_leads_nowhere(client, store, link):
    store.forget(1)
    assert client.get(link).status_code == 404
    assert client.get("/p/None").status_code == 404
