"""Runs each contestant in a process of its own, measures it from outside, prints a table.

A contestant is a command. That of a peer is the benchmark script itself, called with ``--contestant
NAME --out FILE`` and the options; it does the job, writes what it made to FILE for the comparison,
and may print figures of its own with :func:`report`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

_MARK = "figures: "


@dataclass
class Run:
    """One run of one contestant."""

    process_seconds: float
    """From starting the interpreter to its end."""
    peak_megabytes: float
    """The largest resident set of the process."""
    notes: dict[str, float]
    """Figures that the contestant has printed with :func:`report`."""


def installed(names: Sequence[str]) -> list[str]:
    """Those of the packages that are here to be measured."""
    return [name for name in names if importlib.util.find_spec(name)]


def choose(asked: str | None, known: Sequence[str]) -> list[str]:
    """The peers to run: those asked for by name, or all that are installed."""
    if asked is None:
        return installed(known)
    names = [name for name in asked.split(",") if name]
    for name in names:
        if name not in known:
            sys.exit(f"no peer is called {name!r}: choose of {', '.join(known)}")
        if not installed([name]):
            sys.exit(f"{name} is not installed: pip install {name}")
    return names


def run(command: Sequence[str]) -> Run:
    """Runs a command to its end; a failure ends the benchmark."""
    # Installed packages come compiled; a working tree is, after its first run, if it may be.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as complained:
        process = subprocess.Popen(command, stdout=printed, stderr=complained, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        lines = printed.read().decode().splitlines()
        if process.returncode:
            complained.seek(0)
            message = complained.read().decode(errors="replace")
            sys.exit(f"\n{message}failed with status {process.returncode}: {' '.join(command)}")
    notes = [line.removeprefix(_MARK) for line in lines if line.startswith(_MARK)]
    # Linux counts in kilobytes, macOS in bytes.
    unit = 1024 if sys.platform == "linux" else 1
    return Run(seconds, usage.ru_maxrss * unit / 1e6, json.loads(notes[-1]) if notes else {})


def report(**notes: float) -> None:
    """Figures of a contestant for :func:`run` to read."""
    print(_MARK + json.dumps(notes))


def itself(script: str, contestant: str, out: Path, options: Sequence[str]) -> list[str]:
    """The command of a contestant that is a function of the script."""
    return [sys.executable, script, "--contestant", contestant, "--out", str(out), *options]


def best(runs: Sequence[Run]) -> Run:
    """Of each figure the best of the runs: what disturbs a run only makes it slower."""
    return Run(
        min(run.process_seconds for run in runs),
        min(run.peak_megabytes for run in runs),
        {name: min(run.notes[name] for run in runs) for name in runs[0].notes},
    )


def compete(
    commands: Callable[[str, Path], Sequence[str]],
    contestants: Sequence[str],
    repeat: int,
    check: Callable[[Mapping[str, Path]], Mapping[str, str]],
) -> tuple[dict[str, Run], Mapping[str, str]]:
    """All contestants in turn, ``repeat`` times, and what ``check`` says of what they made.

    ``commands(contestant, out)`` is the command of one. Nothing is returned, hence no speed
    printed, unless ``check`` has passed: it ends the benchmark where results differ that must not.
    """
    runs: dict[str, list[Run]] = {name: [] for name in contestants}
    with tempfile.TemporaryDirectory() as folder:
        made = {name: Path(folder) / name for name in contestants}
        for round in range(repeat):
            for name in contestants:
                print(f"\r{round + 1}/{repeat} {name:<12}", end="", file=sys.stderr, flush=True)
                _clear(made[name])
                runs[name].append(run(commands(name, made[name])))
        print("\r" + " " * 30 + "\r", end="", file=sys.stderr, flush=True)
        verdicts = check(made)
    return {name: best(results) for name, results in runs.items()}, verdicts


def _clear(made: Path) -> None:
    """Removes what the last run made, and has the disk finish: neither giving back a large file's
    pages nor writing what the contestant before left unwritten is part of the job.
    """
    for path in made.parent.glob(f"{made.name}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if hasattr(os, "sync"):
        os.sync()


def peak_megabytes() -> float:
    """The largest resident set of this process so far."""
    import resource

    unit = 1024 if sys.platform == "linux" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def random_tokens(path: Path, count: int, vocab_size: int) -> None:
    """A token file without any meaning, for measurements whose time does not depend on it."""
    ids = np.random.default_rng(0).integers(0, vocab_size, count)
    np.save(path, ids.astype(np.uint16))


def machine() -> str:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(": ", 1)[1] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, Python {platform.python_version()}"


def named(contestant: str) -> str:
    """The contestant with its version."""
    if contestant == "cs336lm":  # perhaps a working tree, which has no metadata
        from cs336lm import __version__

        return f"cs336lm {__version__}"
    return f"{contestant} {version(contestant)}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), line(rule), *map(line, rows)])
