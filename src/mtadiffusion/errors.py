"""The user's mistakes. One class, one line of text, exit code 2 at the terminal.

Everything that a caller can get wrong raises `UserError`; what cannot happen is an `assert`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST_VALUE = 80


class UserError(ValueError):
    """A mistake that the user can mend. The message names argument, rule, value and remedy.

    Args:
        argument: the name that the user typed, e.g. `--steps` or `num_inference_steps`.
        rule: what must hold, e.g. "must be between 1 and 1000".
        value: what was received; shortened for the message. `None` leaves it out.
        remedy: what to do about it, a sentence without its full stop.
    """

    def __init__(self, argument: str, rule: str, value: object = None, remedy: str | None = None) -> None:
        self.argument = argument
        parts = [f"{argument} {rule}"]
        if value is not None:
            parts.append(f"got {_short(value)}")
        message = ", ".join(parts)
        super().__init__(" ".join(f"{message}; {remedy}".split()) if remedy else message)

    def __reduce__(self) -> tuple[object, ...]:
        """Errors travel from worker processes with their message as it is."""
        return _restored, (type(self), self.argument, str(self))


def _restored(kind: type[UserError], argument: str, message: str) -> UserError:
    error = kind.__new__(kind)
    error.argument, error.args = argument, (message,)
    return error


def _short(value: object) -> str:
    text = repr(value)
    if len(text) <= _LONGEST_VALUE:
        return text
    half = _LONGEST_VALUE // 2
    return f"{text[:half]}…{text[1 - half :]}"  # the end of a path is its name


def nearest_name(name: str, known: Iterable[str]) -> str:
    """The remedy for an unknown name: the nearest known one, else all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known names: {', '.join(names)}"
