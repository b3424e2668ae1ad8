"""``cs336lm compare``: runs -> what differs between them, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cs336lm.cli.output import print_json
from cs336lm.cli.parser import parser_for
from cs336lm.errors import UsageError

if TYPE_CHECKING:
    from cs336lm.experiments.runs import RunSummary

_EPILOG = """\
examples:
  cs336lm compare runs/a runs/b
  cs336lm compare runs/a runs/b runs/c --markdown

Losses are compared at equal steps, at equal tokens and at equal seconds: at the last point of each
that all runs have reached, read off their curves."""

_FIGURES = {"val_loss": "validation loss", "train_loss": "training loss"}
_AXES = {"step": "steps", "tokens": "tokens", "seconds": "seconds"}


def main(argv: list[str]) -> int:
    """Prints two tables: configurations and figures."""
    parser = parser_for("compare", "Compare two or more runs.", _EPILOG)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--markdown", action="store_true", help="print tables in Markdown")
    shape.add_argument("--json", action="store_true", help="print one object")
    arguments = parser.parse_args(argv)
    if len(arguments.runs) < 2:
        raise UsageError("name two runs or more to compare")

    from cs336lm.experiments.runs import differences, read_run, value_shown
    from cs336lm.experiments.tables import Table

    runs = [read_run(path) for path in arguments.runs]
    differ, figures = differences([run.config for run in runs]), compared(runs)
    if arguments.json:
        fields = {name: [_plain(v) for v in values] for name, values in differ.items()}
        print_json({"runs": arguments.runs, "config": fields, "figures": figures})
        return 0
    headings = ["", *(run.name for run in runs)]
    tables = [
        Table(headings, [[name, *map(value_shown, values)] for name, values in differ.items()]),
        Table(headings, [[name, *map(_figure, values)] for name, values in figures.items()]),
    ]
    if not differ:
        print("the configurations are the same")
    for table in tables if differ else tables[1:]:
        print(table.as_markdown() if arguments.markdown else table.as_text())
    return 0


def compared(runs: list[RunSummary]) -> dict[str, list[float | None]]:
    """Figures by what they are called: one for each run."""
    from cs336lm.experiments.runs import loss_at

    rows: dict[str, list[float | None]] = {
        "steps": [run.step for run in runs],
        "tokens": [run.tokens for run in runs],
        "seconds": [run.seconds for run in runs],
    }
    for figure, name in _FIGURES.items():
        rows[f"last {name}"] = [run.last(figure) for run in runs]
    rows["best validation loss"] = [run.best_val_loss for run in runs]
    for figure, name in _FIGURES.items():
        for axis, unit in _AXES.items():
            ends = [_end(run, figure, axis) for run in runs]
            if None in ends:
                continue
            at = min(end for end in ends if end is not None)
            row = [loss_at(run, figure, axis, at) for run in runs]
            rows[f"{name} at {at:,.0f} {unit}"] = row
    speeds = [run.last("tokens_per_second") for run in runs]
    return rows | {"tokens a second": speeds}


def _end(run: RunSummary, figure: str, axis: str) -> float | None:
    points = [r[axis] for r in run.records if r.get(figure) is not None and axis in r]
    return points[-1] if points else None


def _plain(value: object) -> object:
    return value if isinstance(value, int | float | str | bool | None) else str(value)


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 or float(value).is_integer() else f"{value:.4f}"
