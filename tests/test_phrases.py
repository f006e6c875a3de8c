"""Phrases that name an object as someone types them."""

from __future__ import annotations

import pytest

from mtadiffusion.phrases import plain_prompt


@pytest.mark.parametrize(
    ("label", "colour", "phrase"),
    [
        ("apple", "red", "a red apple"),
        ("owl", None, "an owl"),
        ("Umbrella", None, "an Umbrella"),
        ("car", "orange", "an orange car"),
        ("grapes", "green", "some green grapes"),
    ],
)
def test_a_plain_prompt_has_the_article_that_its_words_ask_for(label, colour, phrase):
    assert plain_prompt(label, colour) == phrase
