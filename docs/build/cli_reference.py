"""Writes docs/commands.md, the reference of the commands, from their parsers.

    python docs/build/cli_reference.py      or: make cli-reference

A test fails as long as the page says something else than ``--help`` does.
"""

import argparse
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from cs336lm.cli.main import COMMANDS
from cs336lm.cli.parser import Parser, parser_of

PAGE = Path(__file__).resolve().parent.parent / "commands.md"

HEAD = """\
# Commands

<!-- Written by `make cli-reference` from the parsers: change the commands, not this page. -->

What `cs336lm COMMAND --help` says, on one page. Exit status: 0, done; 1, it failed; 2, it was asked
wrongly; 130, stopped by Ctrl-C. What is wrong is one line on standard error.

| command | |
|---|---|
"""


def reference() -> str:
    """The whole page."""
    rows = "".join(f"| [`{name}`](#{name}) | {_plain(what)} |\n" for name, (_, what) in _all())
    return HEAD + rows + "".join(_section(name, module) for name, (module, _) in _all())


def _all() -> list[tuple[str, tuple[str, str]]]:
    return list(COMMANDS.items())


def _section(name: str, module: str) -> str:
    parser = parser_of(import_module(f"cs336lm.cli.{module}").main)
    lines = ["", f"## {name}", "", "```text", _synopsis(name, parser), "```", ""]
    lines += [_plain(parser.description or ""), ""]
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        actions = [action for action in actions if "--help" not in action.option_strings]
        if not actions:
            continue
        if group.title and group.title.startswith("["):
            lines += [f"### {name}: `{group.title}`", "", _plain(group.description or ""), ""]
        lines += [*map(_row, actions), ""]
    if parser.epilog:
        lines += ["```text", parser.epilog.rstrip(), "```", ""]
    return "\n".join(lines)


def _synopsis(name: str, parser: Parser) -> str:
    """The command with what it must be given; the rest is ``[options]``."""
    required = [action for action in parser._actions if action.required and action.option_strings]
    placed = [action for action in parser._actions if not action.option_strings]
    words = [*map(_value, placed)]
    words += [f"{action.option_strings[0]} {_value(action)}" for action in required]
    return " ".join(["cs336lm", name, *words, "[options]"])


def _row(action: argparse.Action) -> str:
    """One flag or argument of a list: how it is written, and what it is for."""
    if not action.option_strings:
        written = f"`{_value(action)}`"
    elif action.nargs == 0:
        written = ", ".join(f"`{flag}`" for flag in action.option_strings)
    else:
        written = f"`{action.option_strings[-1]} {_value(action)}`"
    text = (action.help or "").replace("%%", "%")
    return f"- {written}: {_plain(text)}" if text else f"- {written}"


def _value(action: argparse.Action) -> str:
    """What stands for an action's values: ``N``, ``FILE...``, ``[DIR]``, ``a|b``."""
    metavar = action.metavar or (
        "|".join(map(str, action.choices)) if action.choices else action.dest.upper()
    )
    if isinstance(metavar, tuple):
        return f"{metavar[0]} [{metavar[1]} ...]"
    name = metavar.strip("{}").replace(",", "|") if metavar.startswith("{") else metavar
    if action.nargs == "?":
        return f"[{name}]"
    if action.nargs in ("*", argparse.REMAINDER):
        return f"[{name} ...]"
    if action.nargs == "+":
        return f"{name} [{name} ...]"
    return " ".join([name] * action.nargs) if isinstance(action.nargs, int) else name


def _plain(text: str) -> str:
    """Prose of a help text as Markdown: flags and special tokens as code, and nothing misread."""
    return "".join(_marked(text))


def _marked(text: str) -> Iterator[str]:
    for part in re.split(r"(`[^`]+`|'?<\|\w*\|>(?:=\d+)?'?)", text):
        if part.startswith("`"):
            yield part
        elif "<|" in part:
            yield f"`{part}`"
        else:
            part = re.sub(r"([*\[\]])", r"\\\1", part).replace("<", "&lt;")
            yield re.sub(r"(?<![\w\\-])(--?[a-z][\w.-]*\w)", r"`\1`", part)


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
