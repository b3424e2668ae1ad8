"""How far a run is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cs336lm.training.trackers.tracker import Record


@dataclass
class Progress:
    """How far a run is; part of its checkpoints."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_val_loss: float = math.inf

    def record(self, **figures: float) -> Record:
        """A record for the trackers: where the run is, and ``figures``."""
        return {
            "step": self.step,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 3),
            **figures,
        }
