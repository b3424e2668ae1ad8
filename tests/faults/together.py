"""Two at once on one output: the second is refused in a line, or one of the two wins whole."""

from __future__ import annotations

import random
import re

from .findings import Tally
from .jobs import Job
from .process import Place, start

REFUSED = re.compile(
    r"in use by|another job is writing|is there already|holds other things|meanwhile"
)


def together(job: Job, place: Place, cases: int, seed: int) -> Tally:
    """Starts ``job`` twice, the second at a random moment of the first, ``cases`` times."""
    tally = Tally(f"two {job.name}")
    rng = random.Random(f"{job.name} {seed}")
    job.prepare(place)
    for number in range(cases):
        job.restart(place)
        pause = rng.choice((0.0, rng.uniform(0, 0.02), rng.uniform(0, job.seconds)))
        first = start(job.argv, place)
        first.wait(pause)
        second = start(job.argv, place, name="second")
        both = [first.end(), second.end()]
        wrong = next(filter(None, (ended.complaint() for ended in both)), None)
        for ended in both:
            if wrong is None and ended.status != 0 and not REFUSED.search(ended.said):
                wrong = f"refused without saying that there is another: {ended.said.strip()}"
        done = sum(ended.status == 0 for ended in both)
        if wrong is None and not done:
            wrong = "none of the two was let through"
        tally.ends[f"{done} of 2 done"] += 1
        wrong = wrong or job.difference(place)
        tally.case(f"case {number} of seed {seed}, the second after {pause:.3f} s", wrong, place)
    tally.close()
    return tally
