"""``results.jsonl``: one object a trial, written as each ends, read back by whoever goes on.

    {"trial": "optim.lr=0.001,seed=0", "overrides": {"optim.lr": 0.001}, "seed": 0,
     "end": "done", "diverged": false, "val_loss": 1.93, "best_val_loss": 1.93, "train_loss": 1.9,
     "steps": 400, "tokens": 819200, "seconds": 31.2, "parameters": 345600,
     "run": "/home/a/sweeps/a/runs/optim.lr=0.001,seed=0"}

``end`` is done, diverged, pruned or failed; ``val_loss`` is the last one, in nats a token, and null
where a trial diverged. A trial that failed stands here with what it said, and is run again when
the sweep goes on; its later line counts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cs336lm.experiments.trial import Outcome, Trial
from cs336lm.files import append_line
from cs336lm.json_files import parse_json

Record = dict[str, Any]


class Results:
    """The results of one sweep; whoever writes holds the sweep's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Record]:
        """The last record of each trial, by its name; a line that a kill or a power cut has torn is
        left out.

        Raises ``ValueError`` naming a line that is none of ours.
        """
        found: dict[str, Record] = {}
        for number, line in enumerate(self._whole_lines(), 1):
            try:
                record = parse_json(line)
                found[record["trial"]] = record
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"{self.path}, line {number}: not the result of a trial") from None
        return found

    def append(self, record: Record) -> None:
        """Adds a line; it is on the disk when this returns."""
        append_line(self.path, json.dumps(record).encode())

    def _whole_lines(self) -> list[bytes]:
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().splitlines(keepends=True)
        return [line for line in lines if line.endswith(b"\n") and b"\0" not in line]


def result_record(trial: Trial, outcome: Outcome, parameters: int) -> Record:
    """The record of a trial that ended."""
    record = {
        "trial": trial.name,
        "overrides": plain(trial.overrides),
        "seed": trial.seed,
        "end": outcome.end,
        "diverged": outcome.end == "diverged",
        "val_loss": outcome.val_loss,
        "best_val_loss": outcome.best_val_loss,
        "train_loss": outcome.train_loss,
        "steps": outcome.steps,
        "tokens": outcome.tokens,
        "seconds": outcome.seconds,
        "parameters": parameters,
        "run": str(trial.run),
    }
    return record | ({"message": outcome.message} if outcome.message else {})


def plain(overrides: dict[str, Any]) -> dict[str, Any]:
    """The values as JSON gives them back."""
    return json.loads(json.dumps(overrides, default=str))
