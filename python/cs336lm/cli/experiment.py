"""What the commands share that plan or run trainings: account, sweep, ablate, batch-sizes."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cs336lm.cli.config_flags import add_config_flags, config_from_flags, hyphenated
from cs336lm.cli.options import above_zero, positive
from cs336lm.cli.output import print_json
from cs336lm.cli.parser import Parser, parser_for
from cs336lm.errors import UsageError
from cs336lm.experiments.launchers.table import LAUNCHERS
from cs336lm.files import atomic_write
from cs336lm.model.presets import preset_tables
from cs336lm.training.config import Config, config_from_tables, load_config

if TYPE_CHECKING:
    from cs336lm.experiments.launchers.launcher import Launcher
    from cs336lm.experiments.results import Record
    from cs336lm.experiments.search import Search
    from cs336lm.experiments.sweep import Sweep
    from cs336lm.experiments.tables import Table


def base_config(
    command: str, file: Path | None, flags: list[str], preset: str | None = None
) -> Config:
    """``flags``, which are those of `train`, over ``file`` over ``preset`` over the defaults."""
    parser = Parser(prog=f"cs336lm {command}", add_help=False, argument_default=argparse.SUPPRESS)
    add_config_flags(parser, None)
    given = vars(parser.parse_args(flags))
    base = config_from_tables(preset_tables(preset) if preset else {}, Config())
    return config_from_flags(given, base if file is None else load_config(file, base))


def trials_parser(command: str, description: str, epilog: str) -> Parser:
    """The parser of a command that runs trials: what all of them take."""
    parser = parser_for(command, description, epilog)
    add = parser.add_argument
    add(
        "--config",
        type=Path,
        metavar="FILE.toml",
        help="the base configuration; flags of `train` override it",
    )
    add("--out", required=True, type=Path, metavar="DIR", help="directory of the trials")
    add("--seeds", type=positive, default=1, metavar="N", help="seeds of each (default: 1)")
    _add_launching(parser)
    return parser


def parse_trials(parser: Parser, command: str, argv: list[str]) -> tuple[Any, Config]:
    """The flags of the command, and the base configuration that the others say."""
    arguments, given = parser.parse_known_args(hyphenated(argv))
    return arguments, base_config(command, arguments.config, given)


def run_trials(sweep: Sweep, search: Search, arguments: argparse.Namespace) -> list[Record]:
    """Runs what ``search`` proposes where the flags say; an interruption saves what runs."""
    launcher = launcher_from(arguments, sweep.path)
    with signals_interrupt():
        return sweep.run(search, launcher, _progress_line)


def show_trials(
    sweep: Sweep,
    records: list[Record],
    table: Table,
    arguments: argparse.Namespace,
    notes: Iterable[str] = (),
) -> int:
    """Writes and prints the table, with ``notes`` below it, or the records as JSON.

    Returns the command's exit status: 1, with a line that says where to look, if a trial failed.
    """
    with atomic_write(sweep.path / "table.md") as file:
        file.write(table.as_markdown().encode())
    if arguments.json:
        for record in records:
            print_json(record)
    else:
        print(table.as_text(), end="")
        for note in (*notes, f"{len(records)} trials: {sweep.path}"):
            print(note)
    failed = sum(record["end"] == "failed" for record in records)
    if failed:
        print(
            f"cs336lm: {failed} of {len(records)} trials failed, see {sweep.path / 'logs'}; the "
            "same command runs them again",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _add_launching(parser: Parser) -> None:
    """Adds the flags that say where trials run, and when one counts as diverged."""
    add = parser.add_argument
    add("--jobs", type=positive, default=1, metavar="N", help="trials at once (default: 1)")
    add(
        "--launcher",
        choices=tuple(LAUNCHERS),
        default="local",
        help="where trials run: processes of this machine (default), Slurm jobs, Ray tasks",
    )
    add(
        "--launcher-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="submitit's parameters for slurm (timeout_min=60), a task's for ray (num_gpus=1)",
    )
    add(
        "--loss-bound",
        type=above_zero,
        metavar="LOSS",
        help="validation loss above which a trial has diverged (default: half a nat above that of "
        "a model that finds all tokens equally likely)",
    )
    add("--json", action="store_true", help="print the results as JSON, an object a line")


def launcher_from(arguments: argparse.Namespace, folder: Path) -> Launcher:
    """The launcher that the flags ask for; its own logs go into ``folder``/launcher."""
    options: dict[str, Any] = {}
    for text in arguments.launcher_option:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--launcher-option {text!r}: write NAME=VALUE")
        options[name] = _plain(value)
    return LAUNCHERS[arguments.launcher](folder / "launcher", arguments.jobs, options)


def _plain(value: str) -> Any:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _progress_line(record: Record) -> None:
    """Says on stderr how a trial ended."""
    loss = "" if record["val_loss"] is None else f", validation loss {record['val_loss']:.4f}"
    why = f": {record['message']}" if "message" in record else ""
    steps = f"step {record['steps']:,}"
    print(f"{record['trial']}: {record['end']} at {steps}{loss}{why}", file=sys.stderr, flush=True)


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP do what Ctrl-C does: running trials save before the command ends."""
    caught = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in caught}

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for number in caught:
        if before[number] is not signal.SIG_IGN:  # under nohup
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
