"""The parser of every command: ``argparse``, with one line for what is wrong and a guess."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import IO, Any, NoReturn

# Whether a parser is wanted, and not the text of its help.
_WANTED = ContextVar("_WANTED", default=False)


class _Found(BaseException):
    """Carries a parser out of the command that made it; no failure, and caught by none."""

    def __init__(self, parser: Parser) -> None:
        self.parser = parser


def _columns() -> int:
    """How many columns a help text has: as ``shutil.get_terminal_size`` says it.

    argparse asks shutil when a flag is added, and shutil loads three compressors: 3 ms of a start.
    """
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):  # closed, detached, or no terminal
        return 80


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


class Parser(argparse.ArgumentParser):
    """A parser whose help keeps the lines of its description and its epilog (the examples).

    A wrong call is one line, with the flag that was probably meant, and exit status 2.
    """

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", _Formatter)
        super().__init__(**options)

    def parse_args(  # type: ignore[override]  # no namespace: each call makes its own
        self, args: Sequence[str] | None = None
    ) -> argparse.Namespace:
        """Parses ``args``; what it does not know is refused by name."""
        args = sys.argv[1:] if args is None else args
        # First, so that a misspelt flag is not reported as a required one that is missing.
        for argument in itertools.takewhile("--".__ne__, args):
            name = argument.partition("=")[0]
            if name.startswith("--") and " " not in argument and not self._begins_a_flag(name):
                self.error(_unknown(name, self._option_string_actions))
        arguments, unknown = self.parse_known_args(args)
        if unknown:
            self.error(_unknown(unknown[0], self._option_string_actions))
        return arguments

    def _begins_a_flag(self, name: str) -> bool:
        return any(flag.startswith(name) for flag in self._option_string_actions)

    def print_help(self, file: IO[str] | None = None) -> None:  # type: ignore[override]
        """Prints the help, unless :func:`parser_of` asks for the parser itself."""
        if _WANTED.get():
            raise _Found(self)
        super().print_help(file)

    def error(self, message: str) -> NoReturn:
        """Says what is wrong in one line, without the usage, which may be long."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def parser_for(command: str, description: str, epilog: str) -> Parser:
    """The parser of ``cs336lm COMMAND``."""
    return Parser(prog=f"cs336lm {command}", description=description, epilog=epilog)


def parser_of(main: Callable[[list[str]], object]) -> Parser:
    """The parser of a command, given its ``main``: the one that answers ``--help``.

    Shell completion and the reference of the commands are made of it.
    """
    before = _WANTED.set(True)
    try:
        main(["--help"])
    except _Found as found:
        return found.parser
    finally:
        _WANTED.reset(before)
    raise LookupError(f"{main.__module__} does not answer --help with a cs336lm.cli.parser.Parser")


def _unknown(argument: str, flags: Iterable[str]) -> str:
    if not argument.startswith("-"):
        return f"unexpected argument {argument!r}"
    from difflib import get_close_matches

    name = argument.partition("=")[0]
    close = get_close_matches(name, flags, n=1, cutoff=0.5)
    return f"there is no flag {name}" + (f"; did you mean {close[0]}?" if close else "")
