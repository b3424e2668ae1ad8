"""From what a step leaves on the device to the records that trackers take.

The loss and the gradient's norm of a step are *asked for* when it is due and *read* when the next
one is, so that the host never waits for the device in between. A record holds: step, tokens and
seconds so far, train_loss, val_loss (where validated), lr, grad_norm, tokens_per_second, mfu.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from cs336lm.training.devices import LateValues, Mark
from cs336lm.training.trackers.jsonl import Record, Tracker


class Reporter:
    """Completes records and hands them on, in order.

    ``tokens_a_step`` and ``flops_a_token`` (matrix products of forward and backward) over the
    time between records give the speed; ``peak_flops`` is what the devices can do a second, None
    where nobody has published it. ``scaled``: see :func:`refuse_divergence`.
    """

    def __init__(
        self,
        trackers: Sequence[Tracker],
        device: torch.device,
        *,
        tokens_a_step: int,
        flops_a_token: float,
        peak_flops: float | None,
        scaled: bool,
    ) -> None:
        self._trackers = trackers
        self._device = device
        self._tokens_a_step = tokens_a_step
        self._flops_a_token = flops_a_token
        self._peak_flops = peak_flops
        self._scaled = scaled
        self._pending: tuple[Record, LateValues] | None = None
        self._clock: tuple[int, Mark] | None = None
        self.latest: Record = {}

    def start_clock(self, step: int) -> None:
        """From here on time counts as training: called after a validation, say."""
        self._clock = (step, Mark(self._device))

    def expect(self, record: Record, figures: LateValues) -> None:
        """Takes the record of a step whose loss and norm are under way; writes the one before."""
        self.flush()
        self._pending = (record, figures)

    def flush(self, **more: float) -> None:
        """Completes the pending record, with ``more`` in it, and writes it.

        Then raises ``ValueError`` if training has diverged.
        """
        if self._pending is None:
            return
        (record, figures), self._pending = self._pending, None
        loss, norm = figures.read()
        record |= {"train_loss": loss, **more, "grad_norm": norm}
        self._add_speed(record, figures.mark)
        self.write(record)
        refuse_divergence(record["step"], figures, scaled=self._scaled)

    def write(self, record: Record) -> None:
        """Hands a complete record to every tracker."""
        self.latest |= record
        for tracker in self._trackers:
            tracker.log(record)

    def _add_speed(self, record: Record, mark: Mark) -> None:
        if self._clock is not None:
            steps, seconds = record["step"] - self._clock[0], mark.seconds_since(self._clock[1])
            if steps and seconds > 0:
                speed = steps * self._tokens_a_step / seconds
                record["tokens_per_second"] = round(speed, 1)
                if self._peak_flops is not None:
                    record["mfu"] = round(speed * self._flops_a_token / self._peak_flops, 4)
        self._clock = (record["step"], mark)

    def close(self) -> None:
        """Closes the trackers."""
        for tracker in self._trackers:
            tracker.close()


def refuse_divergence(step: int, figures: LateValues, *, scaled: bool) -> None:
    """Raises ``ValueError`` if the step's loss or gradient is no finite number.

    ``scaled``: the gradient may overflow, since such a step is skipped (float16).
    """
    loss, norm = figures.read()
    if not math.isfinite(loss) or not (scaled or math.isfinite(norm)):
        raise ValueError(
            f"step {step}: the loss is {loss} and the norm of the gradient {norm}, so training "
            "cannot go on; a lower --optim.lr or a longer --optim.warmup-steps may help"
        )
