"""One trial: an ordinary ``cs336lm train`` in a process of its own, watched while it runs.

    configuration file -> process -> metrics.jsonl -> Outcome

The process resumes what an earlier one left, so a trial that died is simply run again. While it
runs, its metrics are read: a loss that is not a number, or is above the bound, ends it as
*diverged*, which is a result like any other; and a pruner may end it early.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cs336lm.errors import UsageError
from cs336lm.experiments.launchers.launcher import Place, TaskDied
from cs336lm.experiments.runs import lost_its_loss, values_of
from cs336lm.training.run_directory import RunDirectory
from cs336lm.training.trackers.jsonl import read_metrics
from cs336lm.training.trackers.tracker import Record

_POLL_SECONDS = 0.2
_SAVING_SECONDS = 120.0  # for a process that was asked to stop, and writes a checkpoint

End = Literal["done", "diverged", "pruned", "failed", "stopped"]


@dataclass(frozen=True)
class Trial:
    """What a process is to run; plain data, which goes to another machine as it is."""

    name: str
    """Of the run directory, and unique in its sweep."""
    overrides: dict[str, Any]
    seed: int
    config: Path
    """The configuration's file, whole."""
    run: Path
    """The run directory."""
    log: Path
    """Where the process's output goes."""
    loss_bound: float
    """A loss above it, after the first validation, counts as diverged."""
    pruner: tuple[Path, int] | None = None
    """Optuna's journal and the number of the trial there, where trials may be pruned."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    end: End
    val_loss: float | None = None
    """The last validation loss, in nats a token; None if it diverged or was never validated."""
    best_val_loss: float | None = None
    train_loss: float | None = None
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    message: str = ""
    """What the process said last, where it failed."""


def run_trial(trial: Trial, place: Place) -> Outcome:
    """Trains, or goes on training, until it is done. Raises ``TaskDied`` if the process was killed.

    A run that another process has in its hands (left by a sweep that was killed) is waited for.
    """
    run = RunDirectory(trial.run)
    _wait_until_free(run, place.stopping)
    command = [sys.executable, "-m", "cs336lm", "train", "--config", str(trial.config)]
    command += ["--run-dir", str(trial.run), "--resume"]
    trial.log.parent.mkdir(parents=True, exist_ok=True)
    with trial.log.open("ab") as log:
        began = log.tell()
        process = place.start(command, log)
        ended = _watch(process, trial, run, place)
    figures = read_metrics(run.metrics_file)
    if ended is not None:
        return figures_with(figures, ended)
    status = process.returncode
    if status < 0:
        raise TaskDied(f"{trial.name} was killed by signal {-status}")
    if has_diverged(figures, trial.loss_bound) or (status != 0 and _ended_without_norm(figures)):
        return figures_with(figures, "diverged")
    if status == 0:
        return figures_with(figures, "done")
    if status > 128:  # it was asked to stop, and saved
        return figures_with(figures, "stopped")
    return figures_with(figures, "failed", _last_line(trial.log, began))


def _watch(
    process: subprocess.Popen[bytes], trial: Trial, run: RunDirectory, place: Place
) -> End | None:
    """Waits for the end, or brings it about; says why in that case."""
    try:
        should_prune = _pruner(trial)
        for figures in _changes(process, run):
            if place.stopping():
                return "stopped"
            if has_diverged(figures, trial.loss_bound):
                return "diverged"
            if should_prune(figures):
                return "pruned"
        return None
    finally:
        _end(process)


def _changes(process: subprocess.Popen[bytes], run: RunDirectory) -> Iterator[list[Record]]:
    """The run's records, now and then, as long as the process lives; [] where nothing is new."""
    seen = -1
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_SECONDS)
            return
        size = run.metrics_file.stat().st_size if run.metrics_file.exists() else 0
        yield read_metrics(run.metrics_file) if size != seen else []
        seen = size


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asks a process that still runs to save and stop; kills it if it does not."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_SAVING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_free(run: RunDirectory, stopping: Callable[[], bool]) -> None:
    while not stopping():
        try:
            run.refuse_if_in_use()
            return
        except UsageError:
            time.sleep(_POLL_SECONDS)


def has_diverged(records: list[Record], bound: float) -> bool:
    """Whether a loss was no number, or a validation loss after the first is above ``bound``."""
    later = values_of(records, "val_loss")[1:]
    return lost_its_loss(records) or any(loss > bound for loss in later)


def _ended_without_norm(records: list[Record]) -> bool:
    """Whether the last gradient was no number. By itself that is none: float16 skips such steps."""
    last = records[-1] if records else {}
    return "grad_norm" in last and last["grad_norm"] is None


def figures_with(records: list[Record], end: End, message: str = "") -> Outcome:
    """The outcome that ``records`` tell of a trial that ended as ``end``."""
    val, train = values_of(records, "val_loss"), values_of(records, "train_loss")
    last = records[-1] if records else {}
    return Outcome(
        end=end,
        val_loss=val[-1] if val and end != "diverged" else None,
        best_val_loss=min(val, default=None),
        train_loss=train[-1] if train and end != "diverged" else None,
        steps=last.get("step", 0),
        tokens=last.get("tokens", 0),
        seconds=last.get("seconds", 0.0),
        message=message,
    )


def _last_line(log: Path, began: int) -> str:
    with log.open("rb") as file:
        file.seek(began)
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _pruner(trial: Trial) -> Callable[[list[Record]], bool]:
    """Whether a trial is not worth going on with, by the validation losses of the others."""
    if trial.pruner is None:
        return lambda _: False
    import optuna

    from cs336lm.experiments.search import open_study

    journal, number = trial.pruner
    study = open_study(journal)
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=4)
    handle = optuna.trial.Trial(study, study.trials[number]._trial_id)
    told: set[int] = set()

    def should_prune(records: list[Record]) -> bool:
        for record in records:
            step, loss = record["step"], record.get("val_loss")
            if loss is not None and step not in told:
                told.add(step)
                handle.report(loss, step)
                if handle.should_prune():
                    return True
        return False

    return should_prune
