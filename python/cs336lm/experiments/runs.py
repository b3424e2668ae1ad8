"""What a run directory tells about its run, read from its text files alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from cs336lm.errors import UsageError
from cs336lm.json_files import parse_json
from cs336lm.training.config import SECTIONS, Config
from cs336lm.training.run_directory import RunDirectory
from cs336lm.training.trackers.jsonl import read_metrics
from cs336lm.training.trackers.tracker import Record

State = Literal["training", "done", "stopped", "diverged", "not begun"]

_DEEPEST = 6  # folders below the one that is searched


@dataclass(frozen=True)
class RunSummary:
    """A run at a glance."""

    path: Path
    config: Config
    """Resolved, as the run trains with it."""
    records: list[Record]
    environments: list[dict[str, Any]]
    """Of each start of the run, the first first."""
    state: State

    @property
    def name(self) -> str:
        """The directory's own name."""
        return self.path.resolve().name

    @property
    def step(self) -> int:
        """How far it is."""
        return self.records[-1]["step"] if self.records else 0

    @property
    def seconds(self) -> float:
        """How long it has trained."""
        return self.records[-1].get("seconds", 0.0) if self.records else 0.0

    @property
    def tokens(self) -> int:
        """How many tokens it has learned from."""
        return self.records[-1].get("tokens", 0) if self.records else 0

    def last(self, figure: str) -> float | None:
        """The last value of a figure of metrics.jsonl that is a number."""
        values = values_of(self.records, figure)
        return values[-1] if values else None

    @property
    def best_val_loss(self) -> float | None:
        """The least validation loss."""
        return min(values_of(self.records, "val_loss"), default=None)


def values_of(records: Sequence[Record], figure: str) -> list[float]:
    """What a figure was, in order, in the records that have a number for it."""
    return [record[figure] for record in records if record.get(figure) is not None]


def lost_its_loss(records: Sequence[Record]) -> bool:
    """Whether a loss was no number, which metrics.jsonl says by null: JSON has no NaN."""
    return any(
        name in record and record[name] is None
        for record in records
        for name in ("train_loss", "val_loss")
    )


def read_run(path: str | Path) -> RunSummary:
    """Reads a run directory. Raises ``ValueError`` naming what is wrong with it."""
    run = RunDirectory(path)
    config = run.load_config()
    records = read_metrics(run.metrics_file)
    return RunSummary(run.path, config, records, _environments(run), _state(run, config, records))


def find_runs(folder: str | Path) -> Iterator[Path]:
    """The run directories in ``folder`` and below it, sorted; nothing inside a run is looked at."""
    yield from _find(Path(folder), _DEEPEST)


def _find(folder: Path, depth: int) -> Iterator[Path]:
    if RunDirectory(folder).holds_run() and (folder / "checkpoints").is_dir():
        yield folder
        return
    if depth:
        for inner in sorted(folder.iterdir()):
            if inner.is_dir() and not inner.is_symlink() and not inner.name.startswith("."):
                yield from _find(inner, depth - 1)


def value_shown(value: object) -> str:
    """A value of a configuration, for people: 0.3 is not 0.30000000000000004."""
    if isinstance(value, tuple):
        return " ".join(map(value_shown, value))
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def differences(configs: Sequence[Config]) -> dict[str, list[Any]]:
    """The fields whose values are not the same in all configurations: a value for each."""
    found: dict[str, list[Any]] = {}
    for section, cls in SECTIONS.items():
        for field in dataclasses.fields(cls):
            values = [getattr(getattr(config, section), field.name) for config in configs]
            if any(value != values[0] for value in values):
                found[f"{section}.{field.name}"] = values
    return found


def loss_at(run: RunSummary, figure: str, axis: str, at: float) -> float | None:
    """``figure`` where the run's ``axis`` (step, tokens, seconds) is ``at``, by linear
    interpolation between its records; None outside of them."""
    points = [
        (record[axis], record[figure])
        for record in run.records
        if record.get(figure) is not None and record.get(axis) is not None
    ]
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= at <= x1:
            return y0 if x1 == x0 else y0 + (y1 - y0) * (at - x0) / (x1 - x0)
    return points[0][1] if points and points[0][0] == at else None


def _environments(run: RunDirectory) -> list[dict[str, Any]]:
    if not run.environment_file.exists():
        return []
    found = []
    for line in run.environment_file.read_text("utf-8", errors="replace").splitlines():
        try:
            found.append(parse_json(line))
        except ValueError:  # cut short by a kill
            continue
    return [line for line in found if isinstance(line, dict)]


def _state(run: RunDirectory, config: Config, records: list[Record]) -> State:
    try:
        run.refuse_if_in_use()
    except UsageError:
        return "training"
    if not records:
        return "not begun"
    if lost_its_loss(records):
        return "diverged"
    return "done" if _used_its_budget(config, records[-1]) else "stopped"


def _used_its_budget(config: Config, last: Record) -> bool:
    if config.train.steps is not None:
        return last["step"] >= config.train.steps
    # A run of so many seconds ends a little before them, with a step at the lowest rate.
    optim, seconds = config.optim, config.train.max_seconds
    assert optim.min_lr is not None  # resolved
    assert seconds is not None
    return last.get("seconds", 0.0) >= seconds or last.get("lr", math.inf) <= optim.min_lr
