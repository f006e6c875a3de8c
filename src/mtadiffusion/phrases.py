"""Short English phrases that name an object, as someone types them."""

from __future__ import annotations

UNCOUNTED = ("grapes", "fries", "popcorn", "broccoli", "cheese")


def with_article(phrase: str) -> str:
    """ "red apple" -> "a red apple", "owl" -> "an owl", "green grapes" -> "some green grapes"."""
    if phrase.endswith(UNCOUNTED):
        return f"some {phrase}"
    return f"{'an' if phrase[:1].lower() in tuple('aeiou') else 'a'} {phrase}"


def plain_prompt(label: str, colour: str | None) -> str:
    """What someone types who wants an object and leaves the style to the picture: "a red apple"."""
    return with_article(f"{colour} {label}" if colour else label)
