"""What is tried: fields of the configuration, each with listed values or a range.

optim.lr=1e-4,3e-4,1e-3           three values
optim.lr=log:1e-4..1e-1           a range, even on a logarithmic scale
model.d_model=64..512             a range of whole numbers, both ends included
optim.betas=0.9 0.95,0.9 0.99     two values of a field that takes two numbers
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cs336lm.errors import UsageError
from cs336lm.training.config import SECTIONS, Config, config_from_tables
from cs336lm.training.config.values import convert, is_optional, parse_text, without_none

Overrides = dict[str, Any]
"""``{"section.field": value}``: where a run differs from the base configuration."""

_RANGE = re.compile(r"(log:)?([^.,]+(?:\.\d[^.,]*)?)\.\.([^,]+)")
_OPEN = ("None", "none")
_SWITCH = {"true": True, "false": False}


@dataclass(frozen=True)
class Listed:
    """A field and the values that it takes in turn."""

    field: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """A field and the numbers that it may take, ends included."""

    field: str
    low: float
    high: float
    is_log: bool
    is_whole: bool

    def at(self, share: float) -> float | int:
        """The value at ``share`` (from 0 to 1) of the range."""
        if self.is_log:
            value = self.low * (self.high / self.low) ** share
        else:
            value = self.low + share * (self.high - self.low)
        value = min(max(value, self.low), self.high)
        return round(value) if self.is_whole else value


Dimension = Listed | Range


def parse_dimension(text: str) -> Dimension:
    """A dimension from ``FIELD=VALUES``. Raises ``UsageError`` that says what is wrong."""
    name, equals, values = text.partition("=")
    name = name.strip().replace("-", "_")
    if not equals or not values.strip():
        raise UsageError(f"{text!r} names no values: write FIELD=VALUE,VALUE or FIELD=LOW..HIGH")
    hint = _hint(name)
    found = _RANGE.fullmatch(values.strip())
    if found and without_none(hint) in (int, float):
        return _range(name, hint, *found.groups())
    parsed = tuple(_value(part.strip(), hint, name) for part in values.split(","))
    if len(set(map(repr, parsed))) < len(parsed):
        raise UsageError(f"{text!r} names a value twice")
    return Listed(name, parsed)


def parse_space(texts: list[str]) -> list[Dimension]:
    """All dimensions; raises ``UsageError`` if a field is named twice."""
    dimensions = [parse_dimension(text) for text in texts]
    names = [dimension.field for dimension in dimensions]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name} is swept twice: give all its values in one --grid")
    return dimensions


def with_overrides(base: Config, overrides: Mapping[str, Any]) -> Config:
    """``base`` with the fields of ``overrides`` replaced; None leaves a field open.

    Raises ``UsageError`` if the result is impossible.
    """
    tables: dict[str, dict[str, Any]] = {}
    left_open: dict[str, list[str]] = {}
    for name, value in overrides.items():
        _hint(name)
        section, _, field = name.partition(".")
        if value is None:
            left_open.setdefault(section, []).append(field)
        else:
            plain = str(value) if isinstance(value, Path) else value
            plain = list(plain) if isinstance(plain, tuple) else plain
            tables.setdefault(section, {})[field] = plain
    # All fields of a section at once: some values are possible only together.
    for section, fields in left_open.items():
        part = dataclasses.replace(getattr(base, section), **dict.fromkeys(fields))
        base = dataclasses.replace(base, **{section: part})
    return config_from_tables(tables, base)


def described(overrides: Mapping[str, Any]) -> str:
    """``optim.lr=0.001, model.d_ff=None``: one line for people."""
    return ", ".join(f"{name}={shown(value)}" for name, value in overrides.items())


def shown(value: Any) -> str:
    """A value for people."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple | list):
        return " ".join(map(shown, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _hint(name: str) -> Any:
    """The type of the field ``section.field``."""
    section, _, field = name.partition(".")
    hints = typing.get_type_hints(SECTIONS[section]) if section in SECTIONS else {}
    if field not in hints:
        import difflib

        known = [
            f"{section}.{field.name}"
            for section, cls in SECTIONS.items()
            for field in dataclasses.fields(cls)
        ]
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        guess = f"; did you mean {close[0]}?" if close else ""
        raise UsageError(f"there is no field {name} in the configuration{guess}")
    if name == "train.seed":
        raise UsageError("train.seed is not swept over: --seeds N runs every trial with N seeds")
    return hints[field]


def _value(text: str, hint: Any, name: str) -> Any:
    """What ``text`` means for a field, as the configuration will hold it."""
    if is_optional(hint) and text in _OPEN:
        return None
    plain = without_none(hint)
    if typing.get_origin(plain) is tuple:
        parts = text.split()
        fixed = ... not in typing.get_args(plain)
        if fixed and len(parts) != len(typing.get_args(plain)):
            return convert(text, hint, name)  # which says how many it takes
        return convert(parse_text(parts, hint), hint, name)
    if plain is bool:
        return convert(_SWITCH.get(text.lower(), text), hint, name)
    if plain is Path:
        return Path(text).absolute()
    value = convert(parse_text(text, hint), hint, name)
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{name}={text} is not a finite number")
    return value


def _range(name: str, hint: Any, log: str | None, low: str, high: str) -> Range:
    bounds = [_value(text.strip(), hint, name) for text in (low, high)]
    first, last = bounds
    if not first < last:
        raise UsageError(f"{name}={low}..{high}: the range must rise")
    if log and not first > 0:
        raise UsageError(f"{name}=log:{low}..{high}: a logarithmic range must begin above 0")
    return Range(name, first, last, log is not None, without_none(hint) is int)
