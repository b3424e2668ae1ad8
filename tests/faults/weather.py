"""A slow disk, and a clock that somebody sets: nothing comes of either."""

from __future__ import annotations

import json
import random

from .findings import Tally
from .jobs import Job
from .process import Place, run
from .shim import Fault

_JUMPS = (-10 * 365 * 86_400, -3600, -1, 1, 3600, 10 * 365 * 86_400)


def weather(job: Job, place: Place, cases: int, seed: int) -> Tally:
    """Each write or sync takes 50 ms (once); the clock of the day jumps, ``cases`` times."""
    tally = Tally(f"weather {job.name}")
    rng = random.Random(f"{job.name} {seed}")
    job.prepare(place)
    faults = [Fault(call, "SLOW", 1, stays=True) for call in ("sync", "rename")]
    faults += [Fault("", "", rng.randint(0, 40), jump=rng.choice(_JUMPS)) for _ in range(cases)]
    for fault in faults:
        job.restart(place)
        ended = run(job.argv, place, fault)
        wrong = ended.complaint() or job.difference(place)
        if wrong is None and ended.status != 0:
            wrong = f"failed: {ended.said.strip()}"
        tally.case(str(fault), wrong or _time_runs_backwards(place), place)
    tally.close()
    return tally


def _time_runs_backwards(place: Place) -> str | None:
    for path in place.out.rglob("metrics.jsonl"):
        before = 0.0
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if not before <= record["seconds"] < 1000:
                return f"{path.name}: {record['seconds']} seconds after {before}"
            before = record["seconds"]
    return None
