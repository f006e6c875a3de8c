"""What a vision-language model says, made a description: no boilerplate, no refusals, no repetition, no more
than a text encoder reads."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

_OPENINGS = re.compile(
    r"^(?:(?:sure|certainly|of course|okay)[,!.]\s*)?"
    r"(?:here(?: is|'s) (?:a|the)(?: detailed)? description[^:.]*[:.]\s*)?"
    r"(?:(?:in|within) (?:the|this) (?:image|picture|photo(?:graph)?)[,:]?\s*"
    r"(?:there (?:is|are|appears to be)\s+)?"
    r"|(?:the|this) (?:image|picture|photo(?:graph)?)(?: you (?:provided|sent))?"
    r"(?:\s+(?:shows|depicts|features|displays|presents|contains|captures|is of|portrays))\s+"
    r"|there (?:is|are)\s+)",
    re.IGNORECASE,
)
_REFUSALS = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|unable|not able)|i can(?:not|'t) (?:see|view|describe|identify|assist|help)|"
    r"as an? (?:ai|language model)|no image (?:was|is|has been) (?:provided|attached|visible)|"
    r"(?:please|could you) (?:provide|upload|attach))\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])")
_REPEATED_WORDS = 4
"""So many words in a row, said three times, are a model that is caught in a loop."""

LEAST_WORDS = 3


@dataclass(frozen=True, kw_only=True)
class Description:
    """A cleaned answer."""

    text: str | None
    """What training reads; None where the answer was rejected."""

    full: str
    """The cleaned answer before it was cut."""

    reason: str | None = None
    """Why it was rejected."""


def describe(answer: str, fits: Callable[[str], bool]) -> Description:
    """Clean a model's answer.

    Args:
        answer: what the model said.
        fits: whether a text is short enough for the text encoder.

    Returns:
        The longest run of whole first sentences that fits; where not even one does, as many of its first
        words as fit.
    """
    if _REFUSALS.search(answer):
        return Description(text=None, full=answer.strip(), reason="refusal")
    full = without_boilerplate(answer)
    if len(full.split()) < LEAST_WORDS:
        return Description(text=None, full=full, reason="empty" if not full else "too short")
    if repeats_itself(full):
        return Description(text=None, full=full, reason="repetition")
    return Description(text=shortened(full, fits), full=full)


def without_boilerplate(answer: str) -> str:
    """The answer on one line, without "The image shows", from a capital letter to a full stop."""
    text = re.sub(r"[*_#`]+", "", answer)
    text = " ".join(text.split()).strip(" \"'")
    text = _OPENINGS.sub("", text).strip()
    if not re.search(r"\w", text):
        return ""
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else f"{text}."


def repeats_itself(text: str) -> bool:
    """Whether some words in a row come three times, or a sentence twice."""
    sentences = [s.lower() for s in _SENTENCE.split(text)]
    if len(set(sentences)) < len(sentences):
        return True
    words = re.findall(r"\w+", text.lower())
    runs = [tuple(words[i : i + _REPEATED_WORDS]) for i in range(len(words) - _REPEATED_WORDS + 1)]
    return max(Counter(runs).values(), default=0) >= 3


def shortened(text: str, fits: Callable[[str], bool]) -> str:
    """The most whole sentences, else the most words, that fit."""
    return _most(_SENTENCE.split(text), fits) or _most(text.split(), fits)


def _most(parts: list[str], fits: Callable[[str], bool]) -> str:
    low, high = 0, len(parts)
    while low < high:
        middle = (low + high + 1) // 2
        if fits(" ".join(parts[:middle])):
            low = middle
        else:
            high = middle - 1
    return " ".join(parts[:low])
