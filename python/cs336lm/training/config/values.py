"""A value from a TOML file as the type that its field declares."""

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
