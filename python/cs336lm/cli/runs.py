"""``cs336lm runs``: a folder -> a list of the runs in it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cs336lm.cli.output import print_json
from cs336lm.cli.parser import parser_for
from cs336lm.errors import UsageError

if TYPE_CHECKING:
    from cs336lm.experiments.runs import RunSummary

_EPILOG = """\
examples:
  cs336lm runs
  cs336lm runs sweeps/lr --sort val_loss
  cs336lm runs runs --json

A run is training (a process holds its directory), done, stopped (it has steps left), diverged, or
not begun. Runs that other runs are inside of are found as well: a sweep's, for instance."""


def main(argv: list[str]) -> int:
    """Prints a row a run."""
    parser = parser_for("runs", "List the runs in a folder and below it.", _EPILOG)
    parser.add_argument(
        "folder", nargs="?", default="runs", type=Path, metavar="DIR", help="default: runs"
    )
    parser.add_argument(
        "--sort", choices=_ORDERS, default="name", help="order of the rows (default: name)"
    )
    parser.add_argument("--json", action="store_true", help="print an object a run")
    arguments = parser.parse_args(argv)

    from cs336lm.experiments.runs import find_runs, read_run

    if not arguments.folder.is_dir():
        raise UsageError(f"{arguments.folder} is not a folder: name one that holds runs")
    runs = []
    for path in find_runs(arguments.folder):
        try:
            runs.append(read_run(path))
        except (OSError, ValueError) as error:  # one broken run hides no other
            print(f"cs336lm: {path} is left out: {error}", file=sys.stderr)
    runs.sort(key=_ORDERS[arguments.sort])
    if arguments.json:
        for run in runs:
            print_json(_as_object(run))
    elif runs:
        print(_table(runs), end="")
    else:
        print(f"no runs in {arguments.folder}")
    return 0


def _best(run: RunSummary) -> tuple[bool, float]:
    loss = run.best_val_loss
    return loss is None, loss or 0.0


def _started(run: RunSummary) -> str:
    return str(run.environments[0].get("time", "")) if run.environments else ""


def _path(run: RunSummary) -> str:
    return str(run.path)


_ORDERS: dict[str, Callable[[RunSummary], Any]] = {
    "name": _path,
    "val_loss": _best,
    "time": _started,
}


def _steps(run: RunSummary) -> str:
    steps = run.config.train.steps
    return f"{run.step:,}" if steps is None else f"{run.step:,}/{steps:,}"


def _as_object(run: RunSummary) -> dict[str, object]:
    return {
        "run": str(run.path),
        "state": run.state,
        "step": run.step,
        "steps": run.config.train.steps,
        "tokens": run.tokens,
        "seconds": run.seconds,
        "train_loss": run.last("train_loss"),
        "val_loss": run.last("val_loss"),
        "best_val_loss": run.best_val_loss,
        "started": _started(run) or None,
    }


def _table(runs: list[RunSummary]) -> str:
    from cs336lm.experiments.tables import Table, duration, number

    rows = [
        [
            str(run.path),
            run.state,
            _steps(run),
            f"{run.tokens:,}",
            duration(run.seconds),
            number(run.last("train_loss")),
            number(run.last("val_loss")),
            number(run.best_val_loss),
            _started(run)[:16].replace("T", " "),
        ]
        for run in runs
    ]
    headings = ["run", "state", "step", "tokens", "time", "train", "val", "best val", "started"]
    return Table(headings, rows, texts=2).as_text()
