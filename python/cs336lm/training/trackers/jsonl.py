"""Where a run's figures go: metrics.jsonl, the terminal, TensorBoard, Weights & Biases.

Every tracker has ``log(record)`` and ``close()``; a record is ``{"step": int, name: number, ...}``.
A new one is a class here and a line in ``TRACKERS``.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TextIO

from cs336lm.errors import UsageError
from cs336lm.files import atomic_write

Record = dict[str, Any]

_SECONDS_BETWEEN_LINES = 10.0  # where the output is no terminal


class Tracker(Protocol):
    """What the trainer reports to."""

    def log(self, record: Record) -> None:
        """Takes the figures of one step."""

    def close(self) -> None:
        """Writes what is left."""


class JsonlTracker:
    """``metrics.jsonl``: an object a line, in order, each step once.

    ``after`` is the step that a resumed run goes on from: lines of later steps, which that run will
    write again, are dropped, and so is a last line that a kill cut short. None starts a new file.
    A figure that is no finite number is written as null, since JSON knows no other.
    """

    def __init__(self, path: Path, after: int | None) -> None:
        kept = b"" if after is None else b"".join(_lines_until(path, after))
        with atomic_write(path) as file:
            file.write(kept)
        self._path = path
        self._file = path.open("ab", buffering=0)

    def log(self, record: Record) -> None:
        """Appends a line; it is on its way to the disk when this returns."""
        finite = {k: v if _is_finite(v) else None for k, v in record.items() if v is not None}
        try:
            self._file.write(json.dumps(finite).encode() + b"\n")
        except OSError as error:
            error.filename = str(self._path)
            raise

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _lines_until(path: Path, step: int) -> list[bytes]:
    if not path.exists():
        return []
    whole = (line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n"))
    kept = []
    for number, line in enumerate(whole, 1):
        try:
            at = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}, line {number}: no JSON object with a step in it") from None
        if at <= step:
            kept.append(line)
    return kept


def read_metrics(path: str | Path) -> list[Record]:
    """The records of a ``metrics.jsonl``, in order; a last line cut short by a kill is left out."""
    return [json.loads(line) for line in _lines_until(Path(path), sys.maxsize)]


class ConsoleTracker:
    """One live line on a terminal; elsewhere a plain line now and then, and at each validation."""

    def __init__(self, first_step: int, last_step: int, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
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
        step = record["step"]
        parts = [f"step {step:,}/{self._last:,}"]
        for name, label, form in (
            ("train_loss", "loss", ".4f"),
            ("lr", "lr", ".2e"),
            ("tokens_per_second", "tokens/s", ",.0f"),
            ("mfu", "MFU", ".1%"),
        ):
            if record.get(name) is not None:
                parts.append(f"{label} {record[name]:{form}}")
        if self._val_loss is not None:
            parts.insert(2, f"val {self._val_loss:.4f}")
        if step > self._first and step < self._last:
            passed = time.monotonic() - self._started
            parts.append(f"{_clock(passed / (step - self._first) * (self._last - step))} left")
        return "  ".join(parts)

    def close(self) -> None:
        """Leaves the last line standing."""
        if self._live is not None:
            self._live.stop()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class TensorBoardTracker:
    """Event files under ``RUN_DIR/tensorboard`` (extra: ``tensorboard``)."""

    def __init__(self, run_dir: Path, config: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(run_dir / "tensorboard"))

    def log(self, record: Record) -> None:
        """Adds a point to each curve."""
        for name, value in record.items():
            if name != "step" and value is not None:
                self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


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


# Each under the name of the package that it needs, which is also that of our extra.
TRACKERS: dict[str, Callable[[Path, dict[str, Any]], Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
}


def require_installed(names: Iterable[str]) -> None:
    """Raises ``UsageError`` if a tracker's package is missing."""
    for name in names:
        if find_spec(name) is None:
            raise UsageError(
                f"train.track={name} needs a package more: pip install 'cs336lm[{name}]'"
            )
