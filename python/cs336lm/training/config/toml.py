"""The configuration as TOML: a table is a section, a key is a field.

A relative path in a file is relative to that file's folder.

The file of a run holds every value, those that were left open and derived from others too. The
table ``[derived]`` repeats the latter: whoever starts another run from the file gets them derived
anew, as long as the section still says the same; a value edited there is one that was asked for.
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
from cs336lm.json_files import read_bounded
from cs336lm.training.config.tree import SECTIONS, Config
from cs336lm.training.config.values import convert

_MOST_BYTES = 1 << 18
"""Of a configuration, a hundred times what one has: what a stranger may make of more takes long."""


def load_config(path: str | Path, base: Config | None = None, *, resolved: bool = False) -> Config:
    """Reads a TOML file; what it does not say is as in ``base`` (the defaults).

    In the file of a run, what was derived is left open again, unless ``resolved``.

    Raises ``OSError`` if the file cannot be read, ``ValueError`` if it is not TOML, and
    ``UsageError`` naming the key if that is unknown or its value impossible.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(read_bounded(path, _MOST_BYTES).decode())
    except RecursionError:
        raise ValueError(f"{path} is not valid TOML: it is nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ValueError(f"{path} is not valid TOML: {error}") from None
    derived, base = tables.pop("derived", {}), base or Config()
    try:
        if not resolved:
            base = _reopen(tables, derived, base)
        config = config_from_tables(tables, base)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    return config.relative_to(path.absolute().parent)


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


def _reopen(tables: dict[str, Any], derived: Any, base: Config) -> Config:
    """Takes from ``tables`` the values that ``derived`` has too; they are open in what it returns.

    A table that does not fit is none of ours, and is left to be refused or ignored.
    """
    for section in SECTIONS.keys() & (derived.keys() if isinstance(derived, dict) else ()):
        hints = typing.get_type_hints(SECTIONS[section])
        said, values = tables.get(section), derived[section]
        if not isinstance(said, dict) or not isinstance(values, dict):
            continue
        same = [
            name
            for name in values.keys() & said.keys()
            if values[name] == said[name] and type(None) in typing.get_args(hints.get(name))
        ]
        for name in same:
            del said[name]
        part = dataclasses.replace(getattr(base, section), **dict.fromkeys(same))
        base = dataclasses.replace(base, **{section: part})
    return base


def dump_config(config: Config, asked: Config | None = None) -> str:
    """The configuration as TOML; a field that is None is left out, since TOML has no null.

    Where ``asked`` is given, ``[derived]`` says which values are open in it.
    """
    tables = config_tables(config)
    derived = {
        section: {
            name: value
            for name, value in table.items()
            if asked is not None and getattr(getattr(asked, section), name) is None
        }
        for section, table in tables.items()
    }
    derived = {section: table for section, table in derived.items() if table}
    text = tomli_w.dumps(tables)
    if derived:
        text += f"\n{_DERIVED_COMMENT}\n{tomli_w.dumps({'derived': derived})}"
    return text


_DERIVED_COMMENT = """\
# Values of above that nobody asked for: they follow from others, and follow them anew where another
# run is started from this file. Edit them above; here stands what they were."""


def config_tables(config: Config) -> dict[str, dict[str, Any]]:
    """``{section: {field: value}}`` of plain values, without those that are None."""
    return {section: _table(vars(getattr(config, section))) for section in SECTIONS}


def _table(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in fields.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): each for key, each in value.items()}
    return str(value) if isinstance(value, Path) else value


def save_config(config: Config, path: str | Path, asked: Config | None = None) -> None:
    """Writes ``dump_config`` atomically."""
    with atomic_write(path) as file:
        file.write(dump_config(config, asked).encode())
