"""Specifications as the command line has them: `NAME[:option=value[,option=value...]]`.

Each value is read by the type of its option, as in `object-holes:count=50,groups=dilated,boxed`: what stands
between two commas without an `=` belongs to the value before it.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from mtadiffusion.errors import UserError

_TRUTHS = {"true": True, "false": False}


def split(text: str, argument: str) -> tuple[str, dict[str, str]]:
    """Name and options.

    Args:
        text: the specification.
        argument: as the user typed it, for messages.

    Raises:
        UserError: an option without its value, or twice.
    """
    name, _, rest = text.strip().partition(":")
    options: dict[str, str] = {}
    for part in rest.split(",") if rest else ():
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals and options:
            options[next(reversed(options))] += f",{part.strip()}"
            continue
        if not (key and equals):
            raise UserError(f"{argument} {name}", "must have its options as option=value", part)
        if key in options:
            raise UserError(f"{argument} {name}", "has an option twice", key)
        if not value:
            raise UserError(f"{name}:{key}", "must have a value")
        options[key] = value
    return name, options


def typed(make: Callable[..., Any], options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options whose texts are read by the types of `make`'s parameters; what is no text stays as it is.

    Args:
        make: a class or function with annotations; it need not know the option.
        options: by name.
        prefix: of the option's name in messages.

    Raises:
        UserError: a text that is none of its type.
    """
    known = inspect.signature(make, eval_str=True).parameters
    return {
        name: _value(known[name].annotation, value, f"{prefix}{name}")
        if isinstance(value, str) and name in known
        else value
        for name, value in options.items()
    }


def _value(hint: Any, text: str, argument: str) -> Any:
    wanted = _without_none(hint)
    origin = typing.get_origin(wanted)
    if isinstance(origin, type) and issubclass(origin, typing.Sequence):
        parts = [one.strip() for one in text.split(",") if one.strip()]
        return tuple(_value(typing.get_args(wanted)[0], one, argument) for one in parts)
    if wanted is bool:
        if text.lower() not in _TRUTHS:
            raise UserError(argument, "must be true or false", text)
        return _TRUTHS[text.lower()]
    if wanted not in (int, float):
        return text
    try:
        return wanted(text)
    except ValueError:
        noun = "a whole number" if wanted is int else "a number"
        raise UserError(argument, f"must be {noun}", text) from None


def _without_none(hint: Any) -> Any:
    """The one type of an optional."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    return next(one for one in typing.get_args(hint) if one is not types.NoneType)
