"""What a launcher is: something that calls a function on each of many tasks, somewhere.

Tasks are taken one by one as there is room, so that a later one may depend on how earlier ones
ended. Functions and tasks are plain data (pickled on their way to another machine), and what they
write goes to a file system that all machines share.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

ATTEMPTS = 3
"""How often a task is tried that dies with its process or its machine."""


class TaskDied(Exception):
    """A task did not end by itself: its process or its machine went away. It is run again."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Place:
    """Where a task runs."""

    environment: dict[str, str] = field(default_factory=dict)
    """Variables that share out cores and GPUs; what others set is left alone."""
    stopping: Callable[[], bool] = _never
    """Whether the work is to be saved and left now."""

    def start(self, command: Sequence[str], log: BinaryIO) -> subprocess.Popen[bytes]:
        """A process that works here; all that it says goes into ``log``."""
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **self.environment},
        )


class Launcher(Protocol):
    """Runs tasks somewhere."""

    def run(
        self, function: Callable[[Task, Place], Result], tasks: Iterable[Task]
    ) -> Iterator[tuple[Task, Result | Exception]]:
        """Yields each task with its result, or what it raised, in the order in which they end."""
