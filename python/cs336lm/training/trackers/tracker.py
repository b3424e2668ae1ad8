"""What a tracker is: a place that takes the figures of a run, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

Record = dict[str, Any]
"""``{"step": int, name: number, ...}``: the figures of one step. What is measured in many places
at once is a table or a list of numbers (see :mod:`cs336lm.training.monitor`)."""


class Tracker(Protocol):
    """What the trainer reports to."""

    def log(self, record: Record) -> None:
        """Takes the figures of one step."""

    def close(self) -> None:
        """Writes what is left."""


def flat(record: Record) -> dict[str, float]:
    """The numbers of a record without its step, each under one name, for trackers that want it so.

    ``{"monitor": {"ffn_rms": [0.5, 0.7]}}`` -> ``{"monitor/ffn_rms/00": 0.5, ...}``. What is None
    is left out.
    """
    return {name: value for name, value in _numbers(record) if name != "step"}


def _numbers(tree: Any, *path: str) -> Iterator[tuple[str, float]]:
    if isinstance(tree, dict):
        for name, each in tree.items():
            yield from _numbers(each, *path, name)
    elif isinstance(tree, list):
        for index, each in enumerate(tree):
            yield from _numbers(each, *path, f"{index:02}")
    elif tree is not None:
        yield "/".join(path), tree
