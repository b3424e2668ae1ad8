"""``cs336lm completion``: a script that lets a shell complete commands, flags and files.

The script is made of the parsers of all commands by shtab, which knows the shells; once it is
installed, nothing of this package runs while somebody types.
"""

import argparse
import re
from importlib import import_module
from pathlib import Path

from cs336lm.cli.parser import Parser, parser_for, parser_of
from cs336lm.errors import UsageError

SHELLS = ("bash", "zsh", "fish")

_EPILOG = """\
examples:
  eval "$(cs336lm completion bash)"                                   (this shell alone)
  cs336lm completion bash > ~/.local/share/bash-completion/completions/cs336lm
  cs336lm completion zsh > ~/.zfunc/_cs336lm       (with fpath+=~/.zfunc before compinit in .zshrc)
  cs336lm completion fish > ~/.config/fish/completions/cs336lm.fish

It needs shtab, once: pip install 'cs336lm[completion]'. Write the script anew after an update."""

# Commands that run trials: what they do not know they pass on to `train`.
_PASS_ON = ("sweep", "ablate", "batch-sizes")

# Values that are a file or a directory, by how the help calls them.
_FILES = re.compile(r"FILE|PATH|TOKENIZER")
_FOLDERS = re.compile(r"DIR|RUN(_DIR)?$")
_CHOICES = re.compile(r"\{(.+)\}$")


def main(argv: list[str]) -> None:
    """Prints the script for a shell."""
    parser = parser_for("completion", "Print a completion script for a shell.", _EPILOG)
    parser.add_argument("shell", choices=SHELLS, help="the shell that is to complete")
    arguments = parser.parse_args(argv)
    try:
        import shtab
    except ImportError:
        raise UsageError("it needs the package shtab: pip install 'cs336lm[completion]'") from None
    print(shtab.complete(all_commands(), arguments.shell))


def all_commands() -> Parser:
    """One parser for ``cs336lm`` with all its commands, each action saying how it is completed."""
    from cs336lm.cli.config_flags import add_config_flags
    from cs336lm.cli.main import COMMANDS
    from cs336lm.training.config import Config

    whole = Parser(prog="cs336lm", description="Raw text in, a trained language model out.")
    whole.add_argument("-V", "--version", action="store_true", help="print the version")
    commands = whole.add_subparsers(metavar="COMMAND")
    for name, (module, what) in COMMANDS.items():
        parent = parser_of(import_module(f"cs336lm.cli.{module}").main)
        one = commands.add_parser(name, help=what, parents=[parent], add_help=False)
        if name in _PASS_ON:
            add_config_flags(one, Config())
        for action in one._actions:
            _say_how(action)
    return whole


def _say_how(action: argparse.Action) -> None:
    """Tells shtab which values are words of a list, which are files and which directories."""
    import shtab

    if action.choices is not None or action.nargs == 0:
        return
    metavar = action.metavar[0] if isinstance(action.metavar, tuple) else action.metavar or ""
    if listed := _CHOICES.match(metavar):
        action.choices = listed[1].split(",")
    elif _FOLDERS.match(metavar):
        action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    elif _FILES.match(metavar) or action.type is Path:
        action.complete = shtab.FILE  # type: ignore[attr-defined]
