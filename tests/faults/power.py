"""(c) The power is cut: every state that a disk may be in then, at every sync, and what follows."""

from __future__ import annotations

import random
import re

from .disk import Disk, lay_down, name_of, read_log
from .findings import Tally
from .jobs import Job
from .kill import went_on
from .process import Place, run

_CHOICES = [("none", "none"), ("all", "none"), ("all", "zeros"), ("all", "all"), ("some", "any"),
            ("some", "any"), ("all", "any")]  # fmt: skip
_STEP = re.compile(r"run/checkpoints/step-(\d+)\.pt")


def power(job: Job, place: Place, cases: int, seed: int) -> Tally:
    """Looks at every state that a cut of power may leave, and starts again on ``cases`` of them."""
    tally = Tally(f"power {job.name}")
    rng = random.Random(f"{job.name} {seed}")
    job.prepare(place)
    job.restart(place)
    log = place.said / "power.log"
    log.unlink(missing_ok=True)
    disk = Disk(place.out)
    ended = run(job.argv, place, log=log)
    assert ended.status == 0, ended.said
    place.clear()

    states: dict[str, tuple[str, dict[str, bytes | None]]] = {}
    kept = saved = 0
    for number, record in enumerate(read_log(log)):
        if record.op in ("sync", "rename", "unlink"):
            for names, data in _CHOICES:
                state = disk.after_power_cut(names, data, rng)
                if states.setdefault(name_of(state), ("", state))[0]:
                    continue
                where = record.path.removeprefix(str(place.out) + "/")
                what = f"before call {number} ({record.op} {where}), names {names}, data {data}"
                states[name_of(state)] = (what, state)
                there = [int(found[1]) for name in state if (found := _STEP.fullmatch(name))]
                if kept and max(there, default=0) < kept:
                    tally.findings.append(f"{what}: the checkpoint of step {kept} is lost")
        disk.apply(record)
        if record.op == "rename" and (found := _STEP.search(record.other)):
            saved = int(found[1])
        elif record.op == "sync" and record.path.endswith("run/checkpoints"):
            kept = saved
    chosen = list(states.values())
    again = set(rng.sample(range(len(chosen)), min(cases, len(chosen))))
    started = 0
    for number, (what, state) in enumerate(chosen):
        job.restart(place)
        lay_down(state, place.out)
        wrong = job.incomplete(place)
        if wrong is None and number in again:
            started += 1
            wrong = went_on(job, place)
        tally.case(what, wrong, place)
    tally.ends["started again"] = started
    tally.close()
    return tally
