"""Validation: the loss on windows that are the same every time, and for every batch size.

It is taken without fp8 even where training multiplies in eight bits, as ``cs336lm evaluate`` does:
figures compare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch

from cs336lm.data import gather_windows
from cs336lm.model.transformer import TransformerLM
from cs336lm.training.callbacks import Callback, StepResult, is_due
from cs336lm.training.distributed import StopRequested, StopVote
from cs336lm.training.reporter import Reporter
from cs336lm.training.setup import Setup


class Validator(Callback):
    """Validates before the first step, every ``train.eval_every`` steps and after the last.

    A validation after a step that a signal cuts short is made up for when the run goes on.
    ``validate`` returns the validation loss. Without validation data this does nothing. The best
    loss is kept together with its step and what it was measured on, ``validation_fingerprint``.
    """

    def __init__(self, setup: Setup, validate: Callable[[], float], reporter: Reporter) -> None:
        self._has_data = setup.data.val is not None
        self._every = setup.config.train.eval_every
        self._progress = setup.progress
        self._measured_on = setup.measured_on
        self._validate = validate
        self._reporter = reporter

    def before_training(self) -> None:
        """Says how good the initial weights are, or those that a signal left unmeasured."""
        progress = self._progress
        if not self._has_data or not (progress.step == 0 or progress.owes_validation):
            return
        with suppress(StopRequested):  # the first step will be the last one
            loss = self._validate()
            self._reporter.write(progress.record(val_loss=loss))
            if progress.owes_validation:
                progress.owes_validation = False
                self._note(loss, progress.step)

    def after_step(self, result: StepResult) -> None:
        """Leaves ``val_loss`` among the figures of a step that is due, and whether it is best."""
        if not self._has_data or not (result.is_final or is_due(result.step, self._every)):
            return
        self._reporter.flush()  # the record before need not wait for this one
        result.request_scalars()  # before the validation, whose time is not the step's
        try:
            loss = result.figures["val_loss"] = self._validate()
        except StopRequested:
            result.is_stopping = self._progress.owes_validation = True
            return
        self._progress.owes_validation = False
        result.is_best = self._note(loss, result.step)

    def _note(self, loss: float, step: int) -> bool:
        """Whether this is the best loss so far; if so, it is remembered."""
        is_best = loss < self._progress.best_val_loss
        if is_best:
            self._progress.best_val_loss, self._progress.best_step = loss, step
            self._progress.best_measured_on = self._measured_on
        return is_best


@torch.no_grad()
def validation_loss(setup: Setup, stop: StopVote) -> float:
    """The mean loss over the fixed validation windows, in nats per token.

    Raises ``StopRequested`` once ``stop`` says so, after any of the batches.
    """
    data, config, world = setup.data.val, setup.config, setup.world
    assert data is not None
    context = config.model.context_length
    starts = setup.data.val_windows
    most = config.data.batch_size // world.size // config.train.grad_accumulation
    rows = _rows_per_call(len(starts), most, world.size)
    calls = [starts[first : first + rows] for first in range(0, len(starts), rows)]
    model = setup.model
    total = torch.zeros((), device=setup.device)
    with evaluating(model.module, fp8=config.train.fp8):
        # All processes call the model equally often, for they may meet inside it.
        for first in range(0, len(calls), world.size):
            stop.check()
            mine = first + world.rank
            call = calls[mine % len(calls)]
            x, y = gather_windows(data, call, context, setup.device)
            loss = model(x, y)
            if mine < len(calls):
                total += loss * (len(call) / rows)
    return world.mean(total).item() * world.size / (len(starts) / rows)


def _rows_per_call(windows: int, most: int, processes: int) -> int:
    """As many as memory has room for (``most``, training's), the same in all calls if that can be.

    Calls of one shape are compiled once. Where only much smaller ones would be alike, the last call
    has what is left over.
    """
    most = min(most, -(-windows // processes))
    alike = max(rows for rows in range(1, most + 1) if windows % rows == 0)
    calls = -(-windows // most)
    return alike if 2 * alike > most else -(-windows // calls)


@contextmanager
def evaluating(model: TransformerLM, *, fp8: bool) -> Iterator[None]:
    """``model`` in evaluation mode and with exact products; afterwards as in training."""
    model.eval()
    if fp8:
        model.use_fp8(False)
    try:
        yield
    finally:
        if fp8:
            model.use_fp8(True)
        model.train()
