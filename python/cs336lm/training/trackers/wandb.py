"""Curves in Weights & Biases."""

from __future__ import annotations

import os
import secrets
from importlib import import_module
from pathlib import Path
from typing import Any

from cs336lm.training.trackers.kept_name import kept_name
from cs336lm.training.trackers.tracker import Record, flat

_ID_FILE = "wandb-id"


class WandbTracker:
    """A run of Weights & Biases, in the project that WANDB_PROJECT names (extra: ``wandb``).

    A run directory is one run there, however often it is stopped and resumed: its id (WANDB_RUN_ID,
    or a random one) is kept in ``RUN_DIR/wandb-id``. W&B takes each step once, so that steps which
    a resumed run repeats are not doubled.
    """

    def __init__(self, run_dir: Path, config: dict[str, Any], step: int) -> None:
        wandb: Any = import_module("wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "cs336lm"),
            id=kept_name(run_dir / _ID_FILE, _new_id),
            resume="allow",  # the run of this id, or a new one
            name=run_dir.name,
            dir=str(run_dir),
            config=config,
        )

    def log(self, record: Record) -> None:
        """Adds a point to each curve."""
        self._run.log(flat(record), step=record["step"])

    def close(self) -> None:
        """Waits until everything is sent."""
        self._run.finish()


def _new_id() -> str:
    return os.environ.get("WANDB_RUN_ID") or secrets.token_hex(8)
