"""(a) SIGKILL at any moment, once or again and again, of a command or of all that it started."""

from __future__ import annotations

import random

from .findings import Tally
from .jobs import Job
from .process import Place, run, start


def kill(job: Job, place: Place, cases: int, seed: int) -> Tally:
    """Kills ``job`` at random moments, ``cases`` times, and lets it go on."""
    tally = Tally(f"kill {job.name}")
    rng = random.Random(f"{job.name} {seed}")
    job.prepare(place)
    for number in range(cases):
        job.restart(place)
        times = rng.choice((1, 1, 1, 2, 3))
        moments = [rng.uniform(0, job.seconds * 1.02) for _ in range(times)]
        group = rng.random() < 0.7
        what = f"case {number} of seed {seed}, killed after " + ", ".join(
            f"{moment:.4f}" for moment in moments
        )
        wrong, killed = None, 0
        for moment in moments:
            running = start(job.argv, place)
            if not running.wait(moment):
                killed += 1
                running.kill(group=group)
            ended = running.end()
            wrong = ended.complaint() or job.incomplete(place)
            if wrong or ended.status == 0:
                break
        tally.ends["killed"] += killed
        tally.case(what, wrong or went_on(job, place), place, fired=killed > 0)
    tally.close()
    return tally


def went_on(job: Job, place: Place) -> str | None:
    """What is wrong after the next start, which nothing disturbs; None if nothing is."""
    if job.once and job.difference(place) is None:
        return None
    ended = run(job.argv, place)
    wrong = ended.complaint() or (ended.status and f"the next start fails: {ended.said.strip()}")
    return wrong or job.difference(place)
