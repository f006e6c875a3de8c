"""From a model's answer to a description."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtadiffusion.annotate.wording import describe, repeats_itself, shortened, without_boilerplate


def words(limit):
    return lambda text: len(text.split()) <= limit


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("The image shows a red apple with a glossy skin.", "A red apple with a glossy skin."),
        ("This picture depicts an old car, drawn in ink", "An old car, drawn in ink."),
        ("In the image, there is a small dog.", "A small dog."),
        ("There are two lamps of brushed steel.", "Two lamps of brushed steel."),
        ("Sure! Here is a detailed description: The image features a cat.", "A cat."),
        ('"A **bold** poster\nof a tree"', "A bold poster of a tree."),
        ("The photograph you provided captures a bridge at dusk.", "A bridge at dusk."),
        ("The apple is red. The image shows its stem.", "The apple is red. The image shows its stem."),
        ("The imagery is lush and green.", "The imagery is lush and green."),
    ],
)
def test_openings_that_say_nothing_are_cut(answer, text):
    assert without_boilerplate(answer) == text


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I'm sorry, but I cannot see any image.", "refusal"),
        ("As an AI, I am unable to do so.", "refusal"),
        ("No image was provided here.", "refusal"),
        ("", "empty"),
        ('  \n"..." ', "empty"),
        ("A cat.", "too short"),
        ("A cat with a red hat and a cat with a red hat and a cat with a red hat.", "repetition"),
        ("The cat is black. The cat is black. It sits.", "repetition"),
    ],
)
def test_answers_that_describe_nothing_are_rejected_with_a_reason(answer, reason):
    found = describe(answer, words(77))
    assert (found.text, found.reason) == (None, reason)


def test_a_long_answer_is_cut_at_a_sentence_s_end_and_kept_in_full():
    answer = "The image shows a red apple. It lies on wood. The style is glossy and rendered."
    found = describe(answer, words(8))
    assert found.text == "A red apple. It lies on wood."[: len(found.text)]
    assert found.text == "A red apple. It lies on wood."
    assert found.full.endswith("glossy and rendered.")


def test_a_first_sentence_that_is_too_long_is_cut_at_a_word():
    assert shortened("A very long sentence without any end in sight.", words(3)) == "A very long"


def test_an_abbreviation_is_no_sentence_s_end():
    assert shortened("A car of approx. two metres. It is red.", words(6)) == "A car of approx. two metres."


@given(text=st.text(max_size=200), limit=st.integers(1, 30))
def test_what_is_kept_always_fits(text, limit):
    found = describe(text, words(limit))
    assert found.text is None or words(limit)(found.text)
    assert (found.text is None) == (found.reason is not None)


def test_a_list_of_like_things_is_no_repetition():
    assert not repeats_itself("A red leaf, a red stem and a red flower on a red ground.")
