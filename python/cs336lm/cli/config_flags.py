"""A flag for every field of the configuration, made from its tree of dataclasses.

    class TrainConfig: steps: int  ->  --train.steps N  ->  {"train": {"steps": 500}}  ->  Config

A flag's text becomes the value that a TOML file would hold and goes the way that values from files
go: what is impossible is refused by the same lines, in the same words. Help texts are the
docstrings below the fields. A new field needs nothing here.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cs336lm.training.config import SECTIONS, Config, config_from_tables
from cs336lm.training.config.values import is_optional, parse_text, table_among, without_none

_NONE = ("None", "none")
_NONES = (["None"], ["none"])  # where a flag takes several texts
_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


class Switch(argparse.Action):
    """A flag of two names, ``--train.compile`` and ``--train.no-compile``: true and false."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Remembers which of the two names was used."""
        setattr(namespace, self.dest, option_string == self.option_strings[0])


def add_config_flags(parser: argparse.ArgumentParser, defaults: Config | None) -> None:
    """Adds a flag for each field; ``defaults`` are shown in the help, which is left out if None.

    Only the flags that are given appear in what the parser returns.
    """
    for section, cls in SECTIONS.items():
        title = (cls.__doc__ or "").partition("\n")[0]
        group = parser.add_argument_group(f"[{section}]", title)
        hints = typing.get_type_hints(cls)
        docs = _field_docs(cls) if defaults is not None else {}
        for field in dataclasses.fields(cls):
            options: dict[str, Any] = {
                "dest": f"{section}.{field.name}",
                "default": argparse.SUPPRESS,
            }
            if defaults is not None:
                value = getattr(getattr(defaults, section), field.name)
                text = f"{docs.get(field.name, '')} (default: {_show(value)})"
                options["help"] = text.strip().replace("%", "%%")
            hint, name = hints[field.name], field.name.replace("_", "-")
            if hint is bool:
                options["action"] = Switch
                group.add_argument(f"--{section}.{name}", f"--{section}.no-{name}", **options)
            else:
                options |= _values_of(hint)
                group.add_argument(f"--{section}.{name}", **options)


def hyphenated(argv: Iterable[str]) -> list[str]:
    """The same command line with ``--model.d_model`` written ``--model.d-model``."""
    plain = []
    for argument in argv:
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            argument = name.replace("_", "-") + equals + value
        plain.append(argument)
    return plain


def config_from_flags(given: Mapping[str, Any], base: Config) -> Config:
    """``base`` with the fields replaced that ``{"section.field": text or texts}`` names.

    Raises ``UsageError`` naming the field whose value is impossible.
    """
    tables: dict[str, dict[str, Any]] = {}
    for section, cls in SECTIONS.items():
        hints = typing.get_type_hints(cls)
        texts = {name: given[key] for name in hints if (key := f"{section}.{name}") in given}
        # TOML has no null, so None cannot go through the tables.
        empty = {
            name: None
            for name, text in texts.items()
            if is_optional(hints[name]) and (text in _NONE or text in _NONES)
        }
        if empty:
            replaced = dataclasses.replace(getattr(base, section), **empty)
            base = dataclasses.replace(base, **{section: replaced})
        values = {
            name: parse_text(texts[name], hints[name]) for name in texts.keys() - empty.keys()
        }
        if values:
            tables[section] = values
    return config_from_tables(tables, base)


def _values_of(hint: Any) -> dict[str, Any]:
    """How many values a flag takes, and what stands for them in the help."""
    table, hint = table_among(hint), without_none(hint)
    arguments = typing.get_args(hint)
    if table is not None:
        one = _values_of(hint)["metavar"]
        return {"nargs": "+", "metavar": (one, f"{one}=WEIGHT")}
    if typing.get_origin(hint) is Literal:
        return {"metavar": "{" + ",".join(map(str, arguments)) + "}"}
    if typing.get_origin(hint) is tuple:
        count = "*" if arguments[-1] is ... else len(arguments)
        return {"nargs": count, "metavar": _values_of(arguments[0])["metavar"]}
    return {"metavar": _METAVARS[hint]}


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "nothing"
    return str(value)


def _field_docs(cls: type) -> dict[str, str]:
    """The string below each field of a dataclass, which Python itself does not keep."""
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except OSError:  # installed without sources
        return {}
    assert isinstance(tree, ast.ClassDef)
    docs = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            docs[field.target.id] = " ".join(str(below.value.value).split())
    return docs
