"""(b) Every call fails once: the Nth write, sync, rename, ... of a command, for every N."""

from __future__ import annotations

from .findings import Tally
from .jobs import Job
from .kill import went_on
from .process import Place, run
from .shim import KINDS, Fault

_HARMLESS = ("EINTR", "SHORT", "SLOW")
"""What a program that is written well does not notice, in the calls that may say so in earnest."""
_CALLED_AGAIN = ("open", "read", "write", "sync", "lock")


def fail(job: Job, place: Place, calls: list[str], kinds: list[str], most: int) -> Tally:
    """Makes each of ``calls`` fail in each of its ``kinds``, at most ``most`` places of each."""
    tally = Tally(f"fail {job.name}")
    job.prepare(place)
    for call in calls:
        for kind in [*KINDS[call], "KILL"]:
            if kinds and kind not in kinds:
                continue
            for nth in places(job.calls[call], most):
                one_case(job, place, Fault(call, kind, nth), tally)
            if kind == "ENOSPC":
                for nth in places(job.calls[call], max(2, most // 4)):
                    one_case(job, place, Fault(call, kind, nth, stays=True), tally)
    tally.close()
    return tally


def places(count: int, most: int) -> list[int]:
    """Which of ``count`` calls are to fail: all, or ``most`` of them from the first to the last."""
    if count <= most:
        return list(range(1, count + 1))
    step = (count - 1) / max(1, most - 1)
    return sorted({1 + round(i * step) for i in range(most)})


def one_case(job: Job, place: Place, fault: Fault, tally: Tally) -> None:
    """One fault, the verdict on how the command took it, and on the next start."""
    job.restart(place)
    ended = run(job.argv, place, fault)
    if not ended.fired:
        return
    wrong = ended.complaint() or job.incomplete(place)
    name = "went on" if ended.status == 0 else "killed" if fault.kind == "KILL" else "ended"
    tally.ends[name] += 1
    if wrong is None and ended.status == 0:
        wrong = job.difference(place, hidden=False)
        wrong = wrong and f"ended well, but {wrong}"
    if (
        wrong is None
        and fault.kind in _HARMLESS
        and fault.call in _CALLED_AGAIN
        and ended.status != 0
        and not fault.stays
    ):
        wrong = f"ended though nothing was lost: {ended.said.strip().splitlines()[-1]}"
    if wrong is None and not (job.once and ended.status == 0):
        wrong = went_on(job, place)
    tally.case(f"{fault} ({ended.fired.partition(' ')[2]})", wrong, place)
