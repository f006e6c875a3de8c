"""What participants are asked of every picture. The first three are the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mtadiffusion.errors import UserError, nearest_name

TIE = "tie"
"""The choice that prefers none; no method may have this name."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question, the same for every picture."""

    name: str
    """As the command line and the tables have it."""

    title: str
    """A word or two, for tabs and headings."""

    text: str
    """The whole question, as it is asked."""


_ALL = (
    Question(
        name="alignment",
        title="Text",
        text="Which result shows best what the text asks for?",
    ),
    Question(
        name="structure",
        title="Shape",
        text="Where is the new object best formed, with nothing missing or broken?",
    ),
    Question(
        name="style",
        title="Style",
        text="Where does the new object fit best into the style of the picture around it?",
    ),
    Question(name="overall", title="Overall", text="Which result do you like best, all in all?"),
)
QUESTIONS = {question.name: question for question in _ALL}
"""Every question by its name."""


def check_questions(names: Sequence[str]) -> tuple[str, ...]:
    """The names of questions that exist, each once.

    Raises:
        UserError: none, an unknown one, or one twice.
    """
    for name in names:
        if name not in QUESTIONS:
            raise UserError("--questions", "names an unknown one", name, nearest_name(name, QUESTIONS))
    if not names or len(set(names)) < len(names):
        rule, known = "must name at least one question, each once", ",".join(QUESTIONS)
        raise UserError("--questions", rule, ",".join(names), f"choose from {known}")
    return tuple(names)
