"""From what a step leaves on the device to the records that trackers take.

The loss and the gradient's norm of a step are *requested* when it is due and *read* when the next
one is, so that the host never waits for the device in between. A record holds: step, tokens and
seconds so far, train_loss, val_loss (where validated), monitor (where monitored), lr, grad_norm,
tokens_per_second, mfu (of the device's peak in train.dtype, also where train.fp8 multiplies faster
than that).
"""

from __future__ import annotations

import math
from typing import Any

from cs336lm.model.accounting import peak_flops, training_flops_per_token
from cs336lm.training.callbacks import Callback, StepResult, is_due
from cs336lm.training.device_events import DeviceEvent, PendingScalars
from cs336lm.training.setup import Setup
from cs336lm.training.trackers.tracker import Record, Tracker

# Below 1 the loss is scaled down, and still a gradient overflows: it would do so in float16 without
# any scaling. From the 65,536 at the start that takes 17 skipped steps with no 2,000 good ones in a
# row, after which the scale doubles; a single spike takes one or two.
_LEAST_SCALE = 1.0


class Reporter(Callback):
    """Reports every ``train.log_every`` steps, and whenever there is a figure more to report.

    It completes records and hands them to ``tracker`` in order, which is closed with it; None: this
    process does not keep the records. ``latest`` holds the latest value of each figure.
    """

    def __init__(self, setup: Setup, tracker: Tracker | None) -> None:
        self._tracker = tracker
        self._every = setup.config.train.log_every
        self._progress = setup.progress
        self._device = setup.device
        self._tokens_per_step = setup.tokens_per_step
        self._flops_per_token = training_flops_per_token(setup.config.model)
        peak = peak_flops(setup.device, setup.dtype)
        self._peak_flops = peak and peak * setup.world.size
        self._scaler = setup.scaler
        self._skips = setup.config.train.on_bad_numbers == "skip"
        self._pending: tuple[Record, PendingScalars, dict[str, Any]] | None = None
        self._clock: tuple[int, DeviceEvent] | None = None
        self.latest: Record = {}

    def before_training(self) -> None:
        """From here on time counts as training."""
        self._start_clock()

    def after_step(self, result: StepResult) -> None:
        """Takes the record of a step that is due, and writes the one before."""
        if result.is_final or result.figures or is_due(result.step, self._every):
            self._report_when_ready(result)
        if result.figures or result.took_time:  # time that is not training's
            self.flush()
            self._start_clock()

    def after_training(self) -> None:
        """Writes what is left."""
        self.flush()

    def flush(self) -> None:
        """Completes the pending record and writes it.

        Then raises ``ValueError`` if training has diverged.
        """
        if self._pending is None:
            return
        (record, scalars, figures), self._pending = self._pending, None
        loss, norm = scalars.read()
        record |= {"train_loss": loss, **figures, "grad_norm": norm}
        self._add_speed(record, scalars.copied)
        self.write(record)
        self.refuse_divergence(record["step"], scalars)

    def write(self, record: Record) -> None:
        """Hands a complete record to the tracker."""
        self.latest |= record
        if self._tracker is not None:
            self._tracker.log(record)

    def write_bad_step(self, step: int, loss: float, norm: float) -> None:
        """The record of a step that ended the run, by which others see why it did."""
        figures = {"train_loss": loss, "grad_norm": norm}
        self.write(self._progress.record() | {"step": step, **figures})

    def refuse_divergence(self, step: int, scalars: PendingScalars) -> None:
        """Raises ``ValueError`` if the step's loss or gradient is not a finite number.

        Where the loss is scaled (float16), the gradient may overflow now and then: such a step is
        skipped and the scale halved. Below ``_LEAST_SCALE`` this is divergence as well.
        """
        loss, norm = scalars.read()
        is_harmless = self._skips and not self._scaler.is_enabled()  # such a step changes nothing
        may_overflow = is_harmless or self._may_overflow()
        if (math.isfinite(loss) or self._skips) and (math.isfinite(norm) or may_overflow):
            return
        scaled = f", the loss scaled by {self._scaler.get_scale():g}" * self._scaler.is_enabled()
        raise ValueError(
            f"step {step}: the loss is {loss} and the norm of the gradient {norm}{scaled}: "
            "training has diverged; a lower --optim.lr or a longer --optim.warmup-steps may help"
        )

    def close(self) -> None:
        """Closes the tracker."""
        if self._tracker is not None:
            self._tracker.close()

    def _may_overflow(self) -> bool:
        """Whether a gradient that is not finite only means that the loss was scaled too far up."""
        return self._scaler.is_enabled() and self._scaler.get_scale() >= _LEAST_SCALE

    def _report_when_ready(self, result: StepResult) -> None:
        self.flush()
        record = self._progress.record(lr=result.lr)
        self._pending = (record, result.request_scalars(), result.figures)

    def _start_clock(self) -> None:
        self._clock = (self._progress.step, DeviceEvent(self._device))

    def _add_speed(self, record: Record, end: DeviceEvent) -> None:
        if self._clock is not None:
            steps, seconds = record["step"] - self._clock[0], end.seconds_since(self._clock[1])
            if steps and seconds > 0:
                speed = steps * self._tokens_per_step / seconds
                record["tokens_per_second"] = round(speed, 1)
                if self._peak_flops is not None:
                    record["mfu"] = round(speed * self._flops_per_token / self._peak_flops, 4)
        self._clock = (record["step"], end)
