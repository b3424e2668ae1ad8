"""Finished training runs in a file of JSON lines, and what their curves say beside each other."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness import table


@dataclass(frozen=True)
class Curve:
    """Validations in the course of a run."""

    steps: list[int]
    seconds: list[float]
    """Of training alone, up to each."""
    losses: list[float]
    """In nats per token."""
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunRecord:
    """A run that is to be made, or was."""

    candidate: str
    seed: int
    lr: float | None
    """Of a candidate whose learning rate is looked for; None where it says its own."""
    job: dict[str, Any]
    curve: Curve | None = None

    @property
    def key(self) -> str:
        """By which a finished run is known: all but what came of it."""
        return json.dumps([self.candidate, self.seed, self.lr, self.job], sort_keys=True)

    @property
    def final_loss(self) -> float:
        """The loss at the end."""
        return self.done.losses[-1]

    @property
    def done(self) -> Curve:
        """Its curve; the run is finished."""
        assert self.curve is not None
        return self.curve

    def finished(self, curve: Curve) -> RunRecord:
        """The same with its curve."""
        return dataclasses.replace(self, curve=curve)


def load(path: Path) -> list[RunRecord]:
    """The finished runs of a file; none, if there is no file. A torn last line is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            said = json.loads(line)
            records.append(RunRecord(**{**said, "curve": Curve(**said["curve"])}))
    return records


def append(path: Path, record: RunRecord) -> None:
    """Adds a finished run to the file."""
    torn = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    if torn:  # by a machine that went down
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        path.write_bytes(whole + b"\n" if whole else b"")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        file.write(json.dumps(dataclasses.asdict(record)) + "\n")


def passes_at(curve: Curve, loss: float, by: str = "seconds") -> float | None:
    """When a curve first came down to ``loss``, on a line between validations; None if never."""
    when: list[float] = list(getattr(curve, by))
    points = list(zip(when, curve.losses, strict=True))
    if points[0][1] <= loss:
        return points[0][0]
    for (t0, l0), (t1, l1) in pairwise(points):
        if l1 <= loss:
            return t0 + (t1 - t0) * (l0 - loss) / (l0 - l1)
    return None


def table_of_means(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    """Final losses: mean and spread over the seeds."""
    rows = []
    for name in names:
        mine = [record for record in records if record.candidate == name]
        losses = [record.final_loss for record in mine]
        spread = f"{statistics.stdev(losses):.4f}" if len(losses) > 1 else ""
        rates = {record.lr for record in mine} - {None}
        rows.append(
            [
                name + "".join(f" (lr {rate:g})" for rate in rates if rate),
                f"{statistics.mean(losses):.4f}",
                spread,
                f"{min(losses):.4f} to {max(losses):.4f}",
                f"{statistics.mean(record.done.steps[-1] for record in mine):,.0f}",
                f"{statistics.mean(record.done.seconds[-1] for record in mine):,.0f}",
            ]
        )
    return table(["candidate", "loss", "std", "from, to", "steps", "seconds"], rows)


def table_of_passes(records: Sequence[RunRecord], names: Sequence[str], by: str = "seconds") -> str:
    """When the candidate of a row passed the final loss of that of a column; and how many times
    sooner than that one got there. Means over seeds; "never" if any of them did not.
    """
    found = {(record.candidate, record.seed): record.done for record in records}
    seeds = sorted({record.seed for record in records})
    rows = []
    for name in names:
        row = [name]
        for other in names:
            if other == name:
                row.append("")
                continue
            pairs = [(found[name, seed], found[other, seed]) for seed in seeds]
            when = [passes_at(mine, theirs.losses[-1], by) for mine, theirs in pairs]
            if any(moment is None for moment in when):
                row.append("never")
                continue
            mean = statistics.mean(moment for moment in when if moment is not None)
            theirs = statistics.mean(getattr(curve, by)[-1] for _, curve in pairs)
            row.append(f"{mean:,.0f} ({theirs / mean:.2f} x)" if mean else "at once")
        rows.append(row)
    return table([f"{by} to the final loss of", *names], rows)
