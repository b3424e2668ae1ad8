"""Checkpoints of a run: when they are due, what is in them, and who writes them.

Unless the run is sharded, the state is copied and a thread writes the copy while training
continues. A checkpoint holds no step whose record is not in ``metrics.jsonl`` already, and on the
disk, so a run that is killed anywhere, or loses its power, and is resumed has each step once.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from cs336lm.training.callbacks import Callback, StepResult, is_due
from cs336lm.training.checkpoints.snapshot import snapshot
from cs336lm.training.checkpoints.state import State, describe, pack
from cs336lm.training.checkpoints.writer import BackgroundWriter
from cs336lm.training.device_events import DeviceEvent
from cs336lm.training.parallel import gather_weights
from cs336lm.training.reporter import Reporter
from cs336lm.training.setup import Setup


class Saver(Callback):
    """Saves every ``train.checkpoint_every`` steps, at the end, and where validation was best."""

    def __init__(self, setup: Setup, reporter: Reporter) -> None:
        self._setup = setup
        self._reporter = reporter
        self._writer = BackgroundWriter()
        self._owed_validation = setup.progress.owes_validation

    def before_training(self) -> None:
        """Writes the best weights, if a kill came between the checkpoint resumed from and them.

        If the validation of that checkpoint has only now been made, writes it again as well.
        """
        progress = self._setup.progress
        validated = self._owed_validation and not progress.owes_validation
        is_best = validated and progress.best_step == progress.step
        if self._setup.best_is_missing or validated:
            self._save(as_last=validated, as_best=self._setup.best_is_missing or is_best)

    def after_step(self, result: StepResult) -> None:
        """Saves what is due, unless training has diverged."""
        self._writer.raise_if_failed()
        every = self._setup.config.train.checkpoint_every
        as_last = result.is_final or result.is_stopping or is_due(result.step, every)
        if as_last or result.is_best:
            self._reporter.flush()
            self._reporter.refuse_divergence(result.step, result.request_scalars())
            self._save(as_last=as_last, as_best=result.is_best)

    def after_training(self) -> None:
        """Waits until all is on the disk."""
        self._writer.wait()

    def close(self) -> None:
        """Lets a write that is under way end."""
        self._writer.close()

    def _save(self, *, as_last: bool, as_best: bool) -> None:
        """Writes a checkpoint to continue from (``as_last``), the best weights, or both."""
        self._setup.progress.read_clock()  # a validation may have come after the step
        if self._setup.model.is_sharded:
            state = self._save_slices(as_last=as_last, as_best=as_best)
            write_last = False
        else:
            setup = self._setup
            state = pack(
                setup.model.module, setup.optimizer, setup.progress.step, **self._numbers()
            )
            if not as_last:  # no training goes on from the best weights
                del state["optimizer"]
            write_last = as_last
        if self._setup.world.is_main:
            self._write_in_background(state, write_last, as_best, drop_old=as_last)

    def _save_slices(self, *, as_last: bool, as_best: bool) -> State:
        """Every process writes its slices; the first returns the whole weights if they are best."""
        setup, step = self._setup, self._setup.progress.step
        self._writer.wait()
        if as_last:
            from cs336lm.training.checkpoints.sharded import save_sharded

            numbers = {"iteration": step, **self._numbers()}
            path = setup.run.sharded_checkpoint(step)
            if setup.world.is_main:
                setup.run.sync_records()
            save_sharded(path, setup.model.module, setup.optimizer, numbers, setup.world)
        if not as_best:
            return {}
        weights = gather_weights(setup.model.module, setup.world)
        return {**describe(setup.model.module), "iteration": step, "model": weights}

    def _numbers(self) -> dict[str, Any]:
        """What a run needs to continue, beside the model and its optimizer."""
        return {
            "optim": self._setup.config.optim.name,
            "scaler": self._setup.scaler.state_dict(),
            "progress": asdict(self._setup.progress),
        }

    def _write_in_background(
        self, state: State, write_last: bool, write_best: bool, *, drop_old: bool
    ) -> None:
        run, keep = self._setup.run, self._setup.config.train.keep_checkpoints
        if not self._setup.model.is_sharded:  # what was gathered is a copy
            state = snapshot(state)
        copied = DeviceEvent(self._setup.device)

        def write() -> None:
            copied.wait()
            if write_best:  # first: a checkpoint counts on the best that it remembers
                run.write_best(state)
            if write_last:
                run.write_checkpoint(state)
            if drop_old:
                run.drop_old_checkpoints(keep)

        self._writer.submit(write)
