"""A training run from a configuration to a run directory: its parts, put together.

    setup           data, processes, device, model, optimizer, last checkpoint
    step            one batch -> one change of the model, unless its numbers are bad
    loop            step after step, and after each the callbacks
      validator       the loss on held-out data, now and then
      monitor         a look inside the model, now and then
      reporter        records of figures, to all trackers
      saver           checkpoints

Each part is a file of this name.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from cs336lm.errors import UsageError
from cs336lm.training.bad_numbers import BadNumbers
from cs336lm.training.callbacks import Callback
from cs336lm.training.config import Config, config_tables
from cs336lm.training.distributed import StopVote
from cs336lm.training.environment import record_environment
from cs336lm.training.loop import run_steps
from cs336lm.training.monitor import Monitor
from cs336lm.training.profiling import StepProfiler
from cs336lm.training.progress import Progress
from cs336lm.training.reporter import Reporter
from cs336lm.training.saver import Saver
from cs336lm.training.setup import Setup, set_up
from cs336lm.training.step import TrainingStep
from cs336lm.training.stop_signals import StopSignals
from cs336lm.training.trackers.console import ConsoleTracker
from cs336lm.training.trackers.group import TrackerGroup
from cs336lm.training.trackers.jsonl import JsonlTracker
from cs336lm.training.trackers.table import TRACKERS
from cs336lm.training.trackers.tracker import Tracker
from cs336lm.training.validator import Validator, validation_loss


@dataclass(frozen=True)
class TrainResult:
    """What came of ``Trainer.train``: how far it is and the latest figures."""

    progress: Progress
    train_loss: float | None
    val_loss: float | None
    stopped_by: signal.Signals | None
    """The signal that ended the run early; None if it is done."""
    is_done: bool
    """Whether no step is left."""


class Trainer:
    """One training run: ``Trainer(config, run_dir).train()``.

    Everything is opened and checked here, before anything is written. ``resume`` continues from the
    run's last checkpoint (from the start, if it has none yet); without it, a directory that holds
    weights of a run is refused. ``new_optimizer``: resume with another optimizer than before, which
    starts without a memory. ``console``: show a live line on stderr. ``profile``: record a few
    steps, see ``profiling``. ``callbacks``: what else happens beside the steps, each made of the
    ``Setup``; they come before what a step left is reported and saved, in all processes.
    ``train.sample_every`` needs one that samples: ``cs336lm.generation.samples.Samples``.
    """

    def __init__(
        self,
        config: Config,
        run_dir: str | Path,
        *,
        resume: bool = False,
        new_optimizer: bool = False,
        console: bool = False,
        profile: bool = False,
        callbacks: Sequence[Callable[[Setup], Callback]] = (),
    ) -> None:
        self._setup = setup = set_up(config, run_dir, resume=resume, new_optimizer=new_optimizer)
        self._step = TrainingStep(setup)
        self._signals = StopSignals(patient=setup.world.size > 1)
        self._stop = StopVote(setup.world, setup.device, self._signals)
        self._console = console
        self._profile = profile and setup.world.is_main
        self.run, self.config, self.data = setup.run, setup.config, setup.data
        self.world, self.device, self.dtype = setup.world, setup.device, setup.dtype
        self.model, self.optimizer = setup.model.module, setup.optimizer
        self.progress, self.budget = setup.progress, setup.budget
        self.damaged = setup.damaged
        self._others = [make(setup) for make in callbacks]

    def train(self) -> TrainResult:
        """Trains to the last step, or until Ctrl-C, SIGTERM or SIGHUP; saves in any case.

        Raises ``UsageError`` if another process trains in the run directory, ``ValueError`` if the
        loss is not a finite number any more, and ``OSError`` if a file cannot be written; the
        checkpoints written before are whole.
        """
        if self.config.train.sample_every and not any(other.samples for other in self._others):
            raise UsageError(
                f"train.sample_every={self.config.train.sample_every} needs somebody who samples: "
                "Trainer(..., callbacks=[Samples]), from cs336lm.generation.samples"
            )
        self.world.barrier()  # everybody has looked at the directory and found it good
        with ExitStack() as stack:
            if self.world.is_main:
                stack.enter_context(self.run.in_use(self.progress.step, list(self.damaged)))
                self.run.prepare(self.config, self.data.tokenizer, asked=self._setup.asked)
                self.run.settle_best(self.progress.best_step, self.progress.step)
                record_environment(
                    self.run.environment_file, self.device, self.world, self.progress.step
                )
            stack.callback(self.world.leave)
            reporter = stack.enter_context(closing(Reporter(self._setup, self._open_tracker())))
            saver = stack.enter_context(closing(Saver(self._setup, reporter)))
            validator = Validator(self._setup, self.validate, reporter)
            monitor = Monitor(self._setup, reporter)
            profiler = self._make_profiler()
            with self._signals:
                self._stop.begin()
                callbacks = [validator, monitor, *self._others, reporter, saver]
                try:
                    run_steps(self._setup, self.update, callbacks, self._stop, profiler)
                except BadNumbers as error:
                    with suppress(ValueError):  # which says the same
                        reporter.flush()  # the steps before were good ones
                    reporter.write_bad_step(error.step, error.loss, error.norm)
                    raise
            self.world.barrier()
        latest = reporter.latest
        return TrainResult(
            self.progress,
            latest.get("train_loss"),
            latest.get("val_loss"),
            self._signals.received,
            is_done=not self.budget.steps_left(),
        )

    def update(self, x: Tensor, y: Tensor, *, rounds: int) -> tuple[Tensor, Tensor]:
        """One optimizer step on ``x`` -> ``y``, this process's share: (batch, context) each.

        Returns the loss of the share and the norm of the whole gradient, and waits for neither.
        """
        return self._step(x, y, rounds=rounds)

    def validate(self) -> float:
        """The mean loss over the fixed validation windows, in nats per token.

        Raises ``StopRequested`` if a signal asks ``train`` to stop meanwhile.
        """
        began = time.perf_counter()
        loss = validation_loss(self._setup, self._stop)
        self.progress.validation_seconds = time.perf_counter() - began
        return loss

    def _open_tracker(self) -> Tracker | None:
        if not self.world.is_main:
            return None
        train, step, path = self.config.train, self.progress.step, self.run.path
        tables = config_tables(self.config)
        others: dict[str, Callable[[], Tracker]] = {
            name: partial(TRACKERS[name], path, tables, step) for name in train.track
        }
        if self._console:
            others["console"] = partial(
                ConsoleTracker, step, train.steps, max_seconds=train.max_seconds
            )
        own = partial(JsonlTracker, self.run.metrics_file, after=step or None)
        return TrackerGroup(own, others)

    def _make_profiler(self) -> StepProfiler | None:
        return StepProfiler(self.run.path / "profile", self.device) if self._profile else None
