"""Curves in TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cs336lm.training.trackers.tracker import Record, flat


class TensorBoardTracker:
    """Event files under ``RUN_DIR/tensorboard`` (extra: ``tensorboard``).

    A run that goes on from ``step`` writes a file of its own, which begins by taking back what
    earlier files say about later steps: each step is shown once.
    """

    def __init__(self, run_dir: Path, config: dict[str, Any], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        first = step + 1 if step else 0  # step 0 has a record of its own, the first validation
        self._writer: Any = SummaryWriter(str(run_dir / "tensorboard"), purge_step=first)

    def log(self, record: Record) -> None:
        """Adds a point to each curve."""
        for name, value in flat(record).items():
            self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()
