"""What a tracker is: a place that takes the figures of a run, step by step."""

from __future__ import annotations

from typing import Any, Protocol

Record = dict[str, Any]
"""``{"step": int, name: number, ...}``: the figures of one step."""


class Tracker(Protocol):
    """What the trainer reports to."""

    def log(self, record: Record) -> None:
        """Takes the figures of one step."""

    def close(self) -> None:
        """Writes what is left."""
