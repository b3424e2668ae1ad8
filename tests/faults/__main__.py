"""``python -m tests.faults KIND --job JOB``: puts faults into a job, and says what came of it."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from .shim import CALLS, KINDS, Fault, NoCompiler, enter

_EPILOG = """\
examples, from the repository's root:
  python -m tests.faults jobs
  python -m tests.faults kill --job train --cases 200 --seed 1
  python -m tests.faults fail --job tokenize --call write --errno ENOSPC --nth 7
  python -m tests.faults fail --job train --most 20
  python -m tests.faults power --job train --cases 100

A finding is a line, and the folder of the first one stays under --dir. Exit status 0: there is
none; 1: there is one; 77: no C compiler."""


def main() -> int:
    """Runs one kind of fault on some jobs."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("kind", choices=["jobs", "kill", "fail", "power"])
    parser.add_argument("--job", action="append", metavar="JOB", help="default: all; see `jobs`")
    parser.add_argument("--cases", type=int, default=50, metavar="N", help="of each job")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--call", choices=CALLS, action="append", help="what fails; default: all")
    parser.add_argument("--errno", action="append", default=[], metavar="NAME",
        help="how: an errno, SHORT (half is done), KILL, SLOW; default: all that fit")  # fmt: skip
    parser.add_argument("--nth", type=int, metavar="N", help="this call alone; default: each")
    parser.add_argument("--stays", action="store_true", help="with --nth: all after it fail too")
    parser.add_argument("--most", type=int, default=10**6, metavar="N",
        help="fail at most so many places of each call, from the first to the last")  # fmt: skip
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where; default: a temporary one")
    arguments = parser.parse_args()
    try:
        enter()
    except NoCompiler as error:
        print(f"skipped: {error}")
        return 77

    from .fail import fail, one_case
    from .findings import Tally, conclude
    from .jobs import JOBS, make_inputs
    from .kill import kill
    from .power import power
    from .process import Place

    if arguments.kind == "jobs":
        for job in JOBS.values():
            print(f"{job.name:<22} cs336lm {' '.join(job.argv)}")
        return 0
    names = arguments.job or list(JOBS)
    unknown = [name for name in names if name not in JOBS]
    if unknown:
        parser.error(f"there is no job {unknown[0]!r}: there are {', '.join(JOBS)}")
    base = arguments.dir or Path(tempfile.mkdtemp(prefix="cs336lm-faults-"))
    place = Place(base)
    make_inputs(place)
    tallies = []
    for name in names:
        job = JOBS[name]
        if arguments.kind == "kill":
            tallies.append(kill(job, place, arguments.cases, arguments.seed))
        elif arguments.kind == "power":
            tallies.append(power(job, place, arguments.cases, arguments.seed))
        elif arguments.nth is not None:
            if not (arguments.call and arguments.errno):
                parser.error("--nth needs --call and --errno")
            tally = Tally(f"fail {name}")
            job.prepare(place)
            fault = Fault(arguments.call[0], arguments.errno[0], arguments.nth, arguments.stays)
            one_case(job, place, fault, tally)
            tally.close()
            tallies.append(tally)
        else:
            calls = arguments.call or list(KINDS)
            tallies.append(fail(job, place, calls, arguments.errno, arguments.most))
    status = conclude(tallies)
    if status:
        print(f"the folder of the first finding of each job: {base}")
    elif arguments.dir is None:
        import shutil

        shutil.rmtree(base)
    return status


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
