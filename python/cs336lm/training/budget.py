"""What ends a run, and how much of it a step has used: the learning rate follows that share.

    steps      train.steps, or what max_tokens or epochs come to. The share is a function of the
               step's number alone, so the run is one of (configuration, seed), bit for bit.
    seconds    train.max_seconds. The share is read from a clock, so no two runs are the same to the
               bit; a resumed one goes on with the seconds that it had used.

**A run of so many seconds** counts everything from before its first validation on: compiling,
validations, checkpoints while it trains. (Not what comes before, as reading the data through, nor
after, as writing the last checkpoint.) At the start of each step the time is known, how long steps
take at present (the median of the last few), and how long the last validation took, for which room
is left at the end. From these follows whether another step will fit after this one. If not, this is
the last: its share is 1, whatever the clock says, and so its learning rate is the schedule's last.
Else the share is what will be used when the step is done.
"""

from __future__ import annotations

import statistics
import sys
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import torch

from cs336lm.training.callbacks import is_due
from cs336lm.training.config import Config
from cs336lm.training.device_events import DeviceEvent
from cs336lm.training.distributed import FirstSays, World
from cs336lm.training.progress import Progress

_WARMUP_SHARE = 0.05
_STEPS_REMEMBERED = 5


@dataclass(frozen=True)
class Place:
    """Where a step stands on its way to the run's end; all in steps, or all in seconds."""

    at: float
    warmup: float
    end: float
    is_last: bool


class Budget(Protocol):
    """What a run may use up."""

    field: str
    """Of ``[train]``, that says how much."""

    def steps_left(self) -> range:
        """The numbers of the steps to come: all of them, or, where time decides, too many."""

    def place(self, step: int) -> Place:
        """Where ``step``, which begins now, stands; all processes must ask."""

    def describe(self) -> str:
        """How far the run is, for people."""


class StepBudget:
    """So many steps."""

    def __init__(self, config: Config, progress: Progress) -> None:
        train = config.train
        assert train.steps is not None  # resolved
        assert config.optim.warmup_steps is not None
        self._steps, self._warmup = train.steps, config.optim.warmup_steps
        self._progress = progress
        asked = ("max_tokens", "epochs")
        self.field = next((name for name in asked if getattr(train, name) is not None), "steps")

    def steps_left(self) -> range:
        """All of them."""
        return range(self._progress.step + 1, self._steps + 1)

    def place(self, step: int) -> Place:
        """By the step's number alone."""
        return Place(step, self._warmup, self._steps, is_last=step == self._steps)

    def describe(self) -> str:
        """``step 7 of 1,000``."""
        return f"step {self._progress.step:,} of {self._steps:,}"


class TimeBudget:
    """So many seconds; see the top of this file. The first process decides for all."""

    field = "max_seconds"

    def __init__(
        self, config: Config, progress: Progress, world: World, device: torch.device
    ) -> None:
        assert config.train.max_seconds is not None
        self._seconds = config.train.max_seconds
        self._warmup_steps = config.optim.warmup_steps
        self._eval_every = config.train.eval_every
        self._progress = progress
        self._first_says = FirstSays(world)
        self._device = device
        self._steps_under_way: deque[DeviceEvent] = deque()
        self._began: float | None = None
        self._durations: deque[float] = deque(maxlen=_STEPS_REMEMBERED)
        self._skips_first = True

    def steps_left(self) -> range:
        """No end of them, unless a last step was taken under at least as many seconds."""
        is_spent = self._progress.completed_seconds >= self._seconds
        return range(0) if is_spent else range(self._progress.step + 1, sys.maxsize)

    def place(self, step: int) -> Place:
        """By the clock."""
        ahead = self._wait_for_device()
        self._progress.read_clock()
        now = self._progress.seconds
        self._note_duration(step, now)
        a_step = statistics.median(self._durations) if self._durations else 0.0
        validation = self._progress.validation_seconds
        done = now + (1 + ahead) * a_step
        then = done + (validation if is_due(step, self._eval_every) else 0.0)
        end = max(self._seconds - validation, done)
        done, end, is_last = self._first_says(done, end, then + a_step + validation > self._seconds)
        return self._place(step, done, end, is_last=bool(is_last))

    def describe(self) -> str:
        """``step 7, 12 of 60 seconds``."""
        progress = self._progress
        return f"step {progress.step:,}, {progress.seconds:,.0f} of {self._seconds:,g} seconds"

    def _place(self, step: int, done: float, end: float, *, is_last: bool) -> Place:
        progress = self._progress
        warmup = _WARMUP_SHARE * self._seconds
        if self._warmup_steps is not None:
            if step <= self._warmup_steps:
                progress.warmup_seconds = done
            warmup = progress.warmup_seconds
        if is_last:
            progress.completed_seconds = self._seconds
            return Place(end, min(warmup, end / 2), end, is_last=True)
        if self._warmup_steps is not None and step <= self._warmup_steps:
            return Place(step, self._warmup_steps, self._warmup_steps + 1, is_last=False)
        return Place(min(done, end), warmup, end, is_last=False)

    def _note_duration(self, step: int, now: float) -> None:
        """Remembers how long the step before took, but not the first, which may compile."""
        if self._began is not None and not self._skips_first:
            validated = is_due(step - 1, self._eval_every)
            validation = self._progress.validation_seconds if validated else 0.0
            self._durations.append(max(now - self._began - validation, 0.0))
        self._skips_first = self._began is None
        self._began = now

    def _wait_for_device(self) -> int:
        """Lets the device be at most a step behind, and returns by how many it may be.

        A host queues steps faster than a GPU takes them, and would see too late that time is up.
        One whole step stays queued, so the device has something to do meanwhile.
        """
        if self._device.type == "cpu":
            return 0
        self._steps_under_way.append(DeviceEvent(self._device))
        if len(self._steps_under_way) > 1:
            self._steps_under_way.popleft().wait()
        return 1


def build_budget(config: Config, progress: Progress, world: World, device: torch.device) -> Budget:
    """What a resolved configuration asks for."""
    if config.train.max_seconds is not None:
        return TimeBudget(config, progress, world, device)
    return StepBudget(config, progress)
