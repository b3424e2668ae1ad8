"""``metrics.jsonl``, the run's own record: written line by line, cut back on resume, read."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from cs336lm.files import atomic_write, write_all
from cs336lm.json_files import parse_json
from cs336lm.training.trackers.tracker import Record


class JsonlTracker:
    """``metrics.jsonl``: an object a line, in order, each step once.

    ``after`` is the step that a resumed run continues from: lines of later steps, which that run
    will write again, are dropped, and so is a last line that a kill cut short. None starts a new
    file. A figure that is not a finite number is written as null, since JSON has no other.
    """

    def __init__(self, path: Path, after: int | None) -> None:
        kept = [] if after is None else lines_until(path, after)
        self._path = path
        self._last: Record = json.loads(kept[-1]) if kept else {}
        self._rewrite(kept)

    def _rewrite(self, lines: list[bytes]) -> None:
        with atomic_write(self._path) as file:
            file.write(b"".join(lines))
        self._file = self._path.open("ab", buffering=0)

    def log(self, record: Record) -> None:
        """Appends a line; it is on its way to the disk when this returns.

        What is said of the step of the last line is added to that line.
        """
        finite = {name: _finite(value) for name, value in record.items() if value is not None}
        if finite["step"] == self._last.get("step"):
            finite = self._last | finite
            self._file.close()
            self._rewrite([*lines_until(self._path, sys.maxsize)[:-1], _line(finite)])
        else:
            try:
                write_all(self._file, _line(finite))
            except OSError as error:
                error.filename = str(self._path)
                raise
        self._last = finite

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_records(path: str | Path) -> list[Record]:
    """The objects of a file of lines that each have a step, in order; none if there is no file.

    A last line cut short by a kill is left out.
    """
    return [json.loads(line) for line in lines_until(Path(path), sys.maxsize)]


read_metrics = read_records
"""The records of a ``metrics.jsonl``."""


def _line(record: Record) -> bytes:
    return json.dumps(record).encode() + b"\n"


def _finite(value: Any) -> Any:
    """``value`` with None for each number in it that is not finite."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def lines_until(path: Path, step: int) -> list[bytes]:
    """The whole lines of a file of records up to those of ``step``; none if there is no file.

    A line that is cut short, or has zeros in it, is left out where nothing up to ``step`` comes
    after it: a kill leaves the one, and a power cut either in what came after the last checkpoint.
    Anything else is damage, and a ``ValueError`` names the line.
    """
    if not path.exists():
        return []
    kept: list[bytes] = []
    torn: int | None = None
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not line.endswith(b"\n") or b"\0" in line:
            torn = torn or number
            continue
        try:
            wanted = parse_json(line)["step"] <= step
        except (ValueError, KeyError, TypeError):
            raise ValueError(_no_record(path, number)) from None
        if wanted and torn is not None:
            raise ValueError(_no_record(path, torn))
        if wanted:
            kept.append(line)
    return kept


def _no_record(path: Path, number: int) -> str:
    return f"{path}, line {number}: not a JSON object with a step"
