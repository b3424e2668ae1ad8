"""How far a run is, for whoever watches the terminal or reads its log."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from cs336lm.training.trackers.tracker import Record

_SECONDS_BETWEEN_LINES = 10.0  # where the output is not a terminal
_SHOWN = (
    ("train_loss", "loss", ".4f"),
    ("lr", "lr", ".2e"),
    ("tokens_per_second", "tokens/s", ",.0f"),
    ("mfu", "MFU", ".1%"),
)


class ConsoleTracker:
    """One live line on a terminal; elsewhere a plain line now and then, and at each validation."""

    def __init__(
        self,
        first_step: int,
        last_step: int | None,
        stream: TextIO | None = None,
        *,
        max_seconds: float | None = None,
    ) -> None:
        """The run goes to ``last_step``, or, if that is None, for ``max_seconds``."""
        self._stream = stream or sys.stderr
        self._max_seconds = max_seconds
        self._first, self._last = first_step, last_step
        self._val_loss: float | None = None
        self._started = self._written = time.monotonic()
        self._live: Any = None
        if self._stream.isatty():
            from rich.console import Console
            from rich.live import Live
            from rich.text import Text

            self._as_text = Text
            self._live = Live("", console=Console(file=self._stream), refresh_per_second=4)
            self._live.start()

    def log(self, record: Record) -> None:
        """Shows the figures."""
        self._val_loss = record.get("val_loss", self._val_loss)
        line = self._line(record)
        if self._live is not None:
            self._live.update(self._as_text(line, no_wrap=True, overflow="ellipsis"))
            return
        now = time.monotonic()
        important = "val_loss" in record or record["step"] == self._last
        if important or now - self._written >= _SECONDS_BETWEEN_LINES:
            print(line, file=self._stream, flush=True)
            self._written = now

    def _line(self, record: Record) -> str:
        parts = [self._place(record)]
        for name, label, form in _SHOWN:
            if record.get(name) is not None:
                parts.append(f"{label} {record[name]:{form}}")
        if self._val_loss is not None:
            parts.insert(2, f"val {self._val_loss:.4f}")
        seconds_left = self._seconds_left(record)
        if seconds_left is not None:
            parts.append(f"{_clock(seconds_left)} left")
        return "  ".join(parts)

    def _place(self, record: Record) -> str:
        step = record["step"]
        if self._last is not None:
            return f"step {step:,}/{self._last:,}"
        if self._max_seconds is None:
            return f"step {step:,}"
        return f"step {step:,}  {min(1.0, record['seconds'] / self._max_seconds):.1%}"

    def _seconds_left(self, record: Record) -> float | None:
        """None where nobody knows, or wants to."""
        step = record["step"]
        if self._last is not None and self._first < step < self._last:
            passed = time.monotonic() - self._started
            return passed / (step - self._first) * (self._last - step)
        if self._last is None and self._max_seconds is not None and step > self._first:
            return max(0.0, self._max_seconds - record["seconds"])
        return None

    def close(self) -> None:
        """Leaves the last line standing."""
        if self._live is not None:
            self._live.stop()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
