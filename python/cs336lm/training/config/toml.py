"""The configuration as TOML: a table is a section, a key is a field.

A relative path in a file is relative to that file's folder.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import typing
from pathlib import Path
from typing import Any

import tomli_w

from cs336lm.errors import UsageError
from cs336lm.files import atomic_write
from cs336lm.training.config.tree import SECTIONS, Config
from cs336lm.training.config.values import convert


def load_config(path: str | Path, base: Config | None = None) -> Config:
    """Reads a TOML file; what it does not say is as in ``base`` (the defaults).

    Raises ``OSError`` if the file cannot be read, ``ValueError`` if it is not TOML, and
    ``UsageError`` naming the key if that is unknown or its value impossible.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ValueError(f"{path} is not valid TOML: {error}") from None
    try:
        config = config_from_tables(tables, base or Config())
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return dataclasses.replace(config, data=config.data.relative_to(path.absolute().parent))


def config_from_tables(tables: dict[str, Any], base: Config) -> Config:
    """``base`` with the fields that ``{section: {field: value}}`` names replaced."""
    sections = {}
    for name, table in tables.items():
        if name not in SECTIONS:
            raise UsageError(f"there is no section [{name}]{_nearest(name, SECTIONS)}")
        if not isinstance(table, dict):
            raise UsageError(f"{name} must be a section: write [{name}] and its fields below")
        hints = typing.get_type_hints(SECTIONS[name])
        for key in table:
            if key not in hints:
                raise UsageError(f"there is no field {name}.{key}{_nearest(key, hints)}")
        values = {key: convert(value, hints[key], f"{name}.{key}") for key, value in table.items()}
        sections[name] = dataclasses.replace(getattr(base, name), **values)
    return dataclasses.replace(base, **sections)


def _nearest(name: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(known)}"


def dump_config(config: Config) -> str:
    """The configuration as TOML; a field that is None is left out, since TOML has no null."""
    tables = {
        section: {
            name: str(value) if isinstance(value, Path) else value
            for name, value in vars(getattr(config, section)).items()
            if value is not None
        }
        for section in SECTIONS
    }
    return tomli_w.dumps(tables)


def save_config(config: Config, path: str | Path) -> None:
    """Writes ``dump_config`` atomically."""
    with atomic_write(path) as file:
        file.write(dump_config(config).encode())
