"""Values of fields: from a TOML file, or from text that a person typed."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any, Literal

from cs336lm.errors import UsageError


def convert(value: Any, hint: Any, name: str) -> Any:
    """``value`` as the type ``hint`` of the field ``name``, or a ``UsageError`` that says both."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):  # X | None, for TOML has no null; or X | dict
        return convert(value, _choose(arguments, value), name)
    if origin is dict and isinstance(value, dict):
        key, each = arguments
        return {convert(k, key, name): convert(v, each, f"{name}[{k!r}]") for k, v in value.items()}
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        each = [arguments[0]] * len(value) if arguments[-1] is ... else arguments
        if len(each) == len(value):
            return tuple(convert(v, h, name) for v, h in zip(value, each, strict=True))
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and type(value) in (int, float):
        return float(value)
    if hint in (bool, int, str) and type(value) is hint:
        return value
    raise UsageError(f"{name}={value!r} is impossible: it must be {_describe(hint)}")


def _choose(hints: tuple[Any, ...], value: Any) -> Any:
    """The one that is meant for a value: a table, if it is a table and may be, else the first."""
    tables = [hint for hint in hints if typing.get_origin(hint) is dict]
    return tables[0] if tables and isinstance(value, dict) else hints[0]


def parse_text(text: Any, hint: Any) -> Any:
    """What a TOML file would hold where ``text`` (or a list of texts) is typed for a field.

    The text itself if nothing fits: :func:`convert` then says what is wrong with it.
    """
    table, hint = table_among(hint), without_none(hint)
    arguments = typing.get_args(hint)
    if table is not None:
        return _table(text, *typing.get_args(table))
    if isinstance(text, list):
        each = [arguments[0]] * len(text) if arguments[-1] is ... else arguments
        return [parse_text(part, kind) for part, kind in zip(text, each, strict=True)]
    if typing.get_origin(hint) is Literal:
        return next((value for value in arguments if str(value) == text), text)
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            return text
    return text


def _table(texts: list[str], key: Any, value: Any) -> Any:
    """``["a=0.7", "b=0.3"]`` as a table; one text without a number is what it is."""
    pairs = [text.rpartition("=") for text in texts]
    numbers = [parse_text(number, value) for _, _, number in pairs]
    if len(texts) == 1 and not isinstance(numbers[0], value):
        return texts[0]
    return {
        name if equals else text: number if equals else ""
        for text, (name, equals, _), number in zip(texts, pairs, numbers, strict=True)
    }


def table_among(hint: Any) -> Any:
    """The ``dict[...]`` that a union offers beside something else, or None."""
    offered = typing.get_args(hint) if is_optional(hint) else ()
    return next((other for other in offered if typing.get_origin(other) is dict), None)


def is_optional(hint: Any) -> bool:
    """Whether a field may be left open, or take several types."""
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def without_none(hint: Any) -> Any:
    """The type of a field that is not left open, the first of several."""
    return typing.get_args(hint)[0] if is_optional(hint) else hint


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        each = "any number" if arguments[-1] is ... else str(len(arguments))
        return f"a list of {each}, each {_describe(arguments[0])}"
    if origin is dict:
        return f"a table from {_describe(arguments[0])} to {_describe(arguments[1])}"
    return {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a text",
        Path: "a path",
    }[hint]
