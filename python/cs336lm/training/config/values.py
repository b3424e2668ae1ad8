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
    if origin in (typing.Union, types.UnionType):  # X | None: TOML has no null
        return convert(value, arguments[0], name)
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


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        each = "any number" if arguments[-1] is ... else str(len(arguments))
        return f"a list of {each}, each {_describe(arguments[0])}"
    return {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a text",
        Path: "a path",
    }[hint]
