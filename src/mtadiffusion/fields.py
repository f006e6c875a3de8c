"""The fields of a configuration as dictionaries and back, and from texts such as `optim.lr=3e-4`."""

from __future__ import annotations

import ast
import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from mtadiffusion.errors import UserError, nearest_name

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as JSON-ready dictionaries."""
    return dataclasses.asdict(config)


def merged(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with those of `changes` in their place, group by group; neither is changed."""
    result = dict(values)
    for name, value in changes.items():
        group = result.get(name)
        both = isinstance(group, dict) and isinstance(value, Mapping)
        result[name] = merged(typing.cast(dict[str, Any], group), value) if both else value
    return result


def from_dict(cls: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """The inverse of `to_dict`, also after a trip through JSON; unknown names are the user's mistake."""
    hints = typing.get_type_hints(cls)
    arguments = {}
    for name, value in values.items():
        if name not in hints:
            raise UserError(f"{prefix}{name}", "is no configuration field", None, nearest_name(name, hints))
        arguments[name] = _from_json(hints[name], value, f"{prefix}{name}")
    return cls(**arguments)


def _from_json(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise UserError(name, "is a group of fields", value)
        return from_dict(typing.cast(type, hint), value, f"{name}.")
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(name, "must be a list", value)
        return _as_tuples(value)
    kinds = typing.get_args(hint) or (hint,)
    if isinstance(value, bool) != (hint is bool) or not isinstance(value, (*kinds, *_WIDENED.get(hint, ()))):
        expected = " or ".join(_NOUNS[kind] for kind in kinds)
        raise UserError(name, f"must be {expected}", value)
    return value


_WIDENED: dict[Any, tuple[type, ...]] = {float: (int,)}
_NOUNS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
}


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def with_overrides(config: T, assignments: Iterable[str]) -> T:
    """`config` with fields replaced by texts such as `optim.lr=3e-4`; the last one of a name wins."""
    values = to_dict(config)
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals:
            raise UserError("override", "must be NAME=VALUE", assignment, "e.g. optim.lr=3e-4")
        group, hint = _field_of(type(config), values, name)
        group[name.rpartition(".")[2]] = _parsed(hint, text, name)
    return from_dict(type(config), values)


def _field_of(cls: Any, values: dict[str, Any], name: str) -> tuple[dict[str, Any], Any]:
    """The dictionary that holds the field of this dotted name, and the field's type."""
    parent: dict[str, Any] = {}
    for part in name.split("."):
        if not dataclasses.is_dataclass(cls):
            raise UserError(name, f"is no configuration field, {part!r} is part of no group")
        hints = typing.get_type_hints(cls)
        if part not in hints:
            raise UserError(name, "is no configuration field", None, nearest_name(part, hints))
        cls, parent, values = hints[part], values, values[part]
    if dataclasses.is_dataclass(cls):
        raise UserError(name, "is a group of fields", None, f"name one of {', '.join(values)}")
    return parent, cls


def _parsed(hint: Any, text: str, name: str) -> Any:
    """`text` as the type of a field: a bool, a number, a text, a tuple or a union of int and text."""
    try:
        if typing.get_origin(hint) is tuple:
            value = ast.literal_eval(f"({text},)" if "(" not in text else text)
            return _as_tuples(value)
        if isinstance(hint, types.UnionType):
            return int(text) if text.lstrip("-").isdigit() else text
        return {"true": True, "false": False}[text.lower()] if hint is bool else hint(text)
    except (ValueError, KeyError, SyntaxError) as error:
        expected = "values with commas between" if typing.get_origin(hint) is tuple else hint.__name__
        raise UserError(name, f"must be {expected}", text) from error
