"""Curves in Weights & Biases."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from cs336lm.training.trackers.tracker import Record


class WandbTracker:
    """A run of Weights & Biases, in the project that WANDB_PROJECT names (extra: ``wandb``)."""

    def __init__(self, run_dir: Path, config: dict[str, Any]) -> None:
        wandb: Any = import_module("wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "cs336lm"),
            name=run_dir.name,
            dir=str(run_dir),
            config=config,
        )

    def log(self, record: Record) -> None:
        """Adds a point to each curve."""
        figures = {name: value for name, value in record.items() if name != "step"}
        self._run.log(figures, step=record["step"])

    def close(self) -> None:
        """Waits until everything is sent."""
        self._run.finish()
