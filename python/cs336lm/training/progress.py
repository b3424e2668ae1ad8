"""How far a run is."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from cs336lm.training.trackers.tracker import Record


@dataclass
class Progress:
    """How far a run is; part of its checkpoints."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_val_loss: float = math.inf
    best_step: int | None = None
    """The step after which the validation loss was best."""
    best_measured_on: str | None = None
    """What that validation looked at, see ``Validator``."""
    owes_validation: bool = False
    """Whether the validation after this step was cut short by a signal."""
    validation_seconds: float = 0.0
    """How long the last validation took."""
    warmup_seconds: float = 0.0
    """Where time is the budget and the warm-up counted in steps: the seconds at its end."""
    completed_seconds: float = 0.0
    """The budget of seconds under which the last step was taken, if one was."""
    skipped_steps: int = 0
    """Steps that changed no weights since a number was not finite (``train.on_bad_numbers``)."""
    loss_spikes: int = 0
    """Steps whose loss was far above those before, see ``training/bad_numbers.py``."""

    def start_clock(self) -> None:
        """From here on time counts, beside the seconds that there are already."""
        self._started = time.perf_counter() - self.seconds

    def read_clock(self) -> None:
        """Brings ``seconds`` up to now."""
        self.seconds = time.perf_counter() - self._started

    def forget_best(self) -> None:
        """The next validation will be the best."""
        self.best_val_loss, self.best_step, self.best_measured_on = math.inf, None, None

    def record(self, **figures: float) -> Record:
        """A record for the trackers: where the run is, and ``figures``."""
        counts = {"skipped_steps": self.skipped_steps, "loss_spikes": self.loss_spikes}
        return {
            "step": self.step,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 3),
            **figures,
            **{name: count for name, count in counts.items() if count},
        }
