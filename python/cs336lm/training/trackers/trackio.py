"""Curves in trackio, Hugging Face's tracker that needs no server."""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

from cs336lm.training.trackers.kept_name import kept_name
from cs336lm.training.trackers.tracker import Record, flat

_NAME_FILE = "trackio-name"


class TrackioTracker:
    """A run of trackio, in the project that TRACKIO_PROJECT names (extra: ``trackio``).

    It lies in trackio's own folder (TRACKIO_DIR), or in a Space (TRACKIO_SPACE_ID), and ``trackio
    show`` shows it. There a run is known by its name: the directory's and a few random letters,
    kept in ``RUN_DIR/trackio-name``, so that a run that goes on is the same run, and no other
    directory's. Steps that it has already are not told again.
    """

    def __init__(self, run_dir: Path, config: dict[str, Any], step: int) -> None:
        trackio: Any = import_module("trackio")
        name = kept_name(
            run_dir / _NAME_FILE, lambda: f"{run_dir.resolve().name}-{secrets.token_hex(4)}"
        )
        with redirect_stdout(sys.stderr):  # it greets; our output is for results
            self._run = trackio.init(
                project=os.environ.get("TRACKIO_PROJECT", "cs336lm"),
                name=name,
                resume="allow",  # the run of this name, or a new one
                config=config,
                embed=False,
            )
        # What it would number the next figures with, had we no numbers of our own.
        self._next = int(getattr(self._run, "_next_step", 0))

    def log(self, record: Record) -> None:
        """Adds a point to each curve."""
        if record["step"] >= self._next:
            self._run.log(flat(record), step=record["step"])

    def close(self) -> None:
        """Waits until everything is written."""
        with redirect_stdout(sys.stderr):
            self._run.finish()
