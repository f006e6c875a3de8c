"""Whose votes count, and what they say: exclusion, shares, intervals, agreement, and the report's files."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from browser import opened
from hypothesis import given
from hypothesis import strategies as st

from mtadiffusion.cli import main
from mtadiffusion.seeding import numpy_generator
from mtadiffusion.study.ballot import count_ballot
from mtadiffusion.study.figures import krippendorff_alpha, question_figures, resampled_shares, wilson
from mtadiffusion.study.plan import make_plan
from mtadiffusion.study.store import Store
from mtadiffusion.study.study import ANSWERS

ALPHA_EXAMPLE = (
    (None, None, None, None, None, 3, 4, 1, 2, 1, 1, 3, 3, None, 3),
    (1, None, 2, 1, 3, 3, 4, 3, None, None, None, None, None, None, None),
    (None, None, 2, 1, 3, 4, 4, None, 2, 1, 1, 3, 3, None, 4),
)
"""A published example of three raters; its nominal alpha is 0.691."""


def one_hot(rows):
    votes = np.zeros((len(rows), len(rows[0]), 5), np.uint8)
    for person, row in enumerate(rows):
        for item, value in enumerate(row):
            if value is not None:
                votes[person, item, value] = 1
    return votes


def vote(study, store, number, wanted, *, attentive=True):
    """A participant who always chooses one method, where they are not told otherwise."""
    store.consent(number)
    for one in make_plan(study, number, store.secret).shown:
        position = one.methods.index(wanted) + 1
        if one.expected is not None:
            position = one.expected if attentive else one.expected % len(one.methods) + 1
        for question in study.questions:
            store.save(number, one.item.item_id, question, one.methods[position - 1], position)


def counts(ballot, question="style"):
    figures = question_figures(ballot, question)
    return {choice["choice"]: choice["votes"] for choice in figures["choices"]}


def test_votes_are_counted_under_their_methods_and_checks_are_not(study, store):
    for number, wanted in ((1, "ours"), (2, "ours"), (3, "older")):
        vote(study, store, number, wanted)
    ballot = count_ballot(study, store)
    assert counts(ballot) == {"ours": 8, "theirs": 0, "older": 4, "tie": 0}
    assert ballot.failed == {}


def test_who_fails_a_check_is_left_out_and_named_by_number(study, store):
    vote(study, store, 1, "ours")
    vote(study, store, 2, "theirs", attentive=False)
    ballot = count_ballot(study, store)
    assert ballot.failed == {2: 1}
    assert counts(ballot)["theirs"] == 0
    assert counts(count_ballot(study, store, allowed_failures=1))["theirs"] == 4


def test_one_wrong_answer_fails_a_check_and_one_mended_in_time_does_not(study, store):
    vote(study, store, 1, "ours")
    [check] = [one for one in make_plan(study, 1, store.secret).shown if one.expected]
    store.save(1, check.item.item_id, "style", "tie", None)
    assert count_ballot(study, store).failed == {1: 1}
    store.save(1, check.item.item_id, "style", check.methods[check.expected - 1], check.expected)
    assert count_ballot(study, store).failed == {}


def test_who_has_not_finished_counts_unless_told_otherwise(study, store):
    vote(study, store, 1, "ours")
    vote(study, store, 2, "theirs")
    store.finish(2, study.answers_each)
    assert count_ballot(study, store).counted == (1, 2)
    ballot = count_ballot(study, store, finished_only=True)
    assert (ballot.counted, ballot.unfinished) == ((2,), (1,))


def test_positions_count_where_the_chosen_results_were_shown(study, store):
    vote(study, store, 1, "ours")
    shown = [one for one in make_plan(study, 1, store.secret).shown if one.expected is None]
    expected = {place: 2 * sum(one.methods[place - 1] == "ours" for one in shown) for place in (1, 2, 3)}
    assert {place: count_ballot(study, store).positions()[place] for place in (1, 2, 3)} == expected


def test_alpha_is_the_published_one_of_a_published_example():
    assert krippendorff_alpha(one_hot(ALPHA_EXAMPLE)) == pytest.approx(0.691358, abs=1e-6)


def test_alpha_follows_its_formula_of_coincidences():
    votes = np.zeros((6, 9, 4), np.uint8)
    rng = numpy_generator(0, "alpha")
    for person in range(6):
        for item in range(9):
            if rng.random() < 0.8:
                votes[person, item, rng.integers(0, 4)] = 1
    by_item = votes.sum(axis=0).astype(float)
    by_item = by_item[by_item.sum(axis=1) >= 2]
    sizes = by_item.sum(axis=1)
    observed = ((sizes**2 - (by_item**2).sum(axis=1)) / (sizes - 1)).sum()
    totals = by_item.sum(axis=0)
    expected = (totals.sum() ** 2 - (totals**2).sum()) / (totals.sum() - 1)
    assert krippendorff_alpha(votes) == pytest.approx(1 - observed / expected, abs=1e-6)


@pytest.mark.parametrize(
    "rows", [[[None, None]], [[1, 2]], [[1, 1], [1, 1]], [[1, None], [None, 2]]], ids=str
)
def test_alpha_without_pairs_or_without_differences_is_not_defined(rows):
    assert krippendorff_alpha(one_hot(rows)) is None


def test_wilson_is_the_textbook_s():
    low, high = wilson(8, 10)
    z, n, p = 1.959964, 10, 0.8
    middle, reach = (p + z * z / (2 * n)) / (1 + z * z / n), z / (1 + z * z / n)
    reach *= (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    assert (low, high) == pytest.approx((middle - reach, middle + reach), abs=1e-5)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 100))
def test_resampled_shares_add_up_to_one(people, items, seed):
    rng = numpy_generator(seed, "votes")
    votes = np.eye(3, dtype=np.uint8)[rng.integers(0, 3, (people, items))]
    shares = resampled_shares(votes, rng, resamples=20)
    assert shares.sum(axis=1) == pytest.approx(np.ones(len(shares)))


def test_intervals_know_that_one_person_s_votes_belong_together():
    people = numpy_generator(0, "taste").integers(0, 2, 12)
    votes = np.repeat(np.eye(2, dtype=np.uint8)[people][:, None], 50, axis=1)
    shares = resampled_shares(votes, numpy_generator(0, "bootstrap"))[:, 0]
    spread = np.percentile(shares, 97.5) - np.percentile(shares, 2.5)
    low, high = wilson(int(votes[..., 0].sum()), votes[..., 0].size)
    assert spread > 3 * (high - low)
    alone = np.hypot(*(0.5 / np.sqrt([12, 12])))
    assert shares.std() < alone


def test_without_any_vote_there_is_a_report_that_says_so(study, store):
    figures = question_figures(count_ballot(study, store), "style")
    assert figures["votes"] == 0
    assert figures["alpha"] is None
    assert {choice["share"] for choice in figures["choices"]} == {None}


@pytest.fixture
def report(study, tmp_path, capsys):
    """Runs the report; (folder, what it printed)."""

    def run(*words):
        assert main(["study", "report", str(study.root), "--out", str(tmp_path / "report"), *words]) == 0
        return tmp_path / "report", capsys.readouterr().out

    return run


def test_the_report_s_files_agree_with_one_another(study, store, report):
    for number, wanted, attentive in ((1, "ours", True), (2, "older", True), (3, "theirs", False)):
        vote(study, store, number, wanted, attentive=attentive)
        store.finish(number, study.answers_each)
    out, printed = report("--json")
    whole = json.loads((out / "report.json").read_text())
    assert whole == json.loads(printed.splitlines()[-1])
    assert whole["participants"]["failed_checks"] == [{"participant": 3, "failed": 1}]
    assert (whole["participants"]["begun"], whole["participants"]["counted"]) == (3, 2)
    with (out / "answers.csv").open() as file:
        answers = list(csv.DictReader(file))
    assert {row["participant"] for row in answers} == {"1", "2"}
    with (out / "shares.csv").open() as file:
        shares = {(row["question"], row["choice"]): float(row["share"]) for row in csv.DictReader(file)}
    assert shares["style", "ours"] == shares["style", "older"] == 0.5
    with (out / "items.csv").open() as file:
        items = list(csv.DictReader(file))
    assert [row["style.ours"] for row in items] == ["1"] * 4
    assert not any(
        one.token in path.read_text() for one in store.participants() for path in out.glob("*.[chj]*")
    )


def test_the_report_s_page_shows_plots_tables_and_pictures(study, store, report):
    vote(study, store, 1, "ours")
    out, printed = report()
    assert str(out / "index.html") in printed
    with opened(out / "index.html") as page:
        assert "100.0" in page.locator("tr", has_text="ours").first.inner_text()
        widths = page.locator("img").evaluate_all(
            "all => all.map(one => (one.loading = 'eager', one.naturalWidth))"
        )
        assert len(widths) == 1 + 2 + 4 * 4
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator("h3", has_text="thing <").count() == 4


def test_a_study_without_answers_can_be_reported_while_it_is_served(study, served, report):
    served(study)
    out, _ = report()
    assert "Nobody did" in (out / "index.html").read_text()


def test_links_and_withdrawal_on_the_command_line(study, store, capsys):
    vote(study, store, 2, "ours")
    words = ["study", "links", str(study.root), "--url", "https://study.test/", "--invite", "1", "--json"]
    assert main(words) == 0
    listed = json.loads(capsys.readouterr().out)["participants"]
    assert [(row["state"], row["answers"]) for row in listed] == [
        ("invited", "0/10"), ("begun", "10/10"), ("invited", "0/10"), ("invited", "0/10"),
    ]  # fmt: skip
    assert listed[1]["link"] == f"https://study.test/p/{store.participants()[1].token}"
    assert main(["study", "forget", str(study.root), "--participant", "2"]) == 0
    assert "10 answers deleted" in capsys.readouterr().out
    assert main(["study", "links", str(study.root)]) == 0
    assert "withdrawn" in capsys.readouterr().out
    assert Store(study.root / ANSWERS).answers() == []


@pytest.mark.parametrize("command", ["serve", "links", "report"])
def test_a_folder_that_is_no_study_is_one_line(tmp_path, capsys, command):
    words = ["--out", str(tmp_path / "report")] if command == "report" else []
    assert main(["study", command, str(tmp_path), *words]) == 2
    assert "STUDY must be a study's folder" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_a_port_that_is_taken_or_none_is_one_line(study, served, capsys):
    port = served(study).rpartition(":")[2]
    assert main(["study", "serve", str(study.root), "--port", port]) == 2
    assert (
        f"--port cannot be listened at (Address already in use), got '127.0.0.1:{port}'"
        in capsys.readouterr().err
    )
    assert main(["study", "serve", str(study.root), "--port", "70000"]) == 2
    assert "--port must be a whole number between 0 and 65535" in capsys.readouterr().err
    assert main(["study", "serve", str(study.root), "--host", "no such host"]) == 2
    assert "--host must be an address of this machine" in capsys.readouterr().err
