"""Long runs: after minutes or hours a process holds no more than it did soon after its start."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

from .findings import Tally
from .jobs import EOT
from .process import Place, start

_WARM = 0.25  # of the time: caches fill, allocators learn
_LEAST_MB = 2.0  # growth that a fit of noise may show
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


class Sample(NamedTuple):
    """What a process holds."""

    seconds: float
    megabytes: float
    files: int
    threads: int


def long(place: Place, minutes: float, jobs: list[str]) -> Tally:
    """Runs each of ``jobs`` for ``minutes`` and looks at it all the time."""
    tally = Tally("long")
    for name in jobs:
        place.clear()
        rounds = place.said / "rounds"
        rounds.write_text("0")
        running = start([name], place, main=_worker(minutes * 60, rounds))
        samples = []
        began = time.monotonic()
        while not running.wait(min(1.0, minutes)):
            sample = _look(running.pid, time.monotonic() - began)
            if sample is not None:
                samples.append(sample)
        ended = running.end()
        kept = [sample for sample in samples if sample.seconds > _WARM * minutes * 60]
        wrong = ended.complaint() or (None if ended.status == 0 else ended.said.strip())
        if wrong is None and len(kept) < 4:
            wrong = "it was too short to say anything"
        if wrong is None:
            slope, growth = _slope(kept)
            print(
                f"long {name}: {rounds.read_text()} in {minutes:g} minutes; memory "
                f"{kept[-1].megabytes:.0f} MB, {slope:+.3f} MB a minute; open files "
                f"{kept[0].files} to {kept[-1].files}; threads {kept[0].threads} to "
                f"{kept[-1].threads}",
                flush=True,
            )
            if growth > max(_LEAST_MB, 0.02 * kept[0].megabytes):
                wrong = f"memory grew by {growth:.1f} MB"
            half = len(kept) // 2  # medians: a file is open for a moment, and then looked at
            more = {
                what: median(getattr(s, what) for s in kept[half:])
                - median(getattr(s, what) for s in kept[:half])
                for what in ("files", "threads")
            }
            grown = [f"{number:g} more {what}" for what, number in more.items() if number > 1]
            wrong = wrong or (", ".join(grown) or None)
        tally.case(f"{name} for {minutes:g} minutes", wrong, place)
    tally.close()
    return tally


def _worker(seconds: float, rounds: Path) -> Callable[[list[str]], int]:
    return lambda argv: _work(argv[0], seconds, rounds)


def _work(name: str, seconds: float, rounds: Path) -> int:
    from cs336lm.cli.main import main

    until = time.monotonic() + seconds
    if name == "train":
        argv = (
            f"train --config in/endless.toml --run-dir out/run --train.max-seconds {seconds} "
            "--train.log-every 10 --train.eval-every 200 --train.checkpoint-every 200"
        ).split()
        status = main(argv)
        *_, last = Path("out/run/metrics.jsonl").read_text().splitlines()
        rounds.write_text(f"{last.split(',')[0].split()[-1]} steps")
        return status
    commands = {
        "tokenize": "tokenize in/a.txt in/b.txt --tokenizer in/tok --threads 2 --out out/t.npy",
        "tokenize-shards": "tokenize in/a.txt in/b.txt --tokenizer in/tok --threads 2 "
        "--shard-tokens 5000 --out out/s.npy",
        "train-bpe": f"train-bpe in/a.txt --vocab-size 320 --special-token {EOT} --threads 2 "
        "--max-memory 100KB --out out/tok",
    }
    number = 0
    while time.monotonic() < until:
        status = main(commands[name].split())
        if status:
            return status
        number += 1
    rounds.write_text(f"{number} times")
    return 0


def _look(pid: int, seconds: float) -> Sample | None:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        files = len(os.listdir(f"/proc/{pid}/fd"))
        threads = len(os.listdir(f"/proc/{pid}/task"))
    except (OSError, IndexError):
        return None
    if not pages:  # it is just ending
        return None
    return Sample(seconds, pages * _PAGE_MB, files, threads)


def _slope(samples: list[Sample]) -> tuple[float, float]:
    """Megabytes a minute, by least squares, and what that comes to from the first to the last."""
    count = len(samples)
    at = sum(sample.seconds for sample in samples) / count
    held = sum(sample.megabytes for sample in samples) / count
    over = sum((s.seconds - at) * (s.megabytes - held) for s in samples)
    under = sum((s.seconds - at) ** 2 for s in samples) or 1.0
    slope = over / under
    return slope * 60, slope * (samples[-1].seconds - samples[0].seconds)
