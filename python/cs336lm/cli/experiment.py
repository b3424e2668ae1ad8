"""What the commands share that plan or run trainings: account, sweep, ablate, batch-sizes."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cs336lm.cli.config_flags import add_config_flags, config_from_flags
from cs336lm.cli.options import above_zero, positive
from cs336lm.cli.parser import Parser
from cs336lm.errors import UsageError
from cs336lm.files import atomic_write
from cs336lm.model.presets import preset_tables
from cs336lm.training.config import Config, config_from_tables, load_config

if TYPE_CHECKING:
    from cs336lm.experiments.launchers.launcher import Launcher
    from cs336lm.experiments.results import Record


def base_config(
    command: str, file: Path | None, flags: list[str], preset: str | None = None
) -> Config:
    """``flags``, which are those of `train`, over ``file`` over ``preset`` over the defaults."""
    parser = Parser(prog=f"cs336lm {command}", add_help=False, argument_default=argparse.SUPPRESS)
    add_config_flags(parser, None)
    given = vars(parser.parse_args(flags))
    base = config_from_tables(preset_tables(preset) if preset else {}, Config())
    return config_from_flags(given, base if file is None else load_config(file, base))


def add_launching(parser: Parser) -> None:
    """Adds the flags that say where trials run, and when one counts as diverged."""
    add = parser.add_argument
    add("--jobs", type=positive, default=1, metavar="N", help="trials at once (default: 1)")
    add(
        "--launcher",
        choices=("local", "slurm", "ray"),
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
    from cs336lm.experiments.launchers.table import LAUNCHERS

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


def progress_line(record: Record) -> None:
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


def write_beside(path: Path, text: str) -> None:
    """Writes a file of the command's own directory, atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def status_of(records: list[Record], path: Path) -> int:
    """The command's exit status: 1, with a line that says where to look, if a trial failed."""
    failed = sum(record["end"] == "failed" for record in records)
    if failed:
        print(
            f"cs336lm: {failed} of {len(records)} trials failed, see {path / 'logs'}; the same "
            "command runs them again",
            file=sys.stderr,
        )
    return 1 if failed else 0
